package node_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gantry/api"

	"github.com/stretchr/testify/require"
)

// mounted is a new file system of a kind in an image on a loop device, until the
// test ends.
func mounted(t *testing.T, kind, dir string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to mount a file system")
	}
	make, err := exec.LookPath("mkfs." + kind)
	if err != nil {
		t.Skip("needs mkfs." + kind)
	}
	image := filepath.Join(filepath.Dir(dir), kind+".img")
	f, err := os.Create(image)
	require.NoError(t, err)
	require.NoError(t, f.Truncate(320<<20)) // the least that mkfs.xfs takes is 300 MiB
	require.NoError(t, f.Close())
	out, err := exec.Command(make, "-q", image).CombinedOutput()
	require.NoError(t, err, "%s", out)
	if out, err := exec.Command("mount", "-o", "loop", image, dir).CombinedOutput(); err != nil {
		t.Skipf("mounting a loop device: %s", out)
	}
	t.Cleanup(func() {
		out, err := exec.Command("umount", dir).CombinedOutput()
		require.NoError(t, err, "%s", out)
	})
}

// clones gives a machine the resource "snaps" with clones, on a file system of
// its own.
func (m *machine) clones(kind string) {
	m.freezes(`"reflink"`, "none", "writable = true")
	mounted(m.t, kind, filepath.Join(m.dir, "snaps"))
}

func (m *machine) clonesLeft() []string {
	left, err := filepath.Glob(filepath.Join(m.dir, "snaps/.gantry/*"))
	require.NoError(m.t, err)
	return left
}

func TestReflink(t *testing.T) {
	for _, kind := range []string{"btrfs", "xfs"} {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t, "", "alpha")
			alpha := w.all["alpha"]
			alpha.clones(kind)
			old := string(alpha.file("snaps/dir/a", 9<<20+5, 1))
			source := filepath.Join(alpha.dir, "snaps/dir/a")
			mtime := time.Date(2020, 2, 3, 4, 5, 6, 789, time.UTC)
			require.NoError(t, os.Chtimes(source, mtime, mtime))
			t.Cleanup(alpha.halt) // before the file system goes
			alpha.start()
			req := exportOf("snaps", "dir/a")
			done := alpha.follow("ann", req)
			require.Equal(t, old, alpha.content(req.ID))
			alpha.file("snaps/dir/a", 1<<20, 2) // in place, while it is read
			r := alpha.ask("ann", "GET", "/tasks/"+req.ID+"/content", nil, "")
			require.Equal(t, old, r.body)
			require.Equal(t, "Mon, 03 Feb 2020 04:05:06 GMT", r.header.Get("Last-Modified"))
			require.Len(t, alpha.clonesLeft(), 1)
			alpha.restart()
			require.Equal(t, old, alpha.content(req.ID))
			require.NoError(t, alpha.as("ann").Finish(t.Context(), req.ID, "", digest([]byte(old))))
			resultOf[api.ExportResult](t, <-done, nil)
			alpha.thawed(req.ID)
			require.Empty(t, alpha.clonesLeft())
		})
	}
}

// A clone is removed after a kill, too.
func TestReflinkOutlivesKills(t *testing.T) {
	w := newWorld(t, "", "alpha")
	alpha := w.all["alpha"]
	alpha.clones("btrfs")
	old := string(alpha.file("snaps/a", 1<<20, 1))
	alpha.ownedBy(gantry)
	life := alpha.process()
	req := exportOf("snaps", "a")
	done := alpha.follow("ann", req)
	require.Equal(t, old, alpha.content(req.ID))
	kill(t, life)
	alpha.process()
	require.NoError(t, alpha.as("ann").Cancel(t.Context(), req.ID))
	require.Equal(t, "cancelled", codeOf(t, <-done, nil))
	alpha.thawed(req.ID)
	require.Empty(t, alpha.clonesLeft())
}

// Where nothing can be cloned the file itself is read, and the feed says so.
func TestReflinkThatCannotBe(t *testing.T) {
	w := newWorld(t, "", "alpha")
	alpha := w.all["alpha"]
	alpha.clones("ext4")
	data := string(alpha.file("snaps/a", 1000, 1))
	t.Cleanup(alpha.halt)
	alpha.start()
	req := exportOf("snaps", "a")
	alpha.follow("ann", req)
	require.Equal(t, data, alpha.content(req.ID))
	alpha.restart()
	require.Equal(t, data, alpha.content(req.ID))
	require.NoError(t, alpha.as("ann").Finish(t.Context(), req.ID, "", digest([]byte(data))))
	r := alpha.ask("ann", "GET", "/tasks/"+req.ID+"/feed", nil, "")
	require.Equal(t, 1, strings.Count(r.body, "the file cannot be cloned: operation not supported; the file itself is read"), r.body)
	alpha.thawed(req.ID)
	require.Empty(t, alpha.clonesLeft())
}
