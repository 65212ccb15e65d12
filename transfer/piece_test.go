package transfer_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

var sizes = []int{
	0, 1, 1023, 1024, 1025, 16<<10 - 1, 16 << 10, 16<<10 + 1, 17 << 10, 64<<10 - 1, 64 << 10, 64<<10 + 1,
	4<<20 - 1, 4 << 20, 4<<20 + 1, 8 << 20, 12<<20 + 1, 13<<20 + 777, 100<<20 + 5,
}

// TestDigestIsB3sum compares with a program that shares no code with ours.
func TestDigestIsB3sum(t *testing.T) {
	dir := t.TempDir()
	for _, size := range sizes {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			path := filepath.Join(dir, "f")
			data := content(1, size)
			require.NoError(t, os.WriteFile(path, data, 0o600))
			want := b3sum(t, path)

			var tree transfer.Tree
			whole := transfer.Pieces(int64(size)) == 1
			for n := range transfer.Pieces(int64(size)) {
				off := n * piece
				tree.Add(transfer.HashPiece(data[off:off+transfer.PieceLen(n, int64(size))], n, whole))
			}
			require.Equal(t, want, transfer.FormatDigest(tree.Root()))

			f, err := os.Open(path)
			require.NoError(t, err)
			defer f.Close()
			got, n, err := (*transfer.Cache)(nil).Digest(context.Background(), f, "f", transfer.Silent{}, false)
			require.NoError(t, err)
			require.Equal(t, want, got)
			require.EqualValues(t, size, n)
		})
	}
}

// TestZeroValue: the value of a zero piece is that of its bytes, and differs by
// offset.
func TestZeroValue(t *testing.T) {
	for _, length := range []int{0, 1, 1024, 16 << 10, 16<<10 + 1, 40000, piece - 1, piece} {
		for _, index := range []int64{0, 1, 77} {
			whole := index == 0
			require.Equal(t, transfer.HashPiece(make([]byte, length), index, whole), transfer.ZeroValue(index, int64(length), whole), "%d bytes at piece %d", length, index)
		}
	}
	require.NotEqual(t, transfer.ZeroValue(1, piece, false), transfer.ZeroValue(2, piece, false))
}

func TestParseDigest(t *testing.T) {
	root := transfer.HashPiece([]byte("x"), 0, true)
	got, ok := transfer.ParseDigest(transfer.FormatDigest(root))
	require.True(t, ok)
	require.Equal(t, root, got)
	for _, bad := range []string{"", "b3:", "b3:zz", "B3:" + root.String(), "b3:" + root.String() + "0", "b3:" + "A" + root.String()[1:], "sha256:" + root.String()} {
		_, ok := transfer.ParseDigest(bad)
		require.False(t, ok, bad)
	}
}

// BenchmarkHashPiece is the cost of one core per piece.
func BenchmarkHashPiece(b *testing.B) {
	data := content(1, piece)
	b.SetBytes(piece)
	for b.Loop() {
		transfer.HashPiece(data, 3, false)
	}
}

func BenchmarkZeroValue(b *testing.B) {
	b.SetBytes(piece)
	for b.Loop() {
		transfer.ZeroValue(3, piece, false)
	}
}
