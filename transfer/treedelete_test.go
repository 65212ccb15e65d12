package transfer_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gantry/api"

	"github.com/stretchr/testify/require"
)

// TestTreeOnlyDelete: a tree that differs in nothing but what is extra keeps all of
// its own, the last entry too.
func TestTreeOnlyDelete(t *testing.T) {
	for _, last := range []func(*script){
		func(s *script) { s.file("z", "last") },
		func(s *script) { s.dir("z", 0o755) },
		func(s *script) { s.symlink("z", "a") },
		func(s *script) { s.bigFile("z", content(1, piece+1)) },
	} {
		g, s := newTree(t), honest()
		last(s)
		g.remembered(t, s, nil)
		want := shape(t, g.at())
		require.NoError(t, os.WriteFile(g.at("extra"), nil, 0o600))
		when := time.Unix(1767323045, 6) // as if nothing had happened to the directory
		require.NoError(t, os.Chtimes(g.at(), when, when))
		m := g.imp(s)
		m.Mode, m.Dir, m.Tree.Extraneous = api.ModeReplace, t.TempDir(), api.ExtraneousDelete
		res, err := m.Run(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 1, res.Entries.Deleted)
		require.Equal(t, want, shape(t, g.at()))
	}
}

// TestTreeLeftOut: what the source's configuration leaves out is counted and said,
// protected from deletion, and no reason to call the copy incomplete.
func TestTreeLeftOut(t *testing.T) {
	for _, name := range []string{"tree", ""} {
		g, s, n := newTree(t), &script{}, &notes{}
		s.file("a", "alpha")
		s.dir("mnt", 0o755)
		s.skip("mnt", "crossing")
		s.skip("sock", "special")
		top := filepath.Join(g.dir, name)
		shell(t, g.dir, `mkdir -p "`+top+`/mnt/in"; cd "`+top+`"; echo mine | tee mnt/in/x > sock; echo gone > other`)
		m := g.imp(s)
		m.Name, m.Mode, m.Tree.Extraneous, m.Report = name, api.ModeReplace, api.ExtraneousDelete, n
		res, err := m.Run(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 2, res.Entries.LeftOut)
		require.EqualValues(t, 1, res.Entries.Deleted)
		require.Zero(t, res.Entries.Skipped)
		require.NoFileExists(t, filepath.Join(top, "other"))
		require.FileExists(t, filepath.Join(top, "mnt/in/x"))
		require.FileExists(t, filepath.Join(top, "sock"))
		require.Contains(t, strings.Join(n.logs, "\n"), `"sock" is left out (special)`)
		require.NoError(t, m.Clean(t.Context()))
		require.NoError(t, m.Discard())
	}
}
