package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gantry/front"
	"gantry/internal/cluster"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"
)

// noWait spares each race-tested process its second of waiting at the end.
const noWait = "atexit_sleep_ms=0"

// gantryIn makes dir/gantry, which is this test binary.
func gantryIn(t testing.TB, dir string) string {
	self, err := os.Executable()
	require.NoError(t, err)
	path := filepath.Join(dir, "gantry")
	require.NoError(t, os.Symlink(self, path))
	return path
}

// scripts runs testdata/pattern with a gantry on PATH. Beside testscript's own
// commands there is
//
//	rc N command args…     the command ends with exit code N
func scripts(t *testing.T, pattern string, vars map[string]string) {
	bin := t.TempDir()
	gantryIn(t, bin)
	files, err := filepath.Glob(filepath.Join("testdata", pattern))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	testscript.Run(t, testscript.Params{
		Files: files,
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", bin+string(os.PathListSeparator)+e.Getenv("PATH"))
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("GORACE", noWait)
			e.Setenv("XDG_STATE_HOME", filepath.Join(e.WorkDir, "state"))
			for name, value := range vars {
				e.Setenv(name, value)
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"rc": scriptRC},
	})
}

func scriptRC(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: rc N command args…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		got = e.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// TestMisuse: what cannot be meant, without any node.
func TestMisuse(t *testing.T) { scripts(t, "cli_*.txtar", nil) }

// newCluster starts two nodes and returns them with an operator's folder that
// belongs to this process.
func newCluster(t *testing.T) (c *cluster.Cluster, home string) { return newClusterWith(t, nil) }

// newClusterWith adds what extra returns to the nodes' configurations.
func newClusterWith(t *testing.T, extra func(node, dir string) string) (c *cluster.Cluster, home string) {
	t.Helper()
	return newClusterOf(t, cluster.Options{Extra: extra})
}

// newClusterOf fills in program, front and environment.
func newClusterOf(t *testing.T, o cluster.Options) (c *cluster.Cluster, home string) {
	t.Helper()
	program, err := filepath.EvalSymlinks("/proc/self/exe")
	require.NoError(t, err)
	o.Program, o.Front = program, front.EmbeddedServer
	o.Env = []string{"PATH=" + os.Getenv("PATH"), "LANG=C", "TMPDIR=" + os.TempDir()}
	c, err = cluster.New(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, c.Start(ctx))
	home = t.TempDir()
	for _, name := range []string{"ca.pem", "cert.pem", "key.pem", "cluster.toml"} {
		b, err := os.ReadFile(filepath.Join(c.Home(), name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(home, name), b, 0o600))
	}
	return c, home
}

func fill(t *testing.T, c *cluster.Cluster, node, name string, size int64) {
	t.Helper()
	require.NoError(t, c.CreateFile(node, name, func(f *os.File) error {
		_, err := io.Copy(f, cluster.Random(1, size))
		return err
	}))
}

// TestLive runs the commands against two real nodes.
func TestLive(t *testing.T) {
	c, home := newCluster(t)
	fill(t, c, "alpha", "vm1.img", 9<<20)
	fill(t, c, "alpha", "small", 5)
	scripts(t, "live_*.txtar", map[string]string{"OPERATOR": home, "ALPHA": c.Path("alpha", ""), "BETA": c.Path("beta", "")})
}

// command is a gantry of an operator, in a process group of its own.
func command(t *testing.T, home, state string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(gantryIn(t, t.TempDir()), append([]string{"--home", home}, args...)...)
	cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+state, "GORACE="+noWait)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

func exitOf(err error) int {
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return e.ExitCode()
	}
	if err != nil {
		return -1
	}
	return 0
}

// A copy of lastingSize bytes at lastingRate lasts eight seconds, and costs next to
// nothing.
const (
	lastingSize = 32 << 20
	lastingRate = "4M"
)

// TestInterruptLeaves: without a terminal Ctrl-C leaves, the nodes work on, and
// the same command goes on with the same tasks.
func TestInterruptLeaves(t *testing.T) {
	c, home := newCluster(t)
	fill(t, c, "alpha", "big", lastingSize)
	state := t.TempDir()
	cmd := command(t, home, state, "copy", "alpha:disks/big", "beta:disks/big", "--bwlimit", lastingRate, "--json")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	require.NoError(t, cmd.Start())
	buf := make([]byte, 64<<10)
	var text strings.Builder
	for !strings.Contains(text.String(), `"kind":"progress","item":"beta:`) {
		n, err := out.Read(buf)
		text.Write(buf[:n])
		require.NoError(t, err, text.String())
	}
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	_, _ = io.Copy(io.Discard, out)
	require.Equal(t, 6, exitOf(cmd.Wait()), stderr.String())
	require.Contains(t, stderr.String(), "gantry watch")

	again := command(t, home, state, "copy", "alpha:disks/big", "beta:disks/big", "--bwlimit", lastingRate)
	both, err := again.CombinedOutput()
	require.Equal(t, 0, exitOf(err), "%s", both)
	require.Contains(t, string(both), "going on with job")
	same := exec.Command("cmp", c.Path("alpha", "big"), c.Path("beta", "big"))
	cmp, err := same.CombinedOutput()
	require.NoError(t, err, "%s", cmp)
	list, err := command(t, home, state, "jobs").Output()
	require.NoError(t, err)
	require.Equal(t, 1, strings.Count(string(list), "copy alpha:disks/big"), "%s", list)
}

// TestKilledCommandGoesOn: kill -9 of the command loses nothing.
func TestKilledCommandGoesOn(t *testing.T) {
	c, home := newCluster(t)
	fill(t, c, "alpha", "big", lastingSize)
	state := t.TempDir()
	cmd := command(t, home, state, "copy", "alpha:disks/big", "beta:disks/big", "--bwlimit", lastingRate, "--json")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	buf := make([]byte, 64<<10)
	for text := ""; !strings.Contains(text, `"node":"beta"`); {
		n, err := out.Read(buf)
		text += string(buf[:n])
		require.NoError(t, err, text)
	}
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	watch, err := command(t, home, state, "jobs", "--json").Output()
	require.NoError(t, err)
	require.Contains(t, string(watch), `"state":"unfinished"`)
	again, err := command(t, home, state, "copy", "alpha:disks/big", "beta:disks/big", "--bwlimit", lastingRate).CombinedOutput()
	require.Equal(t, 0, exitOf(err), "%s", again)
	require.NoError(t, exec.Command("cmp", c.Path("alpha", "big"), c.Path("beta", "big")).Run())
}

// I138: a reader that leaves is an error of the write and no death by signal.
func TestClosedStdout(t *testing.T) {
	c, home := newCluster(t)
	fill(t, c, "alpha", "big", 64<<20)
	t.Run("I138 EPIPE on stdout of an export", func(t *testing.T) {
		cmd := command(t, home, t.TempDir(), "export", "alpha:disks/big", "-")
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		require.NoError(t, cmd.Start())
		_, err = io.ReadFull(out, make([]byte, 10))
		require.NoError(t, err)
		out.Close()
		require.Equal(t, 1, exitOf(cmd.Wait()))
		require.Contains(t, stderr.String(), "writing to standard output")
	})
	t.Run("I137 stdin closed", func(t *testing.T) {
		cmd := command(t, home, t.TempDir(), "digest", "alpha:disks/big")
		cmd.Stdin = nil
		require.NoError(t, cmd.Run())
	})
}
