package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gantry/config"

	"github.com/stretchr/testify/require"
)

// TestCall runs calls against two real nodes.
func TestCall(t *testing.T) {
	c, home := newCluster(t)
	fill(t, c, "alpha", "vm1.img", 1<<20)
	fill(t, c, "alpha", "small", 5)
	for _, node := range []string{"alpha", "beta"} {
		fill(t, c, node, "same", 1000)
	}
	list := filepath.Join(home, "cluster.toml")
	text, err := os.ReadFile(list)
	require.NoError(t, err)
	text = append(text, "\n[[group]]\nname = \"all\"\nnodes = \"*\"\n"...)
	require.NoError(t, os.WriteFile(list, text, 0o600))
	scripts(t, "call_*.txtar", map[string]string{"OPERATOR": home, "ALPHA": c.Path("alpha", ""), "BETA": c.Path("beta", "")})
}

// TestCallInterrupted: Ctrl-C keeps what came, names who did not answer, and
// what was recorded can be called again.
func TestCallInterrupted(t *testing.T) {
	_, home := newCluster(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close() // it accepts nothing and answers nobody
	list := filepath.Join(home, "cluster.toml")
	text, err := os.ReadFile(list)
	require.NoError(t, err)
	text = append(text, fmt.Sprintf("\n[[node]]\nname = \"hung\"\nurl = \"https://%s\"\n", l.Addr())...)
	require.NoError(t, os.WriteFile(list, text, 0o600))
	state := t.TempDir()
	cmd := command(t, home, state, "call", "*", "status", "--json", "--timeout", "5m")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	require.NoError(t, cmd.Start())
	var seen strings.Builder
	lines := bufio.NewReader(out)
	for strings.Count(seen.String(), `"kind":"task"`) < 2 {
		line, err := lines.ReadString('\n')
		require.NoError(t, err, seen.String())
		seen.WriteString(line)
	}
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	rest, err := io.ReadAll(lines)
	require.NoError(t, err)
	require.Equal(t, 1, exitOf(cmd.Wait()), stderr.String())
	require.Contains(t, string(rest), `"counts":{"cancelled":1,"done":2},"not_done":{"cancelled":"hung"}`)
	require.Contains(t, stderr.String(), "2 of 3 nodes are done; cancelled: hung")

	again := command(t, home, state, "retry", "--only", "cancelled", "--timeout", "1s")
	both, err := again.CombinedOutput()
	require.Equal(t, 1, exitOf(err), "%s", both)
	require.Contains(t, string(both), "hung: unreachable: no connection within 1s")
	require.NotContains(t, string(both), "alpha")
}

// Who shows which key is said of those that have a next one, and whoever shows
// an emergency key is named in any case.
func TestRotation(t *testing.T) {
	cluster := &config.Cluster{}
	var all []nodeStatus
	add := func(set config.PinSet, role, pin string) {
		name := fmt.Sprintf("n%d", len(all)+1)
		cluster.Nodes = append(cluster.Nodes, config.ClusterNode{Name: name, PinSet: set, Pins: []string{"x"}})
		all = append(all, nodeStatus{Node: name, Pin: pin, PinRole: role})
	}
	moving := config.PinSet{Current: "c", Next: "n"}
	require.Empty(t, rotation(cluster, all))
	for range 18 {
		add(moving, config.PinNext, "n")
	}
	add(moving, config.PinCurrent, "c")
	add(moving, "", "")
	add(config.PinSet{Current: "c"}, config.PinCurrent, "c")
	require.Equal(t, []string{"next pin seen on 18 of 20; still the current one: n19; no key seen: n20"}, rotation(cluster, all))
	add(config.PinSet{Current: "c"}, config.PinEmergency, "e")
	add(config.PinSet{Current: "c"}, "", "stranger")
	require.Equal(t, []string{"emergency pin seen on n22", "a key that is not pinned on n23"}, rotation(cluster, all)[1:])
}
