package cluster_test

import (
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"gantry/front"
	"gantry/internal/cluster"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

var treeKills = flag.Int("treekills", 9, "how many kill points TestKillTrees tries, over all fronts")

const (
	// The tree of TestKillTrees: enough to be hit anywhere in it.
	treeKillFiles = 300
	treeKillSize  = 48 << 20
	treeKillRate  = 60 << 20
)

// TestKillTrees kills servers and callers while a tree replaces an old one, below
// the resource's root, where it is exchanged at once, and at the root, where each
// file is replaced by itself; pulled and pushed.
func TestKillTrees(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(theSeed(t), 1))
	landed, done := 0, 0
	for i, kind := range front.Kinds {
		n := *treeKills * (i + 1) / len(front.Kinds)
		t.Run(string(kind), func(t *testing.T) {
			needFront(t, kind)
			k := newTreeKilling(t, kind, rng)
			for ; done < n; done++ {
				if k.run(t, done) {
					landed++
				}
			}
		})
		done = n
	}
	if t.Failed() || t.Skipped() {
		return
	}
	t.Logf("kills: %d of %d landed", landed, done)
	if landed*100 < done*60 {
		t.Errorf("void: %d of %d kills landed, fewer than 60%%", landed, done)
	}
}

type treeKilling struct {
	c        *cluster.Cluster
	rng      *rand.Rand
	old, new map[string]string // by path
	oldDir   string            // where the old tree is kept
}

func newTreeKilling(t *testing.T, kind front.Kind, rng *rand.Rand) *treeKilling {
	c := newCluster(t, cluster.Options{Front: kind, Proxied: true, Dirs: []string{"trees"}, Extra: func(_, dir string) string {
		return fmt.Sprintf("\n[[resource]]\nname = \"trees\"\nkind = \"tree\"\npath = %q\nwritable = true\n", filepath.Join(dir, "trees"))
	}}, nil)
	k := &treeKilling{c: c, rng: rng, oldDir: filepath.Join(t.TempDir(), "old")}
	source := filepath.Join(c.NodeDir("alpha"), "trees", "src")
	seed := rng.Uint64()
	for _, dir := range []string{source, k.oldDir} {
		for i := range treeKillFiles {
			path := filepath.Join(dir, fmt.Sprintf("d%02d/f%03d", i%20, i))
			require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
			text := make([]byte, treeKillSize/treeKillFiles)
			other := uint64(0)
			if dir == source && i%3 != 0 { // a third is the same in both
				other = 1
			}
			r := rand.NewChaCha8([32]byte{byte(seed), byte(i), byte(i >> 8), byte(other)})
			r.Read(text)
			require.NoError(t, os.WriteFile(path, text, 0o644))
			ts := []syscall.Timespec{{Sec: 1_700_000_000}, {Sec: 1_600_000_000 + int64(other)}}
			require.NoError(t, syscall.UtimesNano(path, ts))
		}
	}
	own(t, c, source)
	k.old, k.new = snapshot(t, k.oldDir), snapshot(t, source)
	c.Proxy("alpha").Limit(treeKillRate)
	c.Proxy("beta").Limit(treeKillRate)
	return k
}

// snapshot is each file's content and time, by path.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && d.Name() == transfer.StageDir {
			return filepath.SkipDir
		}
		if !d.Type().IsRegular() {
			return nil
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		text, err := io.ReadAll(f)
		if err != nil {
			return err
		}
		info, err := f.Stat() // of the same file: another may have its name by now
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		all[name] = fmt.Sprintf("%x %d", sha256.Sum256(text), info.ModTime().UnixNano())
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil // somebody is removing it
	}
	require.NoError(t, err)
	return all
}

// run copies the tree over the old one, kills somebody on the way, and says
// whether that came in the middle.
func (k *treeKilling) run(t *testing.T, i int) (hit bool) {
	victim := victims[i%len(victims)]
	rooted, direction := k.rng.IntN(2) == 0, []string{"--pull", "--push"}[k.rng.IntN(2)]
	share := 0.05 + 1.1*k.rng.Float64()
	target, name := filepath.Join(k.c.NodeDir("beta"), "trees"), "beta:trees"
	what := fmt.Sprintf("run %d: %s killed at %.2f, %s, root %v", i, victim, share, direction, rooted)
	clean(t, target)
	if !rooted {
		target, name = filepath.Join(target, "dst"), "beta:trees/dst"
	}
	require.NoError(t, os.CopyFS(target, os.DirFS(k.oldDir)))
	for path := range k.old {
		info, err := os.Stat(filepath.Join(k.oldDir, path))
		require.NoError(t, err)
		require.NoError(t, os.Chtimes(filepath.Join(target, path), info.ModTime(), info.ModTime()))
	}
	own(t, k.c, target)

	args := []string{"copy", direction, "--update", "--delete", "alpha:trees/src", name}
	starts := k.c.Process(victim).Starts
	cmd := start(t, k.c, nil, args...)
	k.reach(cmd, direction, share)
	select {
	case <-cmd.done:
	default:
		hit = true
	}
	if victim == caller {
		cmd.Process.Kill()
	} else {
		require.NoError(t, k.c.Kill(victim), what)
	}
	k.whole(t, target, rooted, what)
	code := cmd.code(t)
	if victim == caller && code != 0 {
		cmd = start(t, k.c, nil, args...)
		code = cmd.code(t)
	}
	if victim != caller {
		require.NoError(t, k.c.Await(deadline(t), victim, func(p cluster.Process) bool { return p.Starts > starts && p.PID != 0 }), what)
		require.NoError(t, k.c.Ready(t.Context()), what)
	}
	require.Zero(t, code, "%s: exit code\n%s\n%s", what, &cmd.out, &cmd.err)
	require.Equal(t, k.new, snapshot(t, target), "%s: reported done, and it differs", what)
	k.leftovers(t, what)
	t.Logf("%s: done, in the middle %v", what, hit)
	return hit
}

// clean empties a resource, but for the folder of stages.
func clean(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		if e.Name() != transfer.StageDir {
			require.NoError(t, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
}

// reach waits until share of the bytes that have to move went over the wire.
func (k *treeKilling) reach(cmd *command, direction string, share float64) {
	moved := k.c.Proxy("alpha").Sent
	if direction == "--push" {
		moved = k.c.Proxy("beta").Received
	}
	from := moved()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for float64(moved()-from) < min(share, 0.98)*treeKillSize*2/3 {
		select {
		case <-cmd.done:
			return
		case <-tick.C:
		}
	}
}

// whole demands the old tree or the new one; at the root, each file old or new.
func (k *treeKilling) whole(t *testing.T, target string, rooted bool, what string) {
	for {
		before := inode(t, target)
		now := snapshot(t, target)
		if now == nil || inode(t, target) != before {
			continue // exchanged under our eyes
		}
		if !rooted {
			if !mapsEqual(now, k.old) && !mapsEqual(now, k.new) {
				require.FailNow(t, "neither the old tree nor the new one", "%s: %d files", what, len(now))
			}
			return
		}
		for path, state := range now {
			require.True(t, state == k.old[path] || state == k.new[path], "%s: %s is neither old nor new", what, path)
		}
		for path := range k.old {
			_, stays := k.new[path]
			require.True(t, !stays || now[path] != "", "%s: %s is gone", what, path)
		}
		return
	}
}

func mapsEqual(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if b[k] != v {
			return false
		}
	}
	return true
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	info, err := os.Stat(path)
	require.NoError(t, err)
	return info.Sys().(*syscall.Stat_t).Ino
}

// leftovers demands that nothing of the stage stays. Old trees are removed after
// the end was told.
func (k *treeKilling) leftovers(t *testing.T, what string) {
	t.Helper()
	var left []string
	gone := func() bool {
		entries, err := os.ReadDir(filepath.Join(k.c.NodeDir("beta"), "trees", transfer.StageDir))
		require.True(t, err == nil || errors.Is(err, fs.ErrNotExist), "%v", err)
		left = left[:0]
		for _, e := range entries {
			left = append(left, e.Name())
		}
		return len(left) == 0
	}
	require.Eventually(t, gone, 10*time.Second, 10*time.Millisecond, "%s: left behind: %v", what, left)
}
