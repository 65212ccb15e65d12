package transfer_test

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gantry/api"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

// TestTreeManyRules: rules that make the header longer than any line of a file's manifest.
func TestTreeManyRules(t *testing.T) {
	dir, g := t.TempDir(), newTree(t)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a"), []byte("alpha"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "b.o"), nil, 0o600))
	rules := []string{"- *.o"}
	for range 7 {
		rules = append(rules, "- "+strings.Repeat("x", 1000))
	}
	m := g.imp(exported{tree(t, dir, t.TempDir(), transfer.TreeOptions{Filter: rules})})
	res, err := m.Run(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, res.Entries.Files)
	require.FileExists(t, g.at("a"))
	require.NoError(t, m.Discard())
}

// randomTree makes files below dir. Directories and files have different names.
func randomTree(r *rand.Rand, dir string, content string) {
	for range 40 {
		p := filepath.Join(dir, randomName(r), randomName(r), randomName(r))
		p = filepath.Join(p[:len(dir)+1+r.IntN(len(p)-len(dir)-1)], "f"+randomName(r))
		if os.MkdirAll(filepath.Dir(p), 0o755) == nil {
			os.WriteFile(p, []byte(content), 0o644)
		}
	}
}

// TestTreeDeleteAgainstRsync: what rules exclude is protected as rsync protects it,
// and all else that the source does not have is deleted; below the root and at it.
func TestTreeDeleteAgainstRsync(t *testing.T) {
	need(t, "rsync", "bash")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range 24 {
		from, like, g := t.TempDir(), t.TempDir(), newTree(t)
		randomTree(r, from, "new")
		randomTree(r, like, "older")
		m, top := g.imp(nil), g.at()
		if i%2 == 1 {
			m.Name, top = "", g.dir
		}
		shell(t, like, `mkdir -p "`+top+`"; cp -a . "`+top+`"`)
		var rules, args []string
		for range 1 + r.IntN(4) {
			rule := []string{"- ", "+ ", "- "}[r.IntN(3)] + randomPattern(r)
			rules, args = append(rules, rule), append(args, "--filter="+rule)
		}
		out, err := exec.Command("rsync", append(args, "-a", "--delete", from+"/", like+"/")...).CombinedOutput()
		require.NoError(t, err, "%q: %s", rules, out)
		m.Source = exported{tree(t, from, t.TempDir(), transfer.TreeOptions{Filter: rules})}
		m.Mode, m.Tree.Extraneous, m.DryRun = api.ModeReplace, api.ExtraneousDelete, true
		before := shell(t, top, pathsAndText)
		dry, err := m.Run(t.Context())
		require.NoError(t, err)
		require.Equal(t, before, shell(t, top, pathsAndText))
		m.DryRun, m.Dir = false, t.TempDir()
		res, err := m.Run(t.Context())
		require.NoError(t, err)
		require.Equal(t, dry.Entries, res.Entries)
		require.NoError(t, m.Clean(t.Context()))
		require.NoError(t, m.Discard())
		require.Equal(t, shell(t, like, pathsAndText), shell(t, top, pathsAndText), "rules %q", rules)
	}
}

// pathsAndText lists paths, types, modes and contents.
const pathsAndText = `find . -mindepth 1 -name .gantry -prune -o -mindepth 1 -printf '%P %y %m\n' | sort; find . -name .gantry -prune -o -type f -print0 | sort -z | xargs -0 -r sha256sum`

// TestTreeFilterRecovered: after a crash in the midst of deleting at the root the
// rules still protect.
func TestTreeFilterRecovered(t *testing.T) {
	dir, g := t.TempDir(), newTree(t)
	shell(t, dir, `mkdir d; echo new > d/a; mkfifo q`)
	shell(t, g.dir, `mkdir -p d x/y z; echo mine | tee d/a.o x/b.o q > x/y/c; echo mine > z/old`)
	m := g.imp(exported{tree(t, dir, t.TempDir(), transfer.TreeOptions{Filter: []string{"- *.o"}})})
	m.Name, m.Mode, m.Tree.Extraneous = "", api.ModeReplace, api.ExtraneousDelete
	n := &notes{}
	m.Report = n
	m.Faults(func(op string) error {
		if op == "remove" {
			return os.ErrPermission
		}
		return nil
	})
	_, err := m.Run(t.Context())
	require.Error(t, err)
	require.FileExists(t, filepath.Join(g.dir, "d/a"))
	m.Faults(nil)
	_, err = m.Recover(n.states[0])
	require.NoError(t, err)
	require.NoError(t, m.Discard())
	for _, name := range []string{"d/a", "d/a.o", "x/b.o", "q"} {
		require.FileExists(t, filepath.Join(g.dir, name))
	}
	for _, name := range []string{"x/y", "z"} {
		require.NoDirExists(t, filepath.Join(g.dir, name))
	}
}

// TestTreeInTheWay: what is kept is not lost because the source has a file in the
// place of its directory.
func TestTreeInTheWay(t *testing.T) {
	for _, name := range []string{"tree", ""} {
		g, s := newTree(t), &script{}
		s.file("d", "a file now")
		top := filepath.Join(g.dir, name)
		shell(t, g.dir, `mkdir -p "`+top+`/d/sub"; echo mine > "`+top+`/d/sub/only"`)
		m := g.imp(s)
		m.Name, m.Mode = name, api.ModeUpdate
		_, err := m.Run(t.Context())
		requireCode(t, api.Exists, err)
		require.FileExists(t, filepath.Join(top, "d/sub/only"))
		require.NoError(t, m.Discard())
	}
}
