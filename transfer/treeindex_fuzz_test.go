package transfer

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// FuzzTreeIndex damages the index of a tree that has not changed: bytes at a place
// are changed, the end is cut off or something is put behind it. What is not byte
// for byte what was written is never believed.
func FuzzTreeIndex(f *testing.F) {
	dir := f.TempDir()
	tree, index := filepath.Join(dir, "tree"), filepath.Join(dir, "index")
	require.NoError(f, os.MkdirAll(filepath.Join(tree, "a/b"), 0o755))
	require.NoError(f, os.WriteFile(filepath.Join(tree, "a/b/c"), []byte("c"), 0o644))
	require.NoError(f, os.WriteFile(filepath.Join(tree, "d"), nil, 0o644))
	require.NoError(f, os.Symlink("d", filepath.Join(tree, "e")))
	root, err := unix.Open(tree, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	require.NoError(f, err)
	f.Cleanup(func() { unix.Close(root) })
	write := func(before time.Time, kind string, spoil bool) []byte {
		top, err := identify(root, "")
		require.NoError(f, err)
		x := newIndex(index+".new", "rules", top, before)
		for _, e := range []struct {
			path string
			t    TreeType
		}{{"a", TreeDir}, {"a/b", TreeDir}, {"a/b/c", TreeFile}, {"d", TreeFile}, {"e", TreeSymlink}} {
			id, err := identify(root, e.path)
			require.NoError(f, err)
			x.line(kind, []byte(e.path+"\n"))
			x.entry(e.path, e.t, &id)
		}
		if spoil {
			x.spoil()
		}
		x.end(index, FormatDigest(Value{}), 1)
		data, err := os.ReadFile(index)
		if os.IsNotExist(err) {
			return nil
		}
		require.NoError(f, err)
		require.NoError(f, os.Remove(index))
		return data
	}
	soon := time.Now().Add(time.Hour)
	require.Nil(f, write(time.Unix(1, 0), "entry", false), "an entry was changed since")
	require.Nil(f, write(soon, TreeKindSkipped, false), "something was skipped")
	require.Nil(f, write(soon, "entry", true), "it was spoilt")
	good := write(soon, "entry", false)
	require.NotNil(f, good)

	f.Fuzz(func(t *testing.T, at uint16, change []byte, cut uint16, behind []byte) {
		data := bytes.Clone(good)
		for i, c := range change {
			if k := int(at) + i; k < len(data) {
				data[k] ^= c
			}
		}
		data = append(data[:max(0, len(data)-int(cut))], behind...)
		require.NoError(t, os.WriteFile(index, data, 0o600))
		require.Nil(t, openIndex(index, "other rules"))
		k := openIndex(index, "rules")
		if k == nil {
			require.NotEqual(t, good, data)
			return
		}
		defer k.close()
		require.EqualValues(t, 5, k.head.total())
		require.Equal(t, bytes.Equal(good, data), k.holds(context.Background(), root, func() error { return nil }))
	})
}
