package transfer_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gantry/api"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

// sub asks x for the parts of pieces and returns their values, proved.
func sub(t testing.TB, x *transfer.Export, size int64, pieces ...int64) map[int64][]transfer.Value {
	t.Helper()
	rc, err := direct{x}.Sub(context.Background(), pieces)
	require.NoError(t, err)
	defer rc.Close()
	got := map[int64][]transfer.Value{}
	require.NoError(t, transfer.ReadSub(rc, pieces, size, func(n int64, values []transfer.Value) error {
		got[n] = values
		return nil
	}))
	return got
}

// TestSubCombines: the values of the parts combine to the value of the piece,
// at every length and with the root flag where the file is one piece.
func TestSubCombines(t *testing.T) {
	for _, size := range sizes[1:] {
		data := content(1, size)
		x := export(t, data)
		pieces := transfer.Pieces(int64(size))
		n := pieces - 1
		last := data[n*piece:]
		values := sub(t, x, int64(size), n)[n]
		require.Len(t, values, (len(last)+transfer.PartSize-1)/transfer.PartSize)
		require.Equal(t, transfer.HashPiece(last, n, pieces == 1), transfer.CombineParts(values, pieces == 1), "%d bytes", size)
		if len(values) > 1 {
			other := append([]byte(nil), last...)
			other[transfer.PartSize] ^= 1
			require.NotEqual(t, values[1], transfer.PartValues(other, n, pieces == 1)[1])
			require.Equal(t, values[0], transfer.PartValues(other, n, pieces == 1)[0])
		}
	}
}

func TestSubRefuses(t *testing.T) {
	x := export(t, content(1, 3*piece))
	for _, bad := range [][]int64{nil, {-1}, {3}, {1, 1}, {2, 1}, make([]int64, api.MaxSub+1)} {
		requireCode(t, api.BadRange, x.Sub(context.Background(), bad, io.Discard))
	}
}

// TestSubOfAChangedSource: what is read otherwise than before is never passed
// off as the source of the manifest.
func TestSubOfAChangedSource(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "src")
	require.NoError(t, os.WriteFile(path, content(1, 2*piece), 0o600))
	x := exportFile(t, dir, "src")
	require.NoError(t, x.Window(context.Background(), 0, 2, 0, io.Discard))
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("x"), piece)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	requireCode(t, api.SourceChanged, x.Sub(context.Background(), []int64{1}, io.Discard))
}

// TestSubReplies: no reply that is cut, out of order or of other lengths passes.
func TestSubReplies(t *testing.T) {
	const size = piece + transfer.PartSize + 1
	x := export(t, content(1, size))
	var b strings.Builder
	require.NoError(t, x.Sub(context.Background(), []int64{0, 1}, &b))
	read := func(s string) error {
		return transfer.ReadSub(strings.NewReader(s), []int64{0, 1}, size, func(int64, []transfer.Value) error { return nil })
	}
	whole := b.String()
	require.NoError(t, read(whole))
	for cut := 0; cut < len(whole); cut += 7 {
		require.ErrorIs(t, read(whole[:cut]), io.ErrUnexpectedEOF, "cut at %d", cut)
	}
	lines := strings.SplitAfter(whole, "\n")
	for name, s := range map[string]string{
		"two of one piece": lines[0] + lines[1] + lines[1] + lines[3],
		"other order":      lines[0] + lines[2] + lines[1] + lines[3],
		"a piece less":     lines[0] + lines[1] + lines[3],
		"values too few":   lines[0] + strings.Replace(lines[1], `"values":"`, `"values":"AAAA`, 1) + lines[2] + lines[3],
		"no base64":        lines[0] + strings.Replace(lines[1], `"values":"`, `"values":"*`, 1) + lines[2] + lines[3],
		"other end":        lines[0] + lines[1] + lines[2] + string(transfer.WindowBytes(3)),
		"bytes after":      whole + " ",
		"a piece line":     lines[0] + piece0,
	} {
		requireCode(t, api.BadManifest, read(s))
		_ = name
	}
	requireCode(t, api.SourceChanged, read(strings.Replace(whole, "4259841", "4259842", 1)))
	requireCode(t, api.SourceChanged, read(lines[0]+`{"kind":"error","code":"source_changed","message":"m","retryable":true}`+"\n"))
}

// FuzzSub: whatever comes, what passes has the right numbers of values.
func FuzzSub(f *testing.F) {
	const size = piece + 3*transfer.PartSize - 1
	f.Fuzz(func(t *testing.T, b string) {
		next := int64(0)
		err := transfer.ReadSub(strings.NewReader(b), []int64{0, 1}, size, func(n int64, values []transfer.Value) error {
			require.Equal(t, next, n)
			require.Len(t, values, []int{64, 3}[n])
			next++
			return nil
		})
		if err == nil {
			require.EqualValues(t, 2, next)
		}
	})
}
