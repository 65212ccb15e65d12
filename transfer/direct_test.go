package transfer

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Whole pieces go past the page cache, what is left of a file cannot; both are
// read back as they were written, also where one replaces the other.
func TestDirectWrites(t *testing.T) {
	f, err := os.OpenFile(filepath.Join(t.TempDir(), "stage"), os.O_RDWR|os.O_CREATE, 0o600)
	require.NoError(t, err)
	s := &stage{f: f, direct: openDirect(f, unix.O_WRONLY)}
	defer s.close()
	if s.direct == nil {
		t.Skip("needs a file system with O_DIRECT for its temporary folder")
	}
	piece, rest := bytes.Repeat([]byte{1}, PieceSize), bytes.Repeat([]byte{2}, 777)
	require.NoError(t, f.Truncate(2*PieceSize+777))

	write := func(buf []byte, at int64, want bool) {
		t.Helper()
		direct, err := s.writeAt(buf, at)
		require.NoError(t, err)
		require.Equal(t, want, direct)
	}
	write(bytes.Repeat([]byte{9}, PieceSize+1)[1:], 0, false) // odd address: dirty pages
	write(piece, 0, true)                                     // over them
	write(rest, 2*PieceSize, false)
	got := make([]byte, 2*PieceSize+777)
	_, err = f.ReadAt(got, 0)
	require.NoError(t, err)
	require.True(t, bytes.Equal(piece, got[:PieceSize]))
	require.True(t, bytes.Equal(make([]byte, PieceSize), got[PieceSize:2*PieceSize]), "the hole")
	require.True(t, bytes.Equal(rest, got[2*PieceSize:]))

	s.indirect.Store(true)
	write(piece, PieceSize, false)
}

func TestCachedWrites(t *testing.T) {
	f, err := os.OpenFile(filepath.Join(t.TempDir(), "stage"), os.O_RDWR|os.O_CREATE, 0o600)
	require.NoError(t, err)
	s := &stage{f: f, cached: true}
	defer s.close()
	require.NoError(t, s.prepare(t.TempDir()))
	require.Nil(t, s.direct)
}

// What is written through the page cache does not stay there, but for the last of
// it, and is read back as it was written.
func TestWritesLeaveMemory(t *testing.T) {
	dir := t.TempDir()
	var fs unix.Statfs_t
	require.NoError(t, unix.Statfs(dir, &fs))
	if fs.Type == unix.TMPFS_MAGIC {
		t.Skip("needs a disk for its temporary folder")
	}
	f, err := os.OpenFile(filepath.Join(dir, "stage"), os.O_RDWR|os.O_CREATE, 0o600)
	require.NoError(t, err)
	const pieces = 3 * behindLen / PieceSize
	s := &stage{f: f, staged: staged{Size: pieces * PieceSize}, cached: true}
	defer s.close()
	require.NoError(t, s.prepare(t.TempDir()))
	var g errgroup.Group
	for w := range 4 {
		g.Go(func() error {
			for n := w; n < pieces; n += 4 {
				if err := s.write(Entry{N: int64(n), Count: 1}, bytes.Repeat([]byte{byte(n + 1)}, PieceSize)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	require.NoError(t, g.Wait())
	require.LessOrEqual(t, resident(t, f, s.Size), int64(behindLen+4*PieceSize))
	got := make([]byte, PieceSize)
	for n := range pieces {
		_, err := f.ReadAt(got, int64(n)*PieceSize)
		require.NoError(t, err)
		require.True(t, bytes.Equal(bytes.Repeat([]byte{byte(n + 1)}, PieceSize), got), "piece %d", n)
	}
}

// resident is how many bytes of f are in the page cache.
func resident(t *testing.T, f *os.File, size int64) (n int64) {
	m, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	require.NoError(t, err)
	defer unix.Munmap(m)
	in := make([]byte, size/4096)
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&m[0])), uintptr(size), uintptr(unsafe.Pointer(&in[0])))
	require.Zero(t, errno)
	for _, b := range in {
		n += int64(b&1) * 4096
	}
	return n
}
