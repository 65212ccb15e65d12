package transfer_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"gantry/api"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

// carriedBy exports dir and returns the manifest's digest and how many bytes were not read again.
func carriedBy(t *testing.T, dir string, o transfer.TreeOptions) (digest string, carried int64) {
	t.Helper()
	x := tree(t, dir, t.TempDir(), o)
	_, w := manifest(t, x, new(transfer.TreeCursor), 1000)
	require.NoError(t, x.Close())
	return w.Digest, x.Carried()
}

func TestTreeKnown(t *testing.T) {
	transfer.RacyTime(t, -1) // nothing is too new
	dir, o := nasty(t), transfer.TreeOptions{Known: filepath.Join(t.TempDir(), "known", "tree")}
	first, carried := carriedBy(t, dir, o)
	require.Zero(t, carried)
	again, carried := carriedBy(t, dir, o)
	require.Equal(t, first, again)
	size := shell(t, dir, `find . -type f -not -path '*.gantry*' -not -name $'bad*' -not -name inside -printf '%i %s\n' | sort -u | awk '{n += $2} END {printf "%d", n}'`)
	require.Equal(t, size, fmt.Sprint(carried))

	// What changed is read, whatever its size and mtime say.
	before, err := os.Stat(filepath.Join(dir, "exact"))
	require.NoError(t, err)
	shell(t, dir, `printf x | dd of=exact conv=notrunc status=none; printf x | dd of=large conv=notrunc seek=5 status=none; touch -r a exact; rm a/one; mv a/b/c/data a/b/c/other`)
	require.NoError(t, os.Chtimes(filepath.Join(dir, "exact"), before.ModTime(), before.ModTime()))
	fresh, carried := carriedBy(t, dir, transfer.TreeOptions{})
	require.Zero(t, carried)
	got, carried := carriedBy(t, dir, o)
	require.Equal(t, fresh, got)
	require.NotEqual(t, first, got)
	require.NotZero(t, carried)
	o.Checksum = true
	got, carried = carriedBy(t, dir, o)
	require.Equal(t, fresh, got)
	require.Zero(t, carried)
	o.Checksum, o.Filter = false, []string{"- exact"}
	_, carried = carriedBy(t, dir, o)
	require.Zero(t, carried, "another choice is another tree")
}

// TestTreeKnownDamaged: whatever happened to what is remembered, the manifest is that of the files.
func TestTreeKnownDamaged(t *testing.T) {
	transfer.RacyTime(t, -1)
	dir := t.TempDir()
	shell(t, dir, `for i in $(seq 30); do echo $i > f$i; done; head -c 9000000 /dev/urandom > large; truncate -s 9000000 sparse`)
	o := transfer.TreeOptions{Known: filepath.Join(t.TempDir(), "tree")}
	want, _ := carriedBy(t, dir, o)
	saved := map[string][]byte{}
	for _, name := range []string{".lines", ".files"} {
		data, err := os.ReadFile(o.Known + name)
		require.NoError(t, err)
		saved[name] = data
	}
	for name, data := range saved {
		for at := 7; at < len(data); at += len(data)/12 + 1 {
			for other := range saved {
				require.NoError(t, os.Remove(o.Known+other))
				require.NoError(t, os.WriteFile(o.Known+other, saved[other], 0o600))
			}
			bad := append([]byte{}, data...)
			if bad[at] ^= 1; at%2 == 0 {
				bad = bad[:at]
			}
			require.NoError(t, os.WriteFile(o.Known+name, bad, 0o600))
			got, _ := carriedBy(t, dir, o)
			if got != want { // the values of large are damaged: that is found, and it is dropped once
				got, _ = carriedBy(t, dir, o)
			}
			require.Equal(t, want, got, "%s at %d", name, at)
		}
	}
}

// TestTreeKnownRacy: a file that is written to twice within the resolution of its times is read.
func TestTreeKnownRacy(t *testing.T) {
	dir, o := t.TempDir(), transfer.TreeOptions{Known: filepath.Join(t.TempDir(), "tree")}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "new"), []byte("one"), 0o600))
	carriedBy(t, dir, o)
	_, carried := carriedBy(t, dir, o)
	require.Zero(t, carried)
}

// exported is a Source that calls a TreeExport, through a pipe as over a network.
type exported struct{ x *transfer.TreeExport }

func (s exported) Window(ctx context.Context, from, n, done int64) (io.ReadCloser, error) {
	return pipe(func(w io.Writer) error { return s.x.Window(ctx, from, n, done, w) }), nil
}

func (s exported) Content(ctx context.Context, off, length int64) (io.ReadCloser, error) {
	return s.x.Content(ctx, off, length)
}

func (s exported) Rehash(ctx context.Context, n int64) (io.ReadCloser, error) {
	return pipe(func(w io.Writer) error { return s.x.Rehash(ctx, n, w) }), nil
}

func (s exported) Sub(context.Context, []int64) (io.ReadCloser, error) {
	return nil, api.BadRequest.Err("no parts")
}

func (s exported) Frames(ctx context.Context, ranges []transfer.Range, compress bool) (io.ReadCloser, error) {
	return pipe(func(w io.Writer) error { return transfer.WriteFrames(ctx, s.x, ranges, compress, w) }), nil
}
