package transfer_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"gantry/api"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

func TestOpenFile(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o600))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "sub"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "sub/file"), []byte("x"), 0o600))
	require.NoError(t, os.Mkdir(filepath.Join(dir, transfer.StageDir), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, transfer.StageDir, "stage"), []byte("x"), 0o600))
	require.NoError(t, os.Symlink("file", filepath.Join(dir, "link")))
	require.NoError(t, os.Symlink("sub", filepath.Join(dir, "within")))
	require.NoError(t, os.Symlink("/etc", filepath.Join(dir, "out")))
	require.NoError(t, os.Symlink(transfer.StageDir, filepath.Join(dir, "stages")))
	require.NoError(t, os.Symlink("loop", filepath.Join(dir, "loop")))
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	root := openRoot(t, dir)
	for name, c := range map[string]*api.Code{
		"file": nil, "sub/file": nil, "within/file": nil,
		"none": api.NotFound, "file/x": api.NotFound, "sub": api.NotRegular, "link": api.NotRegular, "fifo": api.NotRegular, "out": api.NotRegular,
		"out/passwd": api.BadPath, "stages/stage": api.BadPath, ".gantry/stage": api.BadPath, "loop/x": api.BadPath, "../x": api.BadPath,
	} {
		t.Run(name, func(t *testing.T) {
			f, err := transfer.OpenFile(root, name)
			if c == nil {
				require.NoError(t, err)
				require.NoError(t, f.Close())
				return
			}
			requireCode(t, c, err)
			_, err = transfer.OpenExport(root, name, t.TempDir(), transfer.Silent{})
			requireCode(t, c, err)
		})
	}
	f, err := os.Open("/dev/null")
	require.NoError(t, err)
	defer f.Close()
	_, _, err = (*transfer.Cache)(nil).Digest(context.Background(), f, "null", transfer.Silent{}, false)
	requireCode(t, api.NotRegular, err)
}

// lines runs a window and returns what it wrote.
func lines(t *testing.T, x *transfer.Export, from, n int64) (string, error) {
	t.Helper()
	var b bytes.Buffer
	err := x.Window(context.Background(), from, n, 0, &b)
	return b.String(), err
}

// TestWindowHashesNoFurther: bytes after the window are not looked at.
func TestWindowHashesNoFurther(t *testing.T) {
	x := export(t, content(1, 10*piece))
	_, err := lines(t, x, 0, 3)
	require.NoError(t, err)
	spool := func() int64 { return x.Hashed() }
	require.EqualValues(t, 3, spool())
	require.Empty(t, x.Digest())
	_, err = lines(t, x, 6, 1)
	require.NoError(t, err)
	require.EqualValues(t, 7, spool())
	s, err := lines(t, x, 3, 1000)
	require.NoError(t, err)
	require.Contains(t, s, x.Digest())
	require.Equal(t, 7+2, strings.Count(s, "\n"))
}

// TestWindowsShare: any number of requests read the file once.
func TestWindowsShare(t *testing.T) {
	n := &notes{}
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "src"), content(1, 10*piece), 0o644))
	x, err := transfer.OpenExport(openRoot(t, dir), "src", t.TempDir(), n)
	require.NoError(t, err)
	defer x.Close()
	var all [20]string
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() { all[i], _ = lines(t, x, 0, 64) })
	}
	wg.Wait()
	for i := range all {
		require.Equal(t, all[0], all[i])
	}
	require.EqualValues(t, 10*piece, n.done)
}

func TestBadRanges(t *testing.T) {
	x := export(t, content(1, 2*piece+1))
	for _, r := range [][2]int64{{-1, 1}, {3, 1}, {0, 0}, {0, -1}, {0, api.MaxWindow + 1}, {1 << 62, 1}} {
		s, err := lines(t, x, r[0], r[1])
		requireCode(t, api.BadRange, err)
		require.Empty(t, s)
	}
	for _, r := range [][2]int64{{-1, 1}, {0, -1}, {2*piece + 2, 0}, {0, 2*piece + 2}, {1, 1<<63 - 1}} {
		_, err := x.Content(context.Background(), r[0], r[1])
		requireCode(t, api.BadRange, err)
	}
	requireCode(t, api.BadRange, x.Rehash(context.Background(), 3, io.Discard))
	rc, err := x.Content(context.Background(), 2*piece, 1)
	require.NoError(t, err)
	b, err := io.ReadAll(rc)
	require.NoError(t, err)
	require.Len(t, b, 1)
}

// TestSourceChanges: each way to change a file is seen by each way to read it.
func TestSourceChanges(t *testing.T) {
	data := content(1, 3*piece)
	for name, change := range map[string]func(t *testing.T, path string){
		"written, time put back": func(t *testing.T, path string) {
			info, err := os.Stat(path)
			require.NoError(t, err)
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			require.NoError(t, err)
			_, err = f.WriteAt([]byte{1}, piece)
			require.NoError(t, err)
			require.NoError(t, f.Close())
			require.NoError(t, os.Chtimes(path, info.ModTime(), info.ModTime()))
		},
		"longer":  func(t *testing.T, path string) { require.NoError(t, os.Truncate(path, 3*piece+1)) },
		"shorter": func(t *testing.T, path string) { require.NoError(t, os.Truncate(path, piece)) },
	} {
		t.Run(name, func(t *testing.T) {
			open := func(spool string) (*transfer.Export, string, error) {
				dir := t.TempDir()
				path := filepath.Join(dir, "src")
				require.NoError(t, os.WriteFile(path, data, 0o644))
				x, err := transfer.OpenExport(openRoot(t, dir), "src", spool, transfer.Silent{})
				if err == nil {
					t.Cleanup(func() { x.Close() })
				}
				return x, path, err
			}
			x, path, err := open(t.TempDir())
			require.NoError(t, err)
			_, err = lines(t, x, 0, 1)
			require.NoError(t, err)
			change(t, path)
			s, err := lines(t, x, 0, 1)
			requireCode(t, api.SourceChanged, err)
			require.Contains(t, s, `"code":"source_changed"`, "also for pieces that were hashed before")
			requireCode(t, api.SourceChanged, x.Check())

			x, path, err = open(t.TempDir())
			require.NoError(t, err)
			rc, err := x.Content(context.Background(), 0, 3*piece)
			require.NoError(t, err)
			_, err = io.CopyN(io.Discard, rc, piece/2)
			require.NoError(t, err)
			change(t, path)
			_, err = io.Copy(io.Discard, rc)
			requireCode(t, api.SourceChanged, err)
			_, err = x.Content(context.Background(), 0, 1)
			requireCode(t, api.SourceChanged, err)

			x, path, err = open(t.TempDir())
			require.NoError(t, err)
			change(t, path)
			requireCode(t, api.SourceChanged, x.Rehash(context.Background(), 1, io.Discard))

			spool := t.TempDir()
			x, path, err = open(spool)
			require.NoError(t, err)
			require.NoError(t, x.Close())
			change(t, path)
			_, err = transfer.OpenExport(openRoot(t, filepath.Dir(path)), "src", spool, transfer.Silent{})
			requireCode(t, api.SourceChanged, err)
		})
	}
}

// TestCheckGoesByName: a front opens the source by its name.
func TestCheckGoesByName(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "src")
	require.NoError(t, os.WriteFile(path, []byte("one"), 0o644))
	x := exportFile(t, dir, "src")
	require.NoError(t, x.Check())
	require.NoError(t, os.WriteFile(path+"2", []byte("two"), 0o644))
	require.NoError(t, os.Rename(path+"2", path))
	requireCode(t, api.SourceChanged, x.Check())
	require.NoError(t, os.Remove(path))
	requireCode(t, api.SourceChanged, x.Check())
}

// TestSpoolSurvives: after a restart nothing is hashed again, and a torn spool
// costs its torn slots only.
func TestSpoolSurvives(t *testing.T) {
	dir, spool := t.TempDir(), t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "src"), content(1, 5*piece+1), 0o644))
	open := func() *transfer.Export {
		x, err := transfer.OpenExport(openRoot(t, dir), "src", spool, transfer.Silent{})
		require.NoError(t, err)
		return x
	}
	x := open()
	whole, err := lines(t, x, 0, 64)
	require.NoError(t, err)
	require.NoError(t, x.Close())
	x = open()
	require.EqualValues(t, 6, x.Hashed())
	again, err := lines(t, x, 0, 64)
	require.NoError(t, err)
	require.Equal(t, whole, again)
	require.NoError(t, x.Close())

	f, err := os.OpenFile(filepath.Join(spool, transfer.ExportSpool), os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte{0xff, 0xfe}, 3*40+5)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	x = open()
	require.EqualValues(t, 3, x.Hashed())
	again, err = lines(t, x, 0, 64)
	require.NoError(t, err)
	require.Equal(t, whole, again)
	require.NoError(t, x.Close())
}

// TestHeartbeat: a window is never silent for longer than the interval.
func TestHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := transfer.StuckExport()
		ctx, cancel := context.WithCancel(context.Background())
		start := time.Now()
		var at []time.Duration
		var said bytes.Buffer
		w := writerFunc(func(p []byte) (int, error) {
			said.Write(p)
			if bytes.Contains(p, []byte("heartbeat")) {
				if at = append(at, time.Since(start)); len(at) == 3 {
					cancel()
				}
			}
			return len(p), nil
		})
		requireCode(t, api.CancelledBy, x.Window(ctx, 0, 1, 0, w))
		require.NotContains(t, said.String(), "error", "a request that ended is a cut, not a refusal")
		require.Equal(t, []time.Duration{api.HeartbeatInterval, 2 * api.HeartbeatInterval, 3 * api.HeartbeatInterval}, at)
	})
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestCancelledExport: a reader is told when the task itself was cancelled.
func TestCancelledExport(t *testing.T) {
	x := transfer.StuckExport()
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(api.CancelledBy.Err("by its owner"))
	s := new(bytes.Buffer)
	requireCode(t, api.CancelledBy, x.Window(ctx, 0, 1, 0, s))
	_, _, err := read(s.String(), 0, 1)
	requireCode(t, api.CancelledBy, err)
}

// TestClose ends a window that waits.
func TestClose(t *testing.T) {
	x := export(t, content(1, 64*piece))
	done := make(chan error, 1)
	pr, pw := io.Pipe()
	go func() { done <- x.Window(context.Background(), 0, 64, 0, pw) }()
	_, err := pr.Read(make([]byte, 10))
	require.NoError(t, err)
	go io.Copy(io.Discard, pr)
	require.NoError(t, x.Close())
	if err := <-done; err != nil {
		t.Log(err)
	}
	pw.Close()
}
