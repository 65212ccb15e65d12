package cluster_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gantry/api"
	"gantry/front"
	"gantry/internal/cluster"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// deviceSize of the loop devices; the middle of alpha's is a hole.
const deviceSize = 24 << 20

// kinds is a cluster with a resource of every kind on each node:
//
//	trees  the Go distribution at alpha, empty at beta
//	raw    a loop device (left out where the machine has none)
//	dump   a command that prints DIR/disks/dumped
//	sink   a command that writes DIR/work/sunk
//
// devices says whether there is raw.
func kinds(t *testing.T, kind front.Kind) (c *cluster.Cluster, devices bool) {
	t.Helper()
	needFront(t, kind)
	loops := map[string]string{}
	for _, node := range []string{"alpha", "beta"} {
		loops[node] = loopDevice(t)
	}
	c = newCluster(t, cluster.Options{
		Front: kind, Dirs: []string{"trees", "work"},
		Extra: func(node, dir string) string {
			trees := filepath.Join(dir, "trees")
			text := fmt.Sprintf(`
[[resource]]
name = "trees"
kind = "tree"
path = %q
writable = true

[[resource]]
name = "dump"
kind = "command"
direction = "export"
argv = ["/bin/cat", %q]

[[resource]]
name = "sink"
kind = "command"
direction = "import"
argv = ["/bin/dd", "of=%s", "bs=64k", "status=none"]
`, trees, filepath.Join(dir, "disks", "dumped"), filepath.Join(dir, "work", "sunk"))
			if node == "alpha" {
				text += fmt.Sprintf("\n[[resource]]\nname = \"go\"\nkind = \"tree\"\npath = %q\n", goroot(t))
			}
			if dev := loops[node]; dev != "" {
				text += fmt.Sprintf("\n[[resource]]\nname = \"raw\"\nkind = \"device\"\npath = %q\nwritable = true\n", dev)
			}
			return text
		},
	}, func(c *cluster.Cluster) {
		for i, f := range files {
			require.NoError(t, c.CreateFile("alpha", f.name, func(w *os.File) error {
				if f.sparse {
					if _, err := w.WriteAt([]byte("only this"), f.size/2); err != nil {
						return err
					}
					return w.Truncate(f.size)
				}
				return cluster.Fill(t.Context(), w, cluster.Random(uint64(i), f.size))
			}))
		}
		random(t, c, "dumped", 99, 9<<20+5)
		for node, dev := range loops {
			if dev != "" {
				give(t, c, dev)
				if node == "alpha" {
					fillDevice(t, dev)
				}
			}
		}
	})
	return c, loops["alpha"] != "" && loops["beta"] != ""
}

// files are the sizes at which something changes.
var files = []struct {
	name   string
	size   int64
	sparse bool
}{
	{"empty", 0, false}, {"one-byte", 1, false},
	{"piece-1", transfer.PieceSize - 1, false}, {"piece", transfer.PieceSize, false}, {"piece+1", transfer.PieceSize + 1, false},
	{"random", 21<<20 + 7, false}, {"sparse", 300<<20 + 1, true},
}

// loopDevice makes a device, "" where that is impossible.
func loopDevice(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		return ""
	}
	image := filepath.Join(t.TempDir(), "device")
	f, err := os.Create(image)
	require.NoError(t, err)
	require.NoError(t, f.Truncate(deviceSize))
	require.NoError(t, f.Close())
	out, err := exec.Command("losetup", "--find", "--show", image).Output()
	if err != nil {
		t.Logf("no loop devices here, device resources are left out: %v", err)
		return ""
	}
	dev := strings.TrimSpace(string(out))
	t.Cleanup(func() { require.NoError(t, exec.Command("losetup", "--detach", dev).Run()) })
	return dev
}

func give(t *testing.T, c *cluster.Cluster, dev string) {
	t.Helper()
	info, err := os.Stat(c.Path("alpha", ""))
	require.NoError(t, err)
	uid := int(info.Sys().(*syscall.Stat_t).Uid)
	require.NoError(t, os.Chown(dev, uid, uid))
	t.Cleanup(func() { os.Chown(dev, 0, 0) })
}

// fillDevice writes random bytes, but for a third in the middle.
func fillDevice(t *testing.T, dev string) {
	t.Helper()
	f, err := os.OpenFile(dev, os.O_WRONLY, 0)
	require.NoError(t, err)
	defer f.Close()
	for _, at := range []int64{0, deviceSize * 2 / 3} {
		_, err = f.Seek(at, 0)
		require.NoError(t, err)
		require.NoError(t, cluster.Fill(t.Context(), f, cluster.Random(uint64(at), deviceSize/3)))
	}
	require.NoError(t, f.Sync())
}

// TestEveryKind copies every kind of resource in both directions through every
// front, with data that nobody made up where there is some.
func TestEveryKind(t *testing.T) {
	t.Parallel()
	for _, kind := range front.Kinds {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			c, devices := kinds(t, kind)
			for _, direction := range []string{"--pull", "--push"} {
				t.Run(direction[2:], func(t *testing.T) {
					t.Run("files", func(t *testing.T) { copyFiles(t, c, direction) })
					t.Run("tree", func(t *testing.T) { copyTree(t, c, kind, direction) })
					t.Run("device", func(t *testing.T) {
						if !devices {
							t.Skip("needs loop devices, as root")
						}
						copyDevice(t, c, direction)
					})
					t.Run("command", func(t *testing.T) { copyCommand(t, c, direction) })
				})
			}
		})
	}
}

// mustCopy runs gantry copy and returns its result.
func mustCopy(t *testing.T, c *cluster.Cluster, args ...string) api.ImportResult {
	t.Helper()
	code, out, stderr := gantry(t, c, append([]string{"copy", "--json"}, args...)...)
	require.Zero(t, code, "%s\n%s", out, stderr)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var last struct {
		Kind  string           `json:"kind"`
		Value api.ImportResult `json:"value"`
	}
	require.NoError(t, json.Unmarshal([]byte(lines[len(lines)-1]), &last))
	require.Equal(t, "result", last.Kind)
	return last.Value
}

func copyFiles(t *testing.T, c *cluster.Cluster, direction string) {
	for _, f := range files {
		target := f.name + direction
		r := mustCopy(t, c, direction, "alpha:disks/"+f.name, "beta:disks/"+target)
		require.True(t, same(t, c.Path("alpha", f.name), c.Path("beta", target)), f.name)
		require.Equal(t, b3sum(t, c.Path("beta", target)), r.Digest, f.name)
		require.Equal(t, f.size, r.Size)
		require.Equal(t, r.Size, sum(r.Bytes), "bytes by origin: %+v", r.Bytes)
		if f.sparse {
			var st unix.Stat_t
			require.NoError(t, unix.Stat(c.Path("beta", target), &st))
			require.LessOrEqual(t, st.Blocks*512, int64(transfer.PieceSize), "holes are holes again")
		}
	}
}

func sum(b api.Bytes) int64 { return b.Fetched + b.Copied + b.Reflinked + b.Hole + b.Carried }

// copyTree copies the Go distribution, all of it pulled through nginx and pushed
// through lighttpd, and otherwise one directory with what is below.
func copyTree(t *testing.T, c *cluster.Cluster, kind front.Kind, direction string) {
	part := "src/net"
	if kind == front.Nginx && direction == "--pull" || kind == front.Lighttpd && direction == "--push" {
		part = ""
	}
	target := "go" + direction
	r := mustCopy(t, c, direction, "alpha:go/"+part, "beta:trees/"+target)
	require.NotNil(t, r.Entries)
	sameTree(t, filepath.Join(goroot(t), part), filepath.Join(c.NodeDir("beta"), "trees", target))

	again := mustCopy(t, c, direction, "--update", "alpha:go/"+part, "beta:trees/"+target)
	require.Equal(t, r.Digest, again.Digest)
	require.Zero(t, again.Bytes.Fetched, "nothing changed")
}

// sameTree compares trees with rsync, by content, mode, time and links.
func sameTree(t *testing.T, a, b string) {
	t.Helper()
	if _, err := exec.LookPath("rsync"); err != nil {
		t.Skip("needs rsync, to compare trees with what is not ours")
	}
	out, err := exec.Command("rsync", "-rlptHn", "--checksum", "--delete", "--itemize-changes", "--exclude=/.gantry", a+"/", b+"/").CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Empty(t, string(out), "rsync would change this")
}

func copyDevice(t *testing.T, c *cluster.Cluster, direction string) {
	mustCopy(t, c, direction, "--replace", "alpha:raw", "beta:raw")
	r := mustCopy(t, c, direction, "alpha:raw", "beta:disks/device"+direction)
	require.EqualValues(t, deviceSize, r.Size)
	require.Equal(t, b3sum(t, c.Path("beta", "device"+direction)), r.Digest)
	back := mustCopy(t, c, direction, "--replace", "alpha:disks/piece+1", "beta:raw") // shorter than the device
	require.EqualValues(t, transfer.PieceSize+1, back.Size)
	whole := mustCopy(t, c, direction, "--replace", "alpha:raw", "beta:raw")
	require.Equal(t, r.Digest, whole.Digest)
	require.Less(t, whole.Bytes.Fetched, int64(deviceSize/2), "only pieces that changed are fetched")
}

func copyCommand(t *testing.T, c *cluster.Cluster, direction string) {
	target := "dumped" + direction
	r := mustCopy(t, c, direction, "alpha:dump", "beta:disks/"+target)
	require.True(t, same(t, c.Path("alpha", "dumped"), c.Path("beta", target)))
	require.Equal(t, b3sum(t, c.Path("beta", target)), r.Digest)
	sunk := filepath.Join(c.NodeDir("beta"), "work", "sunk")
	for _, from := range []string{"alpha:disks/random", "alpha:dump"} {
		mustCopy(t, c, direction, from, "beta:sink")
		_, name, _ := strings.Cut(strings.Replace(from, "alpha:dump", "x/dumped", 1), "/")
		require.True(t, same(t, c.Path("alpha", name), sunk), from)
	}
}

// goroot is the Go distribution's folder.
func goroot(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	require.NoError(t, err)
	return strings.TrimSpace(string(out))
}
