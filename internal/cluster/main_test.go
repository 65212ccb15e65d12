package cluster_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"gantry/front"
	"gantry/internal/cluster"
	"gantry/internal/testkit"

	"github.com/stretchr/testify/require"
)

// TestMain lets the test binary be a keeper, as cmd/gantry is one.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "__keep" {
		if err := cluster.Keep(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) == 4 && os.Args[1] == "__swarm" {
		n, err := strconv.Atoi(os.Args[3])
		if err == nil {
			err = serveSwarm(os.Args[2], n)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if os.Getenv("CLUSTER_BECOME") != "" {
		os.Exit(m.Run()) // it gives up root, and could not clean up after itself
	}
	testkit.Parallel(4) // they wait for servers more than they compute
	testkit.Main(m, removeBuilds)
}

// builds are the programs made for this run, by build tags.
var builds struct {
	sync.Mutex
	dir   string
	paths map[string]string
}

func removeBuilds() { os.RemoveAll(builds.dir) }

// program builds cmd/gantry once per set of tags.
func program(t *testing.T, tags string) string {
	t.Helper()
	b := &builds
	b.Lock()
	defer b.Unlock()
	if path, ok := b.paths[tags]; ok {
		return path
	}
	if b.dir == "" {
		dir, err := os.MkdirTemp("", "build")
		require.NoError(t, err)
		b.dir, b.paths = dir, map[string]string{}
	}
	path := filepath.Join(b.dir, "gantry"+tags)
	cmd := exec.Command("go", "build", "-tags", tags, "-o", path, "gantry/cmd/gantry")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	b.paths[tags] = path
	return path
}

// serverEnv is the environment of everything that a test starts.
func serverEnv() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "LANG=C", "TMPDIR=" + os.TempDir()}
}

// needFront skips when a front is not installed.
func needFront(t *testing.T, kind front.Kind) {
	t.Helper()
	if kind == front.EmbeddedServer {
		return
	}
	if _, err := front.Program(kind); err != nil {
		t.Skipf("needs %s: %v", kind, err)
	}
}

// newCluster makes a cluster that ends with the test. fill puts files into it
// before its servers start.
func newCluster(t *testing.T, o cluster.Options, fill func(*cluster.Cluster)) *cluster.Cluster {
	t.Helper()
	if o.Program == "" {
		o.Program = program(t, "")
	}
	o.Env = append(serverEnv(), o.Env...)
	c, err := cluster.New(o)
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			showLogs(t, c)
		}
		require.NoError(t, c.Close())
	})
	if fill != nil {
		fill(c)
	}
	require.NoError(t, c.Start(t.Context()))
	return c
}

// showLogs prints the end of every server's output.
func showLogs(t *testing.T, c *cluster.Cluster) {
	for _, name := range c.Programs() {
		text, _ := os.ReadFile(c.Log(name))
		if len(text) > 4000 {
			text = text[len(text)-4000:]
		}
		t.Logf("%s, %+v:\n%s", name, c.Process(name), text)
	}
}

// A command is a running gantry, as the operator.
type command struct {
	*exec.Cmd
	out, err bytes.Buffer
	done     chan struct{} // closed when it has ended
}

// start runs gantry with the operator's home; env is added.
func start(t *testing.T, c *cluster.Cluster, env []string, args ...string) *command {
	t.Helper()
	return startWith(t, c, nil, env, args...)
}

// startWith is start with a standard input.
func startWith(t *testing.T, c *cluster.Cluster, stdin *os.File, env []string, args ...string) *command {
	t.Helper()
	cmd := &command{Cmd: exec.Command(c.Program(), append([]string{"--home", c.Home()}, args...)...), done: make(chan struct{})}
	cmd.Dir = c.Home()
	cmd.Env = append(append(serverEnv(), "XDG_STATE_HOME="+c.State()), env...)
	cmd.SysProcAttr = c.OperatorAttr()
	cmd.Stdout, cmd.Stderr = &cmd.out, &cmd.err
	if stdin != nil {
		cmd.Stdin = stdin
	}
	require.NoError(t, cmd.Start())
	go func() {
		defer close(cmd.done)
		cmd.Wait()
	}()
	return cmd
}

// code waits for the end and returns the exit code; -1 when it was killed.
func (c *command) code(t *testing.T) int {
	t.Helper()
	select {
	case <-c.done:
	case <-time.After(2 * time.Minute):
		c.Process.Kill()
		<-c.done
		require.FailNow(t, "gantry did not end", "%s\n%s", c.Args, &c.err)
	}
	return c.ProcessState.ExitCode()
}

// gantry runs a command to its end.
func gantry(t *testing.T, c *cluster.Cluster, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := start(t, c, nil, args...)
	code = cmd.code(t)
	return code, cmd.out.String(), cmd.err.String()
}

// random puts a file of random bytes into alpha's resource.
func random(t *testing.T, c *cluster.Cluster, name string, seed uint64, size int64) {
	t.Helper()
	require.NoError(t, c.CreateFile("alpha", name, func(f *os.File) error {
		return cluster.Fill(t.Context(), f, cluster.Random(seed, size))
	}))
}

// same compares two files with cmp, which is not ours.
func same(t *testing.T, a, b string) bool {
	t.Helper()
	out, err := exec.Command("cmp", a, b).CombinedOutput()
	if err != nil {
		t.Logf("cmp: %v: %s", err, out)
	}
	return err == nil
}

// b3sum is the digest by the program of that name, which is not ours.
func b3sum(t *testing.T, path string) string {
	t.Helper()
	if _, err := exec.LookPath("b3sum"); err != nil {
		t.Skip("needs b3sum, to have a digest that is not ours")
	}
	out, err := exec.CommandContext(context.Background(), "b3sum", "--no-names", path).Output()
	require.NoError(t, err)
	return "b3:" + strings.TrimSpace(string(out))
}
