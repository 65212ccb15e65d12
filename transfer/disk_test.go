package transfer_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"gantry/api"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

// small mounts a tmpfs of size bytes.
func small(t *testing.T, size string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a small file system")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skip("needs leave to mount a tmpfs: " + err.Error())
	}
	t.Cleanup(func() {
		// Roots and exports of this test are closed before: cleanups run last first.
		require.NoError(t, syscall.Unmount(dir, 0))
	})
	return dir
}

// TestDiskFull: known before, the file is refused before any byte moves; found
// out on the way, it ends with the same code. The old file stays, and when there
// is room again the same task goes on.
func TestDiskFull(t *testing.T) {
	data := content(1, 24<<20)
	t.Run("known before", func(t *testing.T) {
		g := targetIn(t, small(t, "16m"))
		require.NoError(t, os.WriteFile(g.path(), []byte("old"), 0o600))
		src := &faulty{Source: direct{export(t, data)}}
		im := g.imp(src)
		im.Mode = api.ModeReplace
		_, err := im.Run(context.Background())
		requireCode(t, api.NoSpace, err)
		require.Zero(t, src.contents.Load())
		g.holds(t, []byte("old"))
		require.NoError(t, im.Discard())
	})
	t.Run("on the way", func(t *testing.T) {
		g := targetIn(t, small(t, "32m"))
		require.NoError(t, os.WriteFile(g.path(), []byte("old"), 0o600))
		hog := filepath.Join(g.dir, "hog")
		src := &faulty{Source: direct{export(t, data)}}
		var once sync.Once
		src.content = func(k int, off, length int64) *fault {
			once.Do(func() {
				if err := os.WriteFile(hog, make([]byte, 20<<20), 0o600); err != nil {
					t.Error(err)
				}
			})
			return nil
		}
		im := g.imp(src)
		im.Mode = api.ModeReplace
		_, err := im.Run(context.Background())
		requireCode(t, api.NoSpace, err)
		require.ErrorIs(t, err, syscall.ENOSPC)
		g.holds(t, []byte("old"))
		soundStage(t, filepath.Join(g.dir, transfer.StageDir, "task.stage"), data)

		require.NoError(t, os.Remove(hog))
		res, err := im.Run(context.Background())
		require.NoError(t, err)
		require.Equal(t, api.TargetReplaced, res.Target)
		g.holds(t, data)
	})
	t.Run("sparse file that fits", func(t *testing.T) {
		g := targetIn(t, small(t, "16m"))
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "src"), data[:piece], 0o600))
		require.NoError(t, os.Truncate(filepath.Join(dir, "src"), 100<<20))
		res, err := g.imp(direct{exportFile(t, dir, "src")}).Run(context.Background())
		require.NoError(t, err)
		require.EqualValues(t, piece, res.Bytes.Fetched)
		require.Equal(t, b3sum(t, g.path()), res.Digest)
	})
	t.Run("task folder full", func(t *testing.T) {
		g := newTarget(t)
		g.task = small(t, "4k")
		require.NoError(t, os.WriteFile(filepath.Join(g.task, "hog"), make([]byte, 4096), 0o600))
		_, err := g.imp(direct{export(t, data)}).Run(context.Background())
		requireCode(t, api.NoSpace, err)
		require.NoFileExists(t, g.path())
		require.NoError(t, os.Remove(filepath.Join(g.task, "hog")))
		require.NoError(t, syscall.Mount("", g.task, "", syscall.MS_REMOUNT, "size=1m"))
		_, err = g.imp(direct{export(t, data)}).Run(context.Background())
		require.NoError(t, err)
		g.holds(t, data)
	})
}

// TestOtherFileSystem: a folder that rename cannot reach is refused before any
// byte moves.
func TestOtherFileSystem(t *testing.T) {
	g := newTarget(t)
	sub := small(t, "1m")
	inside := filepath.Join(g.dir, "sub")
	require.NoError(t, os.Mkdir(inside, 0o755))
	require.NoError(t, syscall.Mount(sub, inside, "", syscall.MS_BIND, ""))
	defer func() { require.NoError(t, syscall.Unmount(inside, 0)) }()
	im := g.imp(nil)
	im.Name = "sub/disk"
	_, err := im.Run(context.Background())
	requireCode(t, api.BadFileSystem, err)

	// The same device, mounted a second time, cannot be renamed to either.
	require.NoError(t, os.Mkdir(filepath.Join(g.dir, "again"), 0o755))
	again := filepath.Join(g.dir, "again")
	require.NoError(t, syscall.Mount(t.TempDir(), again, "", syscall.MS_BIND, ""))
	defer func() { require.NoError(t, syscall.Unmount(again, 0)) }()
	im.Name = "again/disk"
	_, err = im.Run(context.Background())
	requireCode(t, api.BadFileSystem, err)
}

// TestInjectedErrors fails the Nth operation of each kind on the stage, for
// every N, until a run meets none. The old file stays, and a retry is done.
func TestInjectedErrors(t *testing.T) {
	data := content(2, 2*piece+99)
	clear(data[piece : 2*piece])
	for _, c := range []struct {
		op   string
		errs error
		code *api.Code
	}{
		{"write", syscall.EIO, api.IO},
		{"write", syscall.ENOSPC, api.NoSpace},
		{"write", syscall.EDQUOT, api.NoSpace},
		{"fdatasync", syscall.EIO, api.IO},
		{"fsync", syscall.EIO, api.IO},
		{"fsync", syscall.ENOSPC, api.NoSpace},
		{"read", syscall.EIO, api.IO},
	} {
		t.Run(c.op+" "+c.errs.Error(), func(t *testing.T) {
			x := export(t, data)
			failed := 0
			for n := 1; ; n++ {
				g := newTarget(t)
				require.NoError(t, os.WriteFile(g.path(), []byte("old"), 0o600))
				im := g.imp(direct{x})
				im.Mode, im.Verify = api.ModeReplace, transfer.VerifyDisk
				hook, seen := faultAt(c.op, n, c.errs)
				im.Faults(hook)
				_, err := im.Run(context.Background())
				if err == nil {
					require.Less(t, seen(), n)
					break
				}
				failed++
				requireCode(t, c.code, err)
				require.ErrorIs(t, err, c.errs)
				g.holds(t, []byte("old"))
				soundStage(t, filepath.Join(g.dir, transfer.StageDir, "task.stage"), data)
				if c.op == "fsync" || c.op == "fdatasync" {
					require.Nil(t, g.stage(t), "after a failed sync nothing of the stage can be trusted")
					require.NoFileExists(t, filepath.Join(g.task, transfer.PieceMap))
				}
				im.Faults(nil)
				_, err = im.Run(context.Background())
				require.NoError(t, err)
				g.holds(t, data)
			}
			require.Positive(t, failed)
		})
	}
}

// TestStateNotDurable: without the record nothing is published.
func TestStateNotDurable(t *testing.T) {
	g := newTarget(t)
	im := g.imp(direct{export(t, content(1, 100))})
	broken := errors.New("journal broken")
	im.Report = &notes{fail: broken}
	_, err := im.Run(context.Background())
	require.ErrorIs(t, err, broken)
	require.NoFileExists(t, g.path())
}

// TestReadBack: a disk that gives back other bytes is found with VerifyDisk.
func TestReadBack(t *testing.T) {
	data := content(1, 2*piece)
	g := newTarget(t)
	im := g.imp(direct{export(t, data)})
	im.Verify = transfer.VerifyDisk
	stage := filepath.Join(g.dir, transfer.StageDir, "task.stage")
	im.Faults(func(op string) error {
		if op != "fsync" {
			return nil
		}
		f, err := os.OpenFile(stage, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.WriteAt([]byte{data[piece] ^ 1}, piece)
		return err
	})
	_, err := im.Run(context.Background())
	requireCode(t, api.CorruptPiece, err)
	require.ErrorContains(t, err, "disk of the target")
	require.NoFileExists(t, g.path())
	// The map must not vouch for what the disk did not keep.
	im.Faults(nil)
	_, err = im.Run(context.Background())
	require.NoError(t, err)
	g.holds(t, data)
}

// TestStageFolderOfAnother: a stage folder that is a link or not ours is refused.
func TestStageFolderOfAnother(t *testing.T) {
	g := newTarget(t)
	other := t.TempDir()
	require.NoError(t, os.Symlink(other, filepath.Join(g.dir, transfer.StageDir)))
	_, err := g.imp(nil).Run(context.Background())
	require.Error(t, err)
	list, err := os.ReadDir(other)
	require.NoError(t, err)
	require.Empty(t, list)
	if os.Geteuid() != 0 {
		t.Skip("needs root to give the folder away")
	}
	require.NoError(t, os.Remove(filepath.Join(g.dir, transfer.StageDir)))
	require.NoError(t, os.Mkdir(filepath.Join(g.dir, transfer.StageDir), 0o777))
	require.NoError(t, os.Chown(filepath.Join(g.dir, transfer.StageDir), 1234, 1234))
	_, err = g.imp(nil).Run(context.Background())
	requireCode(t, api.Denied, err)
}
