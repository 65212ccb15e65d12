package cluster_test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gantry/api"
	"gantry/config"
	"gantry/feedback"
	"gantry/front"
	"gantry/internal/cluster"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

// local puts a file of random bytes, with a hole where it is large enough, where
// the operator may read it.
func local(t *testing.T, c *cluster.Cluster, name string, seed uint64, size int64) string {
	t.Helper()
	path := filepath.Join(c.Home(), name)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, cluster.Fill(t.Context(), f, cluster.Random(seed, size)))
	if size > 16<<20 {
		hole := syscall.Flock_t{Start: 4<<20 + 1000, Len: 6 << 20}
		require.NoError(t, syscall.Fallocate(int(f.Fd()), 0x1|0x2, hole.Start, hole.Len)) // KEEP_SIZE, PUNCH_HOLE
	}
	require.NoError(t, f.Chmod(0o644))
	return path
}

// TestPush brings files of every size through every front: from here, from
// standard input, and from node to node, pushed.
func TestPush(t *testing.T) {
	t.Parallel()
	for _, kind := range front.Kinds {
		t.Run(string(kind), func(t *testing.T) {
			needFront(t, kind)
			c := newCluster(t, cluster.Options{Front: kind, Dirs: []string{"home"}, Extra: homeTree}, func(c *cluster.Cluster) {
				random(t, c, "src.img", 7, 20<<20+77)
			})
			pushFolder(t, c)
			for i, size := range []int64{0, 1, transfer.PieceSize - 1, transfer.PieceSize, transfer.PieceSize + 1, 40<<20 + 77} {
				src := local(t, c, fmt.Sprintf("src-%d", size), uint64(i), size)
				target := fmt.Sprintf("file-%d", size)
				code, out, stderr := gantry(t, c, "import", src, "beta:disks/"+target)
				require.Zero(t, code, "%s\n%s", out, stderr)
				require.True(t, same(t, src, c.Path("beta", target)), "%d bytes", size)
				require.Contains(t, out, b3sum(t, src))

				if i%2 == 1 {
					continue
				}
				code, out, stderr = piped(t, c, src, "import", "-", "beta:disks/stdin-"+target)
				require.Zero(t, code, "%s\n%s", out, stderr)
				require.True(t, same(t, src, c.Path("beta", "stdin-"+target)), "%d bytes from standard input", size)
			}
			code, out, stderr := gantry(t, c, "copy", "--push", "alpha:disks/src.img", "beta:disks/pushed")
			require.Zero(t, code, "%s\n%s", out, stderr)
			require.True(t, same(t, c.Path("alpha", "src.img"), c.Path("beta", "pushed")))
			code, out, _ = gantry(t, c, "copy", "--push", "alpha:disks/src.img", "beta:disks/pushed", "--new")
			require.Zero(t, code)
			require.Contains(t, out, api.TargetThere)
		})
	}
}

// homeTree is a resource of kind tree in the folder home of a node.
func homeTree(_, dir string) string {
	return fmt.Sprintf("\n[[resource]]\nname = \"home\"\nkind = \"tree\"\npath = \"%s/home\"\nwritable = true\n", dir)
}

// pushFolder brings a folder from here, and what has changed of it.
func pushFolder(t *testing.T, c *cluster.Cluster) {
	src := filepath.Join(c.Home(), "folder")
	require.NoError(t, os.MkdirAll(filepath.Join(src, "a/b"), 0o755))
	for i := range 300 {
		require.NoError(t, os.WriteFile(filepath.Join(src, "a", fmt.Sprintf("%03d", i)), []byte(strings.Repeat("x", i)), 0o644))
	}
	local(t, c, "folder/a/b/large", 5, 9<<20)
	require.NoError(t, os.Symlink("../large", filepath.Join(src, "a/b/link")))
	target := filepath.Join(c.Dir(), "beta", "home", "folder")
	for _, args := range [][]string{{}, {"--update"}, {"--update", "--delete"}} {
		code, out, stderr := gantry(t, c, append([]string{"import", src, "beta:home/folder"}, args...)...)
		require.Zero(t, code, "%s\n%s", out, stderr)
		text, err := exec.Command("diff", "-r", "--no-dereference", src, target).CombinedOutput()
		require.NoError(t, err, "%s", text)
		require.NoError(t, os.WriteFile(filepath.Join(src, "a", "000"), []byte("changed"), 0o644))
		require.NoError(t, os.WriteFile(filepath.Join(src, "a", "new"), []byte(strings.Join(args, " ")), 0o644))
		if len(args) == 1 {
			require.NoError(t, os.Remove(filepath.Join(src, "a", "001")))
		}
	}
}

// piped runs gantry with a file that comes through a pipe.
func piped(t *testing.T, c *cluster.Cluster, path string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() {
		defer w.Close()
		f, err := os.Open(path)
		if err == nil {
			defer f.Close()
			_, err = io.Copy(w, f)
		}
		done <- err
	}()
	cmd := startWith(t, c, r, nil, args...)
	r.Close()
	code = cmd.code(t)
	require.NoError(t, <-done)
	return code, cmd.out.String(), cmd.err.String()
}

const (
	pushSize = 64 << 20
	// sentTwice is what a cut may cost.
	sentTwice = 16 << 20
)

// moved is the result that a gantry with --json printed last.
func moved(t *testing.T, stdout string) api.ImportResult {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	rec, err := feedback.Decode([]byte(lines[len(lines)-1]))
	require.NoError(t, err, stdout)
	body, ok := rec.Body.(*feedback.Result)
	require.True(t, ok, "the last record is %s", rec.Line)
	var r api.ImportResult
	require.NoError(t, api.DecodeBytes(body.Value, &r))
	return r
}

// TestPushIsCut breaks the connections of a pushing node in the middle of its
// requests.
func TestPushIsCut(t *testing.T) {
	t.Parallel()
	const cuts = 3
	for _, kind := range front.Kinds {
		t.Run(string(kind), func(t *testing.T) {
			needFront(t, kind)
			c := newCluster(t, cluster.Options{Front: kind, Proxied: true}, func(c *cluster.Cluster) {
				random(t, c, "src.img", 3, pushSize)
			})
			c.Proxy("beta").CutUp(cuts, pushSize)
			code, out, stderr := gantry(t, c, "--json", "copy", "--push", "alpha:disks/src.img", "beta:disks/cut.img")
			require.Zero(t, code, stderr)
			require.True(t, same(t, c.Path("alpha", "src.img"), c.Path("beta", "cut.img")))
			require.Equal(t, cuts, c.Proxy("beta").Cuts())
			r := moved(t, out)
			t.Logf("%d bytes came, %d cuts seen, %d bytes went to the front", r.Wire, r.Cuts, c.Proxy("beta").Received())
			require.LessOrEqual(t, r.Wire, int64(pushSize+cuts*sentTwice))
			// TLS and headers add some; a front that spools gets no more either.
			require.LessOrEqual(t, c.Proxy("beta").Received(), int64(pushSize+cuts*sentTwice)*102/100)
		})
	}
}

// pushVictims are who is killed behind each front.
var pushVictims = map[front.Kind][]string{
	front.Lighttpd:       {caller, "beta/front"},
	front.Nginx:          {caller, "beta/node", "beta/front"},
	front.EmbeddedServer: {"beta/node"},
}

// TestPushIsKilled kills who pushes, the node and its front, with kill -9, while a
// file is being pushed. The same command goes on.
func TestPushIsKilled(t *testing.T) {
	t.Parallel()
	for _, kind := range front.Kinds {
		t.Run(string(kind), func(t *testing.T) {
			needFront(t, kind)
			c := newCluster(t, cluster.Options{Front: kind}, nil)
			src := local(t, c, "src.img", 11, pushSize)
			for _, victim := range pushVictims[kind] {
				target := strings.ReplaceAll(victim, "/", "-")
				args := []string{"--json", "import", "--bwlimit", "150M", src, "beta:disks/" + target}
				cmd := start(t, c, nil, args...)
				require.NoError(t, staged(t, c, "beta", target, pushSize/3, cmd))
				if victim == caller {
					require.NoError(t, cmd.Process.Kill())
				} else {
					require.NoError(t, c.Kill(victim))
				}
				code := cmd.code(t)
				out := cmd.out.String()
				if victim == caller {
					require.Equal(t, -1, code, "it was killed")
					var stderr string
					code, out, stderr = gantry(t, c, args...)
					require.Zero(t, code, stderr)
				}
				require.Zero(t, code, "%s: %s", victim, &cmd.err)
				require.True(t, same(t, src, c.Path("beta", target)), victim)
				r := moved(t, out)
				t.Logf("%s: %d bytes came, %d cuts, %.1f s", victim, r.Wire, r.Cuts, r.Seconds)
				require.LessOrEqual(t, r.Wire, int64(pushSize+sentTwice), victim)
				imports := (&killing{c: c}).list(t, "beta", api.OpImport, target)
				require.Len(t, imports, 1, "%s: the same job goes on with the same task", victim)
			}
		})
	}
}

// staged waits until n bytes of the stage are on beta, or cmd has ended.
func staged(t *testing.T, c *cluster.Cluster, node, target string, n int64, cmd *command) error {
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		paths, _ := filepath.Glob(filepath.Join(c.Path(node, transfer.StageDir), "*.stage"))
		for _, path := range paths {
			var st syscall.Stat_t
			if syscall.Stat(path, &st) == nil && st.Blocks*512 >= n {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-cmd.done:
			return fmt.Errorf("%s: it ended before: %s", target, &cmd.err)
		case <-deadline:
			return fmt.Errorf("%s: nothing came: %s", target, &cmd.err)
		}
	}
}

// TestPushOfStdinIsNotResumed: what came from a pipe is gone with the command.
func TestPushOfStdinIsNotResumed(t *testing.T) {
	t.Parallel()
	c := newCluster(t, cluster.Options{Front: front.EmbeddedServer}, nil)
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer w.Close()
	cmd := startWith(t, c, r, nil, "import", "-", "beta:disks/dump")
	r.Close()
	_, err = w.Write(make([]byte, 100_000))
	require.NoError(t, err)
	k := &killing{c: c}
	require.Eventually(t, func() bool { return len(k.list(t, "beta", api.OpImport, "dump")) == 1 }, 20*time.Second, 20*time.Millisecond)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM)) // while it waits for more
	require.Equal(t, api.ExitFailed, cmd.code(t), cmd.err.String())
	require.Contains(t, cmd.err.String(), "standard input is gone")
	require.Eventually(t, func() bool { return k.list(t, "beta", api.OpImport, "dump")[0].Outcome == api.Cancelled }, 20*time.Second, 20*time.Millisecond)
	require.NoFileExists(t, c.Path("beta", "dump"))
}

// deaf makes a node's list of nodes name an address for peer where nobody listens.
func deaf(t *testing.T, c *cluster.Cluster, node, peer string) {
	t.Helper()
	path := filepath.Join(c.Dir(), node, "node", "cluster.toml")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	list, err := config.LoadCluster(path)
	require.NoError(t, err)
	at, ok := list.Node(peer)
	require.True(t, ok)
	changed := strings.ReplaceAll(strings.ReplaceAll(string(text), at.URL, "https://127.0.0.1:9"), at.DataURL, "https://127.0.0.1:9")
	require.NotEqual(t, string(text), changed)
	require.NoError(t, os.WriteFile(path, []byte(changed), 0o644))
}

// TestDirection: a copy goes the way that the nodes can, and nothing starts where
// they cannot.
func TestDirection(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name                string
		alphaDeaf, betaDeaf bool // cannot dial the other
		says                string
	}{
		{"both can", false, false, "beta pulls"},
		{"only the source can", false, true, "alpha pushes"},
		{"only the target can", true, false, "beta pulls"},
		{"neither can", true, true, "neither node can dial the other"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCluster(t, cluster.Options{Front: front.EmbeddedServer}, func(c *cluster.Cluster) {
				random(t, c, "src.img", 3, 9<<20)
				if tt.alphaDeaf {
					deaf(t, c, "alpha", "beta")
				}
				if tt.betaDeaf {
					deaf(t, c, "beta", "alpha")
				}
			})
			code, out, stderr := gantry(t, c, "--json", "copy", "alpha:disks/src.img", "beta:disks/there.img")
			require.Contains(t, out+stderr, tt.says)
			k := &killing{c: c}
			if tt.alphaDeaf && tt.betaDeaf {
				require.Equal(t, api.ExitFailed, code)
				require.Contains(t, stderr, "beta finds alpha unreachable")
				require.Contains(t, stderr, "alpha finds beta unreachable")
				require.Empty(t, k.list(t, "beta", api.OpImport, "there.img"))
				require.Empty(t, k.list(t, "alpha", api.OpExport, "src.img"))
				return
			}
			require.Zero(t, code, stderr)
			require.True(t, same(t, c.Path("alpha", "src.img"), c.Path("beta", "there.img")))
			require.Equal(t, b3sum(t, c.Path("alpha", "src.img")), moved(t, out).Digest)
			require.Eventually(t, func() bool { return k.list(t, "alpha", api.OpExport, "src.img")[0].Outcome == api.Done }, 20*time.Second, 20*time.Millisecond)
		})
	}
}
