package transfer

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Whole pieces go past the page cache, what is left of a file cannot; both are
// read back as they were written, also where one replaces the other.
func TestDirectWrites(t *testing.T) {
	f, err := os.OpenFile(filepath.Join(t.TempDir(), "stage"), os.O_RDWR|os.O_CREATE, 0o600)
	require.NoError(t, err)
	s := &stage{f: f, direct: openDirect(f)}
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
