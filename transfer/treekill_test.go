package transfer_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gantry/api"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

// openTreeOf exports a directory.
func openTreeOf(t testing.TB, dir string, o transfer.TreeOptions) served {
	t.Helper()
	x, err := transfer.OpenTree(openRoot(t, dir), "", t.TempDir(), o, transfer.Silent{})
	require.NoError(t, err)
	t.Cleanup(func() { x.Close() })
	return served{x}
}

const treeChildEnv = "TRANSFER_TEST_TREE_IMPORT"

// treeOrder is what a child does: one start of an import of a tree.
type treeOrder struct {
	Source, Target, Task string
	Name, Mode           string
	KeepOld, Delete      bool
	KillAt               int // the operation on the stage at which it kills itself, 0: never
}

// TestTreeImportChild is no test: it is what a child runs.
func TestTreeImportChild(t *testing.T) {
	raw := os.Getenv(treeChildEnv)
	if raw == "" {
		t.Skip("runs in a child process of other tests")
	}
	var o treeOrder
	require.NoError(t, json.Unmarshal([]byte(raw), &o))
	res, err := o.start(t)
	switch {
	case err == nil:
		fmt.Println("DONE", res.Target, res.Old)
	case errors.Is(err, transfer.ErrUnsettled):
		fmt.Println("UNSETTLED", err)
	default:
		fmt.Println("FAILED", err)
	}
}

func (o treeOrder) start(t *testing.T) (api.ImportResult, error) {
	root := openRoot(t, o.Target)
	states := filepath.Join(o.Task, "state.json")
	m := (&transfer.Import{
		Source: openTreeOf(t, o.Source, transfer.TreeOptions{}), Root: root, Name: o.Name, Mode: o.Mode, KeepOld: o.KeepOld,
		Task: "task", Dir: o.Task, Report: journal{path: states}, Tree: &transfer.TreeTarget{},
	}).Fast()
	if o.Delete {
		m.Tree.Extraneous = api.ExtraneousDelete
	}
	n := 0
	m.Faults(func(string) error {
		if n++; n == o.KillAt {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
		return nil
	})
	if data, err := os.ReadFile(states); err == nil {
		var p api.Publishing
		require.NoError(t, json.Unmarshal(data, &p))
		res, err := m.Recover(p)
		if err == nil {
			err = m.Discard()
		}
		return res, err
	}
	res, err := m.Run(context.Background())
	if err == nil {
		err = m.Discard()
	}
	return res, err
}

// run starts the child and returns what it said, "" when it was killed.
func (o treeOrder) run(t testing.TB, env ...string) string {
	t.Helper()
	raw, err := json.Marshal(o)
	require.NoError(t, err)
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(exe, "-test.run=^TestTreeImportChild$", "-test.v")
	cmd.Env = append(os.Environ(), append(env, treeChildEnv+"="+string(raw), "TMPDIR="+t.TempDir())...)
	out, err := cmd.CombinedOutput()
	for line := range strings.Lines(string(out)) {
		for _, word := range []string{"DONE", "UNSETTLED", "FAILED"} {
			if strings.HasPrefix(line, word) {
				return strings.TrimSpace(line)
			}
		}
	}
	require.Error(t, err, "%s", out)
	require.Contains(t, err.Error(), "killed", "%s", out)
	return ""
}

// treeScene is a source, an old tree and the order to import the one over the
// other.
type treeScene struct {
	treeOrder
	top      string
	old, new map[string]string
}

func newTreeScene(t testing.TB, mode string, root, keep, del bool) *treeScene {
	t.Helper()
	dir := t.TempDir()
	s := &treeScene{treeOrder: treeOrder{
		Source: filepath.Join(dir, "from"), Target: filepath.Join(dir, "to"), Task: filepath.Join(dir, "task"), Name: "tree",
		Mode: mode, KeepOld: keep, Delete: del,
	}}
	if root {
		s.Name = ""
	}
	s.top = filepath.Join(s.Target, s.Name)
	sh := func(script string, args ...string) {
		out, err := exec.Command("sh", append([]string{"-ec", script, "sh"}, args...)...).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	sh(`mkdir -p "$1" "$2" "$3"; cd "$1"
		mkdir d d/e gone2file; echo same > same; echo old > changed; echo x > d/e/x; ln same link; ln -s nowhere sym; echo was > file2dir
		head -c 5000000 /dev/urandom > big; chmod 750 d; cp -a . "$4"
		cd "$4"; echo new > changed; echo y > d/e/y; rm sym; ln -s elsewhere sym; rm file2dir; mkdir file2dir; echo in > file2dir/in
		rmdir gone2file; echo file > gone2file; printf z | dd of=big bs=1 seek=4800000 conv=notrunc status=none`,
		filepath.Join(dir, "base"), s.Target, s.Task, s.Source)
	if del {
		sh(`cd "$1"; mkdir -p extra/dir; echo mine > extra/dir/file`, filepath.Join(dir, "base"))
	}
	if mode != api.ModeCreate {
		sh(`mkdir -p "$2"; cp -a "$1/." "$2"`, filepath.Join(dir, "base"), s.top)
		s.old = shape(t, s.top)
	}
	s.new = shape(t, s.Source)
	return s
}

// state says which of the trees is at the target. Where it is published entry by
// entry, each entry must be that of one of the two.
func (s *treeScene) state(t testing.TB) (isNew bool) {
	t.Helper()
	if _, err := os.Lstat(s.top); errors.Is(err, os.ErrNotExist) {
		require.Nil(t, s.old, "the old tree is gone")
		return false
	}
	got := shape(t, s.top)
	if s.Name == "" {
		delete(got, ".")
		isNew = true
		for p, x := range s.new {
			isNew = isNew && (p == "." || got[p] == x)
		}
		for p, x := range got {
			if strings.HasPrefix(x, "4") { // a directory's time changes with its content
				continue
			}
			require.Contains(t, []string{strip(s.new[p]), strip(s.old[p])}, strip(x), p)
		}
		return isNew
	}
	if fmt.Sprint(got) == fmt.Sprint(s.new) {
		return true
	}
	require.Equal(t, s.old, got, "neither the old tree nor the new one")
	return false
}

// strip takes off which names are those of one file: while a link is moved, it is
// one of the old file.
func strip(s string) string { s, _, _ = strings.Cut(s, " = "); return s }

// settle runs the import to its end and checks what is there.
func (s *treeScene) settle(t testing.TB) {
	t.Helper()
	s.KillAt = 0
	out := s.run(t)
	require.Contains(t, out, "DONE")
	require.True(t, s.state(t))
	if s.KeepOld {
		require.Equal(t, s.old, shape(t, filepath.Join(s.Target, "tree.old-task")))
	}
	left, err := os.ReadDir(filepath.Join(s.Target, transfer.StageDir))
	require.NoError(t, err)
	require.Empty(t, left, "stages left behind")
}

// treeScenes are the ways to publish.
var treeScenes = []struct {
	name            string
	mode            string
	root, keep, del bool
}{
	{"create", api.ModeCreate, false, false, false},
	{"replace", api.ModeReplace, false, false, false},
	{"keep old", api.ModeReplace, false, true, false},
	{"root", api.ModeUpdate, true, false, true},
}

// TestTreeKilled kills importers of trees at random operations, again and again;
// the next start goes on.
func TestTreeKilled(t *testing.T) {
	landed := 0
	for i := range *kills {
		seed := *seed + uint64(i)
		r := rand.New(rand.NewPCG(seed, 2))
		c := treeScenes[i%len(treeScenes)]
		t.Run(fmt.Sprintf("%d %s", seed, c.name), func(t *testing.T) {
			s := newTreeScene(t, c.mode, c.root, c.keep, c.del)
			for range 1 + r.IntN(3) {
				s.KillAt = 1 + r.IntN(12)
				if out := s.run(t); out != "" {
					require.Contains(t, out, "DONE")
					break
				}
				landed++
				require.False(t, s.state(t) && s.Name != "", "published before it was complete")
			}
			if !s.state(t) {
				s.settle(t)
			}
		})
	}
	require.Positive(t, landed)
}
