package transfer

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A buffer begins where a large page does, has room for a piece, and is nobody's
// after it was given back.
func TestPieceBuffer(t *testing.T) {
	for range 8 {
		buf, free := pieceBuffer()
		require.Len(t, buf, PieceSize)
		require.Equal(t, PieceSize, cap(buf), "an append must not reach what lies behind")
		require.True(t, aligned(buf))
		buf[0], buf[len(buf)-1] = 1, 1
		free()
	}
}

// The values of an old piece are those of its bytes, however much of it is in
// memory, and also where the old copy ends in it.
func TestOldValues(t *testing.T) {
	data := make([]byte, 2*PieceSize+3*PartSize+777)
	rand.NewChaCha8([32]byte{7}).Read(data)
	f, err := os.OpenFile(filepath.Join(t.TempDir(), "old"), os.O_RDWR|os.O_CREATE, 0o600)
	require.NoError(t, err)
	_, err = f.Write(data)
	require.NoError(t, err)
	require.NoError(t, f.Sync())
	o := &oldCopy{f: f, direct: openDirect(f, unix.O_RDONLY), size: int64(len(data))}
	defer o.close()
	buf, free := pieceBuffer()
	defer free()
	for _, longer := range []int64{0, PartSize + 5} { // the new file may be
		size := o.size + longer
		for _, dropped := range [][2]int64{{0, 0}, {0, size}, {3 * PieceSize / 4, PieceSize}, {2 * PieceSize, size}} {
			_, err = f.ReadAt(make([]byte, len(data)), 0)
			require.NoError(t, err)
			require.NoError(t, unix.Fadvise(int(f.Fd()), dropped[0], dropped[1]-dropped[0]+1, unix.FADV_DONTNEED))
			for n := range Pieces(size) {
				p := part{Entry: Entry{N: n, Count: 1}, size: size}
				want := make([]byte, p.len())
				copy(want, data[p.off():])
				var h, plain partHasher
				values, ok, err := o.values(p, buf[:p.len()], &h)
				require.NoError(t, err)
				require.True(t, ok)
				require.Equal(t, want, buf[:p.len()], "piece %d", n)
				require.Equal(t, plain.values(nil, want, n, false), values, "piece %d, dropped %v", n, dropped)
				require.Equal(t, HashPiece(want, n, false), combineParts(values, false))
			}
		}
	}
}
