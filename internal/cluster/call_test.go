package cluster_test

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"gantry/api"
	"gantry/client"
	"gantry/config"
	"gantry/feedback"
	"gantry/internal/testkit"
	"gantry/job"
	"gantry/pki"

	"github.com/stretchr/testify/require"
)

var callNodes = flag.Int("nodes", 200, "nodes that TestCall calls")

// startSwarm runs a swarm in a process of its own.
func startSwarm(t *testing.T, n int) (dir string, cluster *config.Cluster, lean func(string) (*client.Client, error)) {
	t.Helper()
	dir = testkit.Dir(t)
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self, "__swarm", dir, strconv.Itoa(n))
	cmd.Env, cmd.Stderr = serverEnv(), os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		in.Close()
		require.NoError(t, cmd.Wait())
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "ready\n", line)
	cluster, err = config.LoadCluster(filepath.Join(dir, "cluster.toml"))
	require.NoError(t, err)
	at := func(name string) string { return filepath.Join(dir, "ann", name) }
	id, err := pki.LoadIdentity(at("ca.pem"), at("cert.pem"), at("key.pem"))
	require.NoError(t, err)
	return dir, cluster, func(name string) (*client.Client, error) {
		where, ok := cluster.Node(name)
		if !ok {
			return nil, fmt.Errorf("there is no node %s", name)
		}
		return client.New(client.Config{Node: where, TLS: client.TLS(id, where), Lean: true}), nil
	}
}

// A call to many nodes of which more than half are broken in one way or another:
// each has its own outcome, and all is over when the deadline of the silent ones
// is, or little later.
func TestCall(t *testing.T) {
	n := *callNodes
	dir, cluster, lean := startSwarm(t, n)
	t.Run("outcomes", func(t *testing.T) { callAll(t, n, cluster, lean) })
	t.Run("memory", func(t *testing.T) { callGates(t, gates(n), dir, lean) })
}

func callAll(t *testing.T, n int, cluster *config.Cluster, lean func(string) (*client.Client, error)) {
	// what a node may take when all handshakes share a few cores
	deadline := 20*time.Second + time.Duration(max(0, n-200))*40*time.Millisecond
	nodes, err := cluster.Select(fmt.Sprintf("n[0000-%04d]", n-1))
	require.NoError(t, err)
	store, err := job.OpenStore(filepath.Join(t.TempDir(), "jobs"))
	require.NoError(t, err)
	j, _, err := store.Begin(job.Spec{Kind: job.Call, Cluster: "demo", Call: &api.CallSpec{
		Nodes: nodes, Op: api.CallStatus, Window: 256, Timeout: int64(deadline / time.Second),
	}}, true)
	require.NoError(t, err)
	defer j.Close()
	began := time.Now()
	final, err := (&job.Driver{Lean: lean}).Run(t.Context(), j)
	took := time.Since(began)
	require.NoError(t, err)
	wire, ok := final.Body.(*feedback.Error)
	require.True(t, ok)
	require.Equal(t, api.NotAllDone.Name, wire.Code)
	answers, err := j.Answers()
	require.NoError(t, err)
	require.Len(t, answers, n)
	wrong, next := 0, 0
	slowest := 0.0
	for _, a := range answers {
		i, err := strconv.Atoi(strings.TrimPrefix(a.Node, "n"))
		require.NoError(t, err)
		kind := swarmKinds[i%len(swarmKinds)]
		code := ""
		if a.Err != nil {
			code = a.Err.Code
		}
		if code != kind.code {
			wrong++
			t.Errorf("%s, which is %s: %v", a.Node, kind.name, a.Err)
		}
		if a.PinRole == config.PinNext {
			next++
		}
		if a.Err == nil {
			slowest = max(slowest, a.Seconds)
		}
	}
	good := 0
	for i := range n {
		if swarmKinds[i%len(swarmKinds)].name == "good" {
			good++
		}
	}
	require.Equal(t, good, next, "nodes whose next pin was seen")
	require.GreaterOrEqual(t, took, deadline, "the silent ones were waited for")
	require.LessOrEqual(t, took, deadline*12/10)
	require.GreaterOrEqual(t, slowest, slowAnswer.Seconds())
	t.Logf("cases: %d nodes, %d wrong outcomes, %.1f s for a deadline of %v; the slowest answer took %.1f s", n, wrong, took.Seconds(), deadline, slowest)
}

// callGates measures what a node in flight costs its caller at worst: each has
// sent nearly as much as a lean client takes.
func callGates(t *testing.T, n int, dir string, lean func(string) (*client.Client, error)) {
	const most = 256 << 10
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	fan := client.Fan{Client: lean, Window: n, Timeout: 5 * time.Minute}
	for i := range n {
		fan.Nodes = append(fan.Nodes, fmt.Sprintf("g%04d", i))
	}
	before := inUse()
	calls := client.Call(ctx, fan, func(ctx context.Context, c *client.Client) (*api.Status, error) { return c.Status(ctx) })
	asker := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(dir, "gates"))
	}}}
	require.Eventually(t, func() bool {
		resp, err := asker.Get("http://swarm/")
		require.NoError(t, err)
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return string(text) == strconv.Itoa(n)
	}, 2*time.Minute, 50*time.Millisecond, "all are in flight")
	each := (inUse() - before) / int64(n)
	cancel()
	for _, a := range calls.All() {
		require.Equal(t, api.Cancelled, a.Outcome(), "%v", a.Err)
	}
	t.Logf("cases: %d nodes in flight, %d KiB each", n, each>>10)
	require.Less(t, each, int64(most))
	require.Greater(t, each, int64(halfAnswer), "what they sent is in the measure")
}

// inUse is the heap and the stacks that are in use.
func inUse() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
