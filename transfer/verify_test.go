package transfer_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gantry/api"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// fileSide exports data; the exporter lives as long as the test.
func fileSide(t *testing.T, data []byte) transfer.Source {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "f"), data, 0o600))
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	x, err := transfer.OpenExport(root, "f", t.TempDir(), transfer.Silent{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, x.Close()); root.Close() })
	return transfer.Here(x)
}

func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(b)
	return b
}

func TestVerifyFiles(t *testing.T) {
	const piece = transfer.PieceSize
	data := append(noise(2*piece), make([]byte, 4*piece)...) // two of noise, four of zeros
	data = append(data, noise(piece/2)...)
	edit := func(at ...int) []byte {
		b := append([]byte(nil), data...)
		for _, i := range at {
			b[i] ^= 1
		}
		return b
	}
	for name, c := range map[string]struct {
		a, b []byte
		want []api.Range
	}{
		"equal":           {data, edit(), nil},
		"empty":           {nil, nil, nil},
		"one byte":        {data, edit(piece), []api.Range{{At: piece, Len: piece}}},
		"neighbours":      {data, edit(0, piece), []api.Range{{At: 0, Len: 2 * piece}}},
		"within zeros":    {data, edit(4 * piece), []api.Range{{At: 4 * piece, Len: piece}}},
		"the last, short": {data, edit(len(data) - 1), []api.Range{{At: 6 * piece, Len: piece / 2}}},
		"b is longer":     {data[:2*piece], data, []api.Range{{At: 2 * piece, Len: 4*piece + piece/2}}},
		"a is longer":     {data, data[:len(data)-1], []api.Range{{At: 6 * piece, Len: piece / 2}}},
		"b is empty":      {data[:5], nil, []api.Range{{At: 0, Len: 5}}},
	} {
		t.Run(name, func(t *testing.T) {
			v := transfer.Verify{A: fileSide(t, c.a), B: fileSide(t, c.b), NameA: "a", NameB: "b"}
			r, err := v.Run(t.Context())
			require.NoError(t, err)
			require.Equal(t, c.want, r.Ranges)
			require.Equal(t, c.want == nil, r.Equal)
			require.EqualValues(t, len(c.a), r.A.Size)
			require.EqualValues(t, len(c.b), r.B.Size)
		})
	}
}

// treeSide exports the directory dir.
func treeSide(t *testing.T, dir string) transfer.Source {
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	x, err := transfer.OpenTree(root, "", t.TempDir(), transfer.TreeOptions{Special: true}, transfer.Silent{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, x.Close()); root.Close() })
	return transfer.Here(x)
}

func TestVerifyTrees(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	when := time.Date(2026, 11, 20, 21, 31, 4, 5, time.UTC)
	both := func(edit func(dir string)) { edit(a); edit(b) }
	write := func(dir, name string, data []byte) {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, data, 0o644))
		require.NoError(t, os.Chtimes(path, when, when))
	}
	both(func(dir string) {
		for _, name := range []string{"same", "d/content", "d/mode", "d/mtime", "type", "z"} {
			write(dir, name, []byte(name))
		}
		write(dir, "big", noise(transfer.PieceSize+5))
		require.NoError(t, os.Symlink("x", filepath.Join(dir, "link")))
	})
	settle := func() {
		both(func(dir string) {
			require.NoError(t, os.Chtimes(filepath.Join(dir, "d"), when, when))
			ts := unix.NsecToTimespec(when.UnixNano())
			require.NoError(t, unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(dir, "link"), []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
		})
	}
	compare := func() api.VerifyResult {
		settle()
		v := transfer.Verify{A: treeSide(t, a), B: treeSide(t, b), NameA: "a", NameB: "b"}
		r, err := v.Run(t.Context())
		require.NoError(t, err)
		return r
	}
	r := compare()
	require.Empty(t, r.Differences)
	require.True(t, r.Equal)
	require.EqualValues(t, 9, r.Entries)

	write(b, "d/content", []byte("CONTENT"))
	big := noise(transfer.PieceSize + 5)
	big[transfer.PieceSize] ^= 1
	write(b, "big", big)
	require.NoError(t, os.Chmod(filepath.Join(b, "d/mode"), 0o600))
	require.NoError(t, os.Chtimes(filepath.Join(b, "d/mtime"), when, when.Add(1)))
	require.NoError(t, os.Remove(filepath.Join(b, "type")))
	require.NoError(t, os.Mkdir(filepath.Join(b, "type"), 0o755))
	write(a, "d/here", nil)
	write(b, "d.there", nil)
	require.NoError(t, os.Remove(filepath.Join(b, "link")))
	require.NoError(t, os.Symlink("y", filepath.Join(b, "link")))
	r = compare()
	require.False(t, r.Equal)
	got := map[string]string{}
	for _, d := range r.Differences {
		require.Len(t, d.What, 1, d.Path)
		got[d.Path] = d.What[0]
	}
	require.Equal(t, map[string]string{
		"big": "content", "d/content": "content", "d/mode": "mode", "d/mtime": "mtime", "type": "type",
		"d/here": "only_a", "d.there": "only_b", "link": "target",
	}, got)
	require.Equal(t, api.Differences{Content: 2, Mode: 1, MTime: 1, Type: 1, Target: 1, OnlyA: 1, OnlyB: 1}, *r.Counts)

	v := transfer.Verify{A: treeSide(t, a), B: fileSide(t, nil), NameA: "a", NameB: "b"}
	_, err := v.Run(t.Context())
	require.ErrorContains(t, err, "a is a tree and b is a file")
}
