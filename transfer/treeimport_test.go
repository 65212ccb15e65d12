package transfer_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gantry/api"
	"gantry/feedback"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

// honest is a small tree with everything in it.
func honest() *script {
	s := &script{}
	s.file("a", "alpha")
	s.dir("d", 0o750)
	s.file("d/empty", "")
	s.file("d/one", "1")
	s.symlink("d/out", "/etc/passwd")
	s.dir("d/sub", 0o500)
	s.file("d/sub/deep", strings.Repeat("deep", 1000))
	big := content(3, 3*piece+17)
	clear(big[piece : 2*piece])
	s.bigFile("e.big", big)
	s.link("f.link", "a")
	s.symlink("g", "nowhere")
	return s
}

func TestTreeCreate(t *testing.T) {
	g, s := newTree(t), honest()
	res, err := g.imp(s).Run(context.Background())
	require.NoError(t, err)
	require.Equal(t, s.digest(), res.Digest)
	require.Equal(t, api.TargetCreated, res.Target)
	require.EqualValues(t, &api.Entries{Files: 5, Dirs: 2, Links: 1, Symlinks: 2}, res.Entries)
	require.EqualValues(t, piece, res.Bytes.Hole)
	got, err := os.ReadFile(g.at("e.big"))
	require.NoError(t, err)
	require.Equal(t, sum(s.content[len(s.content)-len(got):]), sum(got))
	require.Less(t, allocated(t, g.at("e.big")), int64(len(got)))
	sh := shape(t, g.at())
	require.Contains(t, sh["f.link"], "= a")
	require.Contains(t, sh["d/out"], "-> /etc/passwd")
	require.True(t, strings.HasPrefix(sh["d/sub"], "40500 "), sh["d/sub"])
	for name, s := range sh {
		require.Contains(t, s, " 1767323045.000000006", name)
	}
	require.NoError(t, g.imp(s).Discard())
	left, err := os.ReadDir(filepath.Join(g.dir, transfer.StageDir))
	require.NoError(t, err)
	require.Empty(t, left)
	left, err = os.ReadDir(g.task)
	require.NoError(t, err)
	require.Empty(t, left)

	// The same again is there already; another one is refused.
	res, err = g.imp(s).Run(context.Background())
	require.NoError(t, err)
	require.Equal(t, api.TargetThere, res.Target)
	require.NoError(t, os.WriteFile(g.at("a"), []byte("other"), 0o644))
	_, err = g.imp(s).Run(context.Background())
	requireCode(t, api.Exists, err)
}

// old puts an old tree at the target: that of s, imported by another task.
func (g treeTarget) old(t testing.TB, s *script) {
	t.Helper()
	m := g.imp(s)
	m.Task, m.Dir = "before", t.TempDir()
	_, err := m.Run(context.Background())
	require.NoError(t, err)
	require.NoError(t, m.Discard())
}

func inode(t testing.TB, path string) uint64 {
	t.Helper()
	info, err := os.Lstat(path)
	require.NoError(t, err)
	return info.Sys().(*syscall.Stat_t).Ino
}

// second is honest with changes of each kind.
func second() *script {
	s := &script{}
	s.file("a", "alpha")
	s.dir("d", 0o755) // another mode
	s.file("d/empty", "")
	s.file("d/one", "one") // another content
	s.symlink("d/out", "/etc/group")
	s.file("d/sub", "a file now")
	big := content(3, 3*piece+17)
	clear(big[piece : 2*piece])
	big[2*piece+5] ^= 1
	s.bigFile("e.big", big)
	s.dir("g", 0o755)
	s.file("g/new", "new")
	return s
}

func TestTreeUpdate(t *testing.T) {
	for _, c := range []struct {
		name, mode, extraneous string
		keep, root             bool
	}{
		{"replace", api.ModeReplace, "", false, false},
		{"update", api.ModeUpdate, api.ExtraneousList, false, false},
		{"delete", api.ModeReplace, api.ExtraneousDelete, false, false},
		{"keep old", api.ModeReplace, "", true, false},
		{"keep old, delete", api.ModeReplace, api.ExtraneousDelete, true, false},
		{"root", api.ModeUpdate, "", false, true},
		{"root, delete", api.ModeReplace, api.ExtraneousDelete, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			g, s := newTree(t), second()
			first := honest()
			fresh := newTree(t)
			_, err := fresh.imp(s).Run(context.Background())
			require.NoError(t, err)
			top := g.at()
			if c.root {
				top = g.dir
			}
			setup := g.imp(first)
			m := g.imp(s)
			if c.root {
				setup.Name, m.Name = "", ""
			}
			setup.Task, setup.Dir = "before", t.TempDir()
			_, err = setup.Run(context.Background())
			require.NoError(t, err)
			require.NoError(t, setup.Discard())
			require.NoError(t, os.Remove(filepath.Join(top, "d/sub/deep"))) // it would be in the way
			require.NoError(t, os.MkdirAll(filepath.Join(top, "mine/own"), 0o711))
			require.NoError(t, os.WriteFile(filepath.Join(top, "mine/own/file"), []byte("only copy"), 0o600))
			before, kept := shape(t, top), inode(t, filepath.Join(top, "a"))
			m.Mode, m.KeepOld, m.Tree.Extraneous = c.mode, c.keep, c.extraneous

			m.DryRun = true
			dry, err := m.Run(context.Background())
			require.NoError(t, err)
			require.True(t, dry.DryRun)
			require.Equal(t, before, shape(t, top))
			m.DryRun = false
			res, err := m.Run(context.Background())
			require.NoError(t, err)
			require.NoError(t, m.Discard())
			require.Equal(t, api.TargetReplaced, res.Target)
			require.GreaterOrEqual(t, res.Bytes.Copied, int64(piece+17), "the equal pieces of the large file")
			want, got := shape(t, fresh.at()), shape(t, top)
			for _, p := range []string{"f.link", "mine", "mine/own", "mine/own/file"} {
				if c.extraneous != api.ExtraneousDelete {
					require.Contains(t, got, p)
				} else {
					require.NotContains(t, got, p)
				}
				delete(got, p)
			}
			if c.root {
				delete(want, ".")
				delete(got, ".")
			}
			require.Equal(t, want, got)
			if c.extraneous == api.ExtraneousDelete {
				require.EqualValues(t, 4, res.Entries.Deleted)
			} else {
				require.EqualValues(t, 4, res.Entries.Extraneous)
			}
			require.Equal(t, dry.Entries, res.Entries)
			require.Equal(t, c.keep, kept != inode(t, filepath.Join(top, "a")), "shared with a kept tree, or not kept where it was")
			if c.keep {
				require.Equal(t, "tree.old-task", res.Old)
				require.Equal(t, before, shape(t, filepath.Join(g.dir, res.Old)))
			}
			left, err := os.ReadDir(filepath.Join(g.dir, transfer.StageDir))
			require.NoError(t, err)
			require.Empty(t, left)
		})
	}
}

// TestTreeUnchanged: what is there already is neither read, when a record says
// what it is, nor made again.
func TestTreeUnchanged(t *testing.T) {
	g, s := newTree(t), honest()
	g.old(t, s)
	ino := inode(t, g.at())
	for _, mode := range []string{api.ModeCreate, api.ModeReplace, api.ModeUpdate} {
		m := g.imp(honest())
		m.Mode = mode
		res, err := m.Run(context.Background())
		require.NoError(t, err)
		require.Equal(t, api.TargetThere, res.Target)
		require.Zero(t, res.Bytes.Fetched)
		require.EqualValues(t, 10, res.Entries.Unchanged, mode)
		require.Equal(t, ino, inode(t, g.at()))
	}
}

// TestTreeIncomplete: what the source could not read is named, nothing is
// deleted for it, and the import is not done.
func TestTreeIncomplete(t *testing.T) {
	g, s, n := newTree(t), honest(), &notes{}
	g.old(t, honest())
	require.NoError(t, os.WriteFile(g.at("mine"), nil, 0o600))
	s.skip("h", "denied")
	s.skip(`bad\x1bname`, "bad_name")
	s.file("i", "new")
	m := g.imp(s)
	m.Mode, m.Tree.Extraneous, m.Report = api.ModeReplace, api.ExtraneousDelete, n
	_, err := m.Run(context.Background())
	requireCode(t, api.Incomplete, err)
	var wire *feedback.Error
	require.ErrorAs(t, err, &wire)
	require.Contains(t, string(wire.Detail), `"skipped":2`)
	require.FileExists(t, g.at("i"))
	require.FileExists(t, g.at("mine"))
	require.Contains(t, strings.Join(n.logs, "\n"), `"h" is missing (denied)`)
	require.Contains(t, strings.Join(n.logs, "\n"), `"bad\x1bname" is missing (bad_name)`, "escaped once")
	require.NoError(t, m.Discard())
}

// TestTreeSharing: names of one old file do not become names of two new ones.
func TestTreeSharing(t *testing.T) {
	g, s := newTree(t), &script{}
	s.file("a", "same")
	s.file("b", "same")
	require.NoError(t, os.Mkdir(g.at(), 0o755))
	require.NoError(t, os.WriteFile(g.at("a"), []byte("same"), 0o644))
	mtime := time.Unix(1767323045, 6)
	require.NoError(t, os.Chtimes(g.at("a"), mtime, mtime))
	require.NoError(t, os.Link(g.at("a"), g.at("b")))
	ino := inode(t, g.at("a"))
	m := g.imp(s)
	m.Mode = api.ModeReplace
	_, err := m.Run(context.Background())
	require.NoError(t, err)
	require.Equal(t, ino, inode(t, g.at("a")))
	require.NotEqual(t, ino, inode(t, g.at("b")))
}

// TestTreeOldWritten: a program that writes to an old file while the new tree is
// made would have changed both: nothing is published.
func TestTreeOldWritten(t *testing.T) {
	g, s := newTree(t), second()
	g.old(t, honest())
	require.NoError(t, os.Remove(g.at("d/sub/deep")))
	require.NoError(t, os.Remove(g.at("f.link")))
	m := g.imp(s)
	m.Mode = api.ModeReplace
	m.Faults(func(op string) error {
		if op == "last" {
			return os.WriteFile(g.at("a"), []byte("ALPHA"), 0o644)
		}
		return nil
	})
	_, err := m.Run(context.Background())
	requireCode(t, api.TargetChanged, err)
	b, err := os.ReadFile(g.at("a"))
	require.NoError(t, err)
	require.Equal(t, "ALPHA", string(b))
}

// nextTick waits until the file system's clock went on.
func nextTick(t testing.TB, dir string) {
	stamp := func() time.Time {
		path := filepath.Join(dir, "tick")
		require.NoError(t, os.WriteFile(path, nil, 0o600))
		info, err := os.Stat(path)
		require.NoError(t, err)
		return info.ModTime()
	}
	for first := stamp(); stamp().Equal(first); {
		runtime.Gosched()
	}
}

// TestTreeRemembered: after an import the next one reads none of its files, and
// notices every change.
func TestTreeRemembered(t *testing.T) {
	for _, name := range []string{"tree", ""} {
		g := newTree(t)
		reads := 0
		imp := func(s *script) api.ImportResult {
			m := g.imp(s)
			reads = 0
			m.Faults(func(op string) error {
				switch op {
				case "readold":
					reads++
				case "syncfs":
					nextTick(t, g.task)
				}
				return nil
			})
			m.Name, m.Mode, m.Dir = name, api.ModeUpdate, t.TempDir()
			res, err := m.Run(context.Background())
			require.NoError(t, err)
			require.NoError(t, m.Clean(context.Background()))
			require.NoError(t, m.Discard())
			return res
		}
		imp(honest())
		top := filepath.Join(g.dir, name)
		res := imp(honest())
		require.Equal(t, api.TargetThere, res.Target)
		require.LessOrEqual(t, reads, 1, "but for the file of two names")

		s := honest()
		s.file("z", "new")
		res = imp(s)
		require.EqualValues(t, 3, res.Bytes.Fetched)
		require.LessOrEqual(t, reads, 1, "but for the file of two names")
		res = imp(s)
		require.Equal(t, api.TargetThere, res.Target)
		require.LessOrEqual(t, reads, 1, "but for the file of two names")

		// A change that keeps size and time is found.
		info, err := os.Stat(filepath.Join(top, "d/one"))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(top, "d/one"), []byte("2"), 0o644))
		require.NoError(t, os.Chtimes(filepath.Join(top, "d/one"), info.ModTime(), info.ModTime()))
		res = imp(s)
		require.EqualValues(t, 1, res.Bytes.Fetched)
		b, err := os.ReadFile(filepath.Join(top, "d/one"))
		require.NoError(t, err)
		require.Equal(t, "1", string(b))
	}
}

// totals are what the counters of an import said last, by item.
type totals struct {
	transfer.Silent
	mu sync.Mutex
	of map[string]int64
}

func (x *totals) Progress(item, _, _ string, total int64) transfer.Counter {
	return total1{Counter: transfer.Silent{}.Progress("", "", "", -1), all: x, item: item}
}

type total1 struct {
	transfer.Counter
	all  *totals
	item string
}

func (c total1) SetTotal(n int64) {
	c.all.mu.Lock()
	defer c.all.mu.Unlock()
	c.all.of[c.item] = n
}

// TestTreeTotals: a source that does not know its size yet does when its manifest
// has ended, and then the import says how much there is.
func TestTreeTotals(t *testing.T) {
	g, s, x := newTree(t), honest(), &totals{of: map[string]int64{}}
	s.header = fmt.Sprintf(`{"kind":"tree","v":1,"piece":4194304,"root":{%s},"size":0,"entries":0,"exact":false}`, attrsOf(0o755))
	m := g.imp(s)
	m.Report = x
	_, err := m.Run(context.Background())
	require.NoError(t, err)
	require.Equal(t, map[string]int64{"tree": int64(len(s.content)), "tree entries": int64(len(s.entries))}, x.of)
}
