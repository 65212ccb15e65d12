package transfer_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gantry/api"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

// remembered imports s into g as a task of its own, to its end.
func (g treeTarget) remembered(t testing.TB, src transfer.Source, change func(*transfer.Import)) api.ImportResult {
	t.Helper()
	m := g.imp(src)
	m.Mode, m.Dir = api.ModeReplace, t.TempDir()
	m.Faults(func(op string) error {
		if op == "syncfs" {
			nextTick(t, g.task)
		}
		return nil
	})
	if change != nil {
		change(m)
	}
	res, err := m.Run(t.Context())
	require.NoError(t, err)
	require.NoError(t, m.Clean(t.Context()))
	require.NoError(t, m.Discard())
	return res
}

// shelf is a tree of files below dir, small and large ones, two of them alike.
func shelf(dir string) *script {
	s := &script{}
	s.dir(dir, 0o755)
	for i := range 20 {
		s.file(fmt.Sprintf("%s/%02d", dir, i), strings.Repeat("x", 100+i))
	}
	s.bigFile(dir+"/large", content(4, 2*piece+9))
	s.bigFile(dir+"/other", content(5, 2*piece+9))
	s.file(dir+"/twin1", "twins")
	s.file(dir+"/twin2", "twins")
	return s
}

// TestTreeMoved: a directory that has another name now is not fetched; with
// deletion its files are the old ones, else they are copies; two new files never
// share one.
func TestTreeMoved(t *testing.T) {
	for _, c := range []struct {
		name, extraneous  string
		keep, root, check bool
		shared            bool
	}{
		{name: "delete", extraneous: api.ExtraneousDelete, shared: true},
		{name: "keep"},
		{name: "keep old", extraneous: api.ExtraneousDelete, keep: true},
		{name: "checksum", extraneous: api.ExtraneousDelete, check: true},
		{name: "root", extraneous: api.ExtraneousDelete, root: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newTree(t)
			top, change := g.at(), func(m *transfer.Import) {
				if m.Tree.Extraneous, m.KeepOld, m.Checksum = c.extraneous, c.keep, c.check; c.root {
					m.Name = ""
				}
			}
			if c.root {
				top = g.dir
			}
			g.remembered(t, shelf("old"), func(m *transfer.Import) {
				if c.root {
					m.Name = ""
				}
			})
			ino := inode(t, filepath.Join(top, "old/07"))
			dry := g.imp(shelf("new"))
			dry.Mode, dry.DryRun = api.ModeReplace, true
			change(dry)
			would, err := dry.Run(t.Context())
			require.NoError(t, err)
			res := g.remembered(t, shelf("new"), change)
			require.Zero(t, would.Bytes.Fetched)
			require.Zero(t, res.Bytes.Fetched)
			require.EqualValues(t, 24, res.Entries.Renamed)
			require.Equal(t, would.Entries, res.Entries)
			fresh := newTree(t)
			fresh.remembered(t, shelf("new"), nil)
			want, got := shape(t, fresh.at("new")), shape(t, filepath.Join(top, "new"))
			require.Equal(t, want, got)
			require.Equal(t, c.shared, ino == inode(t, filepath.Join(top, "new/07")))
			if c.extraneous == api.ExtraneousDelete {
				require.NoDirExists(t, filepath.Join(top, "old"))
			} else {
				require.NotEqual(t, inode(t, filepath.Join(top, "old/07")), inode(t, filepath.Join(top, "new/07")))
			}
			reads := 0
			res = g.remembered(t, shelf("new"), func(m *transfer.Import) {
				change(m)
				if m.Checksum = false; c.keep {
					m.KeepOld = false
				}
				m.Faults(func(op string) error {
					if op == "readold" {
						reads++
					}
					return nil
				})
			})
			require.Equal(t, api.TargetThere, res.Target)
			require.LessOrEqual(t, reads, 1, "what was moved is remembered, too")
		})
	}
}

// TestTreeMovedPart: of files that moved and changed, or whose old path is still
// there, or that was written to since, none shares or takes what is not its own.
func TestTreeMovedPart(t *testing.T) {
	g := newTree(t)
	first := &script{}
	first.file("a", "first of its kind")
	first.file("log.1", "yesterday")
	first.file("m", "written to")
	first.bigFile("z", content(4, 2*piece+9))
	g.remembered(t, first, nil)
	require.NoError(t, os.WriteFile(g.at("m"), []byte("WRITTEN TO"), 0o644))
	next := &script{}
	next.file("a", "first of its kind")
	next.file("b", "first of its kind") // a copy of what stays
	next.file("log.1", "today")
	next.file("log.2", "yesterday")
	next.file("n", "written to")
	changed := content(4, 2*piece+9)
	changed[piece+1] ^= 1
	next.bigFile("y", changed)
	res := g.remembered(t, next, func(m *transfer.Import) { m.Tree.Extraneous = api.ExtraneousDelete })
	require.EqualValues(t, len("today")+len("written to")+piece, res.Bytes.Fetched)
	require.EqualValues(t, 2, res.Entries.Renamed)
	fresh := newTree(t)
	fresh.remembered(t, next, nil)
	require.Equal(t, shape(t, fresh.at()), shape(t, g.at()))
	require.NotEqual(t, inode(t, g.at("a")), inode(t, g.at("b")))
}

// TestTreeMovedThenSkipped: files were given their new names, and only then it is
// clear that nothing is deleted: the old ones are files of their own.
func TestTreeMovedThenSkipped(t *testing.T) {
	g := newTree(t)
	g.remembered(t, shelf("old"), nil)
	s := shelf("new")
	s.skip("z", "denied")
	m := g.imp(s)
	m.Mode, m.Dir, m.Tree.Extraneous = api.ModeReplace, t.TempDir(), api.ExtraneousDelete
	_, err := m.Run(t.Context())
	requireCode(t, api.Incomplete, err)
	require.Equal(t, shape(t, g.at("old")), shape(t, g.at("new")))
	for _, name := range []string{"07", "large", "twin1"} {
		require.NotEqual(t, inode(t, g.at("old", name)), inode(t, g.at("new", name)), name)
	}
	require.NoError(t, m.Clean(t.Context()))
	require.NoError(t, m.Discard())
}

// TestTreeMovedMemory: the index of many files is small.
func TestTreeMovedMemory(t *testing.T) {
	path, n := filepath.Join(t.TempDir(), "known"), 200_000
	grown, err := transfer.MovesMemory(path, n)
	require.NoError(t, err)
	require.Less(t, grown, uint64(n)*12+2<<20)
}
