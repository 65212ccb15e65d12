package transfer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gantry/api"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

func TestCreate(t *testing.T) {
	for _, size := range sizes[:len(sizes)-1] {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			data := content(2, size)
			g, n := newTarget(t), &notes{}
			im := g.imp(direct{export(t, data)})
			im.Report = n
			res, err := im.Run(context.Background())
			require.NoError(t, err)
			g.holds(t, data)
			require.Equal(t, b3sum(t, g.path()), res.Digest)
			require.Equal(t, api.TargetCreated, res.Target)
			require.Equal(t, transfer.VerifyWire, res.Verified)
			require.EqualValues(t, size, res.Size)
			require.EqualValues(t, size, res.Bytes.Fetched)
			require.EqualValues(t, size, res.Wire)
			require.Zero(t, res.Cuts)
			require.EqualValues(t, size, n.done)
			require.EqualValues(t, size, n.total)
			require.Len(t, n.states, 1)
			info, err := os.Stat(g.path())
			require.NoError(t, err)
			require.Equal(t, os.FileMode(0o640), info.Mode())
			require.Nil(t, g.stage(t), "nothing is left in the stage folder")
		})
	}
}

func TestTimeIsTheSources(t *testing.T) {
	dir := t.TempDir()
	when := time.Date(2001, 2, 3, 4, 5, 6, 789, time.UTC)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "src"), content(1, 100), 0o644))
	require.NoError(t, os.Chtimes(filepath.Join(dir, "src"), when, when))
	g := newTarget(t)
	_, err := g.imp(direct{exportFile(t, dir, "src")}).Run(context.Background())
	require.NoError(t, err)
	info, err := os.Stat(g.path())
	require.NoError(t, err)
	require.True(t, info.ModTime().Equal(when), info.ModTime())
}

func TestReplace(t *testing.T) {
	data := content(3, 5<<20)
	g := newTarget(t)
	require.NoError(t, os.WriteFile(g.path(), []byte("old"), 0o604))
	require.NoError(t, os.Chmod(g.path(), 0o604))
	if os.Geteuid() == 0 {
		require.NoError(t, os.Chown(g.path(), 1234, 1235))
	}
	im := g.imp(direct{export(t, data)})
	im.Mode = api.ModeReplace
	im.Commit = func() error {
		old, err := os.ReadFile(g.path())
		require.NoError(t, err)
		require.Equal(t, "old", string(old), "the old file is untouched until the point of no return")
		return nil
	}
	res, err := im.Run(context.Background())
	require.NoError(t, err)
	require.Equal(t, api.TargetReplaced, res.Target)
	g.holds(t, data)
	info, err := os.Stat(g.path())
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o604), info.Mode())
	if os.Geteuid() == 0 {
		require.EqualValues(t, 1234, info.Sys().(*syscall.Stat_t).Uid)
		require.EqualValues(t, 1235, info.Sys().(*syscall.Stat_t).Gid)
	}
}

func TestCreateOntoTheSameContent(t *testing.T) {
	for _, size := range []int{0, 77, 9 << 20} {
		data := content(4, size)
		g := newTarget(t)
		require.NoError(t, os.WriteFile(g.path(), data, 0o600))
		before, err := os.Stat(g.path())
		require.NoError(t, err)
		res, err := g.imp(direct{export(t, data)}).Run(context.Background())
		require.NoError(t, err)
		require.Equal(t, api.TargetThere, res.Target)
		require.Zero(t, res.Wire)
		require.Equal(t, b3sum(t, g.path()), res.Digest)
		after, err := os.Stat(g.path())
		require.NoError(t, err)
		require.True(t, os.SameFile(before, after))
		require.NoDirExists(t, filepath.Join(g.dir, transfer.StageDir))
	}
}

func TestCreateOntoOtherContent(t *testing.T) {
	data := content(4, 9<<20)
	late := bytes.Clone(data)
	late[len(late)-1] ^= 1
	for name, old := range map[string][]byte{"other size": []byte("x"), "last byte": late, "zeros": make([]byte, len(data))} {
		t.Run(name, func(t *testing.T) {
			g := newTarget(t)
			require.NoError(t, os.WriteFile(g.path(), old, 0o600))
			res, err := g.imp(direct{export(t, data)}).Run(context.Background())
			requireCode(t, api.Exists, err)
			require.Zero(t, res.Wire)
			g.holds(t, old)
		})
	}
}

// TestTargetAppears: create never replaces, also when the target comes last.
func TestTargetAppears(t *testing.T) {
	g := newTarget(t)
	im := g.imp(direct{export(t, content(5, 1<<20))})
	im.Commit = func() error { return os.WriteFile(g.path(), []byte("mine"), 0o600) }
	_, err := im.Run(context.Background())
	requireCode(t, api.Exists, err)
	g.holds(t, []byte("mine"))
}

// TestHoles: what is zero at the source is not sent and takes no room.
func TestHoles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "src")
	f, err := os.Create(path)
	require.NoError(t, err)
	const size = 40<<20 + 5
	require.NoError(t, f.Truncate(size))
	_, err = f.WriteAt(content(6, 3*piece), 12<<20) // pieces 3, 4, 5
	require.NoError(t, err)
	_, err = f.WriteAt(make([]byte, 2*piece), 32<<20) // pieces 8, 9 are data, but zero
	require.NoError(t, err)
	require.NoError(t, f.Close())
	g := newTarget(t)
	im := g.imp(direct{exportFile(t, dir, "src")})
	im.Verify = transfer.VerifyDisk
	res, err := im.Run(context.Background())
	require.NoError(t, err)
	require.EqualValues(t, 3*piece, res.Bytes.Fetched)
	require.EqualValues(t, size-3*piece, res.Bytes.Hole)
	require.EqualValues(t, 3*piece, res.Wire)
	require.Equal(t, b3sum(t, path), res.Digest)
	require.Equal(t, b3sum(t, g.path()), res.Digest)
	require.Less(t, allocated(t, g.path()), int64(3*piece+64<<10))
}

func TestExpect(t *testing.T) {
	data := content(7, 5<<20)
	g := newTarget(t)
	im := g.imp(direct{export(t, data)})
	im.Expect = transfer.FormatDigest(transfer.Value{1})
	im.Commit = func() error { t.Error("reached the point of no return"); return nil }
	_, err := im.Run(context.Background())
	requireCode(t, api.DigestMismatch, err)
	require.NoFileExists(t, g.path())
}

// TestRefusedBeforeAnyByte: what can be known first is said first.
func TestRefusedBeforeAnyByte(t *testing.T) {
	g := newTarget(t)
	require.NoError(t, os.Mkdir(filepath.Join(g.dir, "dir"), 0o755))
	require.NoError(t, os.Symlink("elsewhere", filepath.Join(g.dir, "link")))
	require.NoError(t, os.Symlink("/etc", filepath.Join(g.dir, "out")))
	require.NoError(t, os.Mkdir(filepath.Join(g.dir, transfer.StageDir), 0o700))
	require.NoError(t, os.Symlink(transfer.StageDir, filepath.Join(g.dir, "stages")))
	require.NoError(t, syscall.Mkfifo(filepath.Join(g.dir, "fifo"), 0o600))
	for name, c := range map[string]*api.Code{
		"dir": api.NotRegular, "link": api.NotRegular, "fifo": api.NotRegular,
		"no/disk": api.NotFound, "out/x": api.BadPath, "stages/x": api.BadPath,
		"": api.BadPath, ".": api.BadPath, "/etc/passwd": api.BadPath, "../x": api.BadPath, "a/../b": api.BadPath, "a//b": api.BadPath, "a/": api.BadPath, "./a": api.BadPath,
		".gantry/x": api.BadPath, "a/.gantry": api.BadPath, "a\x00b": api.BadPath, "a\nb": api.BadPath, "\xff": api.BadPath,
		strings.Repeat("a", 256): api.BadPath, strings.Repeat("a/", 2500) + "a": api.BadPath,
	} {
		for _, mode := range []string{api.ModeCreate, api.ModeReplace} {
			im := g.imp(nil) // a request would panic
			im.Name, im.Mode = name, mode
			_, err := im.Run(context.Background())
			requireCode(t, c, err)
		}
	}
	for _, change := range []func(*transfer.Import){
		func(m *transfer.Import) { m.Mode = "upend" },
		func(m *transfer.Import) { m.Task = "../x" },
		func(m *transfer.Import) { m.Task = "" },
		func(m *transfer.Import) { m.Expect = "b3:" },
		func(m *transfer.Import) { m.Verify = "twice" },
	} {
		im := g.imp(nil)
		change(im)
		_, err := im.Run(context.Background())
		requireCode(t, api.BadRequest, err)
	}
}

// TestCancel: a context that ends before the point of no return leaves no
// target; one that ends after it changes nothing.
func TestCancel(t *testing.T) {
	data := content(8, 9<<20)
	g := newTarget(t)
	ctx, cancel := context.WithCancelCause(context.Background())
	src := &faulty{Source: direct{export(t, data)}}
	src.content = func(k int, off, length int64) *fault { cancel(api.RunFor.Err("over")); return nil }
	_, err := g.imp(src).Run(ctx)
	requireCode(t, api.RunFor, err)
	require.NoFileExists(t, g.path())

	ctx, cancel2 := context.WithCancel(context.Background())
	im := g.imp(direct{export(t, data)})
	im.Commit = func() error { cancel2(); return nil }
	_, err = im.Run(ctx)
	require.NoError(t, err)
	g.holds(t, data)

	g = newTarget(t)
	im = g.imp(direct{export(t, data)})
	refused := errors.New("cancelled by the node")
	im.Commit = func() error { return refused }
	_, err = im.Run(context.Background())
	require.ErrorIs(t, err, refused)
	require.NoFileExists(t, g.path())
	require.NoError(t, im.Discard())
	require.NoError(t, im.Discard())
	require.Nil(t, g.stage(t))
}

func TestClaim(t *testing.T) {
	g := newTarget(t)
	require.NoError(t, os.Mkdir(filepath.Join(g.dir, "a"), 0o755))
	require.NoError(t, os.Symlink("a", filepath.Join(g.dir, "b")))
	claim := func(name string) transfer.Claim {
		c, err := transfer.ClaimOf(g.root, name)
		require.NoError(t, err)
		return c
	}
	for _, c := range []struct {
		x, y string
		both bool
	}{
		{"a/x", "b/x", true}, {"a/x", "x", false}, {"a", "a/x", true}, {"a", "b/x", true}, {"", "a/x", true}, {"", "", true}, {"a", "c", false}, {"a/x", "a/y", false},
	} {
		require.Equal(t, c.both, claim(c.x).Overlaps(claim(c.y)), "%s %s", c.x, c.y)
		require.Equal(t, c.both, claim(c.y).Overlaps(claim(c.x)), "%s %s", c.y, c.x)
	}
}
