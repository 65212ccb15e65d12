package cluster

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gantry/internal/testkit"

	"github.com/stretchr/testify/require"
)

// patience bounds every wait for a real process.
const patience = 20 * time.Second

// keeping starts a keeper as a process and gives it one program, a shell
// script.
func keeping(t *testing.T, script string) (*Cluster, context.Context) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	self, err := os.Executable()
	require.NoError(t, err)
	c := &Cluster{dir: testkit.Dir(t), program: self, env: []string{"GORACE=atexit_sleep_ms=0"}, state: map[string]event{}, changed: make(chan struct{})}
	k, err := c.startKeeper(os.Getuid())
	require.NoError(t, err)
	c.keepers[1] = k
	closed := false
	t.Cleanup(func() {
		if !closed {
			require.NoError(t, c.Close())
		}
	})
	require.NoError(t, k.order(order{Start: &program{
		Name: "a/node", Args: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin"},
		Dir: c.dir, Log: filepath.Join(c.dir, "log"),
	}}))
	require.NoError(t, c.Await(ctx, "a/node", func(p Process) bool { return p.PID != 0 }))
	return c, ctx
}

func output(t *testing.T, c *Cluster, want string) string {
	t.Helper()
	var text []byte
	require.Eventually(t, func() bool {
		text, _ = os.ReadFile(filepath.Join(c.dir, "log"))
		return strings.Contains(string(text), want)
	}, patience, 5*time.Millisecond, "the log never had %q: %s", want, text)
	return string(text)
}

func running(pid int) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", itoa(pid), "stat"))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func TestKeeperRestartsWhatDies(t *testing.T) {
	c, ctx := keeping(t, `echo "up $ARMED"; exec sleep 1000`)
	output(t, c, "up \n")
	require.NoError(t, c.Once("a/node", "ARMED=yes"))
	for n := 2; n <= 3; n++ {
		require.NoError(t, c.Kill("a/node"))
		require.NoError(t, c.Await(ctx, "a/node", func(p Process) bool { return p.PID != 0 && p.Starts == n }))
		require.Eventually(t, func() bool { return strings.Count(output(t, c, "up"), "up") == n }, patience, 5*time.Millisecond)
	}
	// Armed once, for the start after the order, and not again.
	require.Equal(t, "up \nup yes\nup \n", output(t, c, "up"))
}

// Whoever gave up root has the keeper kill what is not his.
func TestKeeperKillsForItsMaker(t *testing.T) {
	c, ctx := keeping(t, `exec sleep 1005`)
	before := c.Process("a/node")
	require.NoError(t, c.keeperOf("a/node").order(order{Kill: "b/node"})) // nothing runs under that name
	require.NoError(t, c.keeperOf("a/node").order(order{Kill: "a/node"}))
	require.NoError(t, c.Await(ctx, "a/node", func(p Process) bool { return p.PID != 0 && p.Starts == 2 }))
	require.False(t, running(before.PID))
}

func TestNothingOfAGroupSurvivesItsLeader(t *testing.T) {
	// As nginx's workers survive a master that was killed.
	c, ctx := keeping(t, `sleep 1001 & echo worker $!; sleep 1002`)
	_, rest, _ := strings.Cut(output(t, c, "\n"), "worker ")
	worker := atoi(t, strings.Fields(rest)[0])
	require.True(t, running(worker))
	require.NoError(t, c.Kill("a/node"))
	require.NoError(t, c.Await(ctx, "a/node", func(p Process) bool { return p.Starts == 2 }))
	require.False(t, running(worker), "worker %d is left of the first start", worker)
}

func TestKeeperEndsWithItsMaker(t *testing.T) {
	c, _ := keeping(t, `exec sleep 1003`)
	pid := c.Process("a/node").PID
	require.True(t, running(pid))
	// The kernel closes the pipe of a maker that was killed; here it is closed
	// by hand.
	require.NoError(t, c.keepers[1].orders.Close())
	require.Eventually(t, func() bool { return !running(pid) && !running(c.keepers[1].cmd.Process.Pid) }, patience, 5*time.Millisecond)
}

func TestServersEndWithTheirKeeper(t *testing.T) {
	c, _ := keeping(t, `exec sleep 1004`)
	pid := c.Process("a/node").PID
	k := c.keepers[1]
	c.keepers[1] = nil
	require.NoError(t, k.cmd.Process.Kill())
	require.ErrorContains(t, k.close(), "killed")
	require.Eventually(t, func() bool { return !running(pid) }, patience, 5*time.Millisecond)
}

// becomeVar is set in the process that gives up root.
const becomeVar = "CLUSTER_BECOME"

func TestBecomeIsForGood(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to give it up")
	}
	if os.Getenv(becomeVar) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestBecomeIsForGood$", "-test.v")
		cmd.Env = append(os.Environ(), becomeVar+"=1", "GORACE=atexit_sleep_ms=0")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		return
	}
	require.NoError(t, Become(OperatorUID))
	require.Equal(t, OperatorUID, os.Getuid())
	require.Error(t, syscall.Setresuid(0, 0, 0))
	status, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err, "its own /proc must stay readable")
	require.Contains(t, string(status), "CapPrm:\t0000000000000000")
	_, err = os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
}
