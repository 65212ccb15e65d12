package transfer_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gantry/api"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

// age is how old a file has to be for the caches of tests.
const age = time.Millisecond

func openCache(t testing.TB, dir string, limit int64) *transfer.Cache {
	t.Helper()
	c, err := transfer.OpenCache(dir, limit)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c.Settle(age)
}

// aged writes a file whose mtime is no longer new; its ctime is of now, so a test
// that needs it settled waits, see AfterTick.
func aged(t testing.TB, path string, data []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, data, 0o600))
	old := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(path, old, old))
}

// exportWith exports dir/src with the cache and returns its digest and how much
// of it was believed.
func exportWith(t testing.TB, c *transfer.Cache, dir string, trust bool) (string, int64) {
	t.Helper()
	x, err := transfer.ExportOptions{Cache: c, TrustMTime: trust}.Open(openRoot(t, dir), "src", t.TempDir(), transfer.Silent{})
	require.NoError(t, err)
	require.NoError(t, x.Window(context.Background(), 0, api.MaxWindow, 0, io.Discard))
	defer x.Close()
	return x.Digest(), x.Carried()
}

// TestCacheOfExports: values are believed only where somebody asks for it, and
// only of the state that they were recorded in.
func TestCacheOfExports(t *testing.T) {
	c, dir := openCache(t, t.TempDir(), 1<<20), t.TempDir()
	path, data := filepath.Join(dir, "src"), content(1, 2*piece+5)
	aged(t, path, data)
	transfer.AfterTick(t.TempDir(), 2*age)
	want := b3sum(t, path)
	ask := func(trust bool, carried int) {
		t.Helper()
		digest, n := exportWith(t, c, dir, trust)
		require.Equal(t, b3sum(t, path), digest)
		require.EqualValues(t, carried, n)
	}
	ask(true, 0) // nothing is recorded yet
	ask(true, len(data))
	ask(false, 0)

	data[7] ^= 1
	aged(t, path, data) // the same size and mtime do not hide it: ctime differs
	transfer.AfterTick(t.TempDir(), 2*age)
	ask(true, 0)
	ask(true, len(data))
	require.NotEqual(t, want, b3sum(t, path))

	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	_, _, err = c.Digest(context.Background(), f, "src", transfer.Silent{}, true)
	require.NoError(t, err)
	ask(true, len(data)) // dropped, and recorded anew
}

// TestCacheIsRacy: what was written just now is not recorded: another write within
// the same tick would not show.
func TestCacheIsRacy(t *testing.T) {
	c, dir := openCache(t, t.TempDir(), 1<<20).Settle(2*time.Second), t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "src"), content(1, 100), 0o600))
	for range 2 {
		_, n := exportWith(t, c, dir, true)
		require.Zero(t, n)
	}
}

// TestCacheDamaged: an entry with one other bit anywhere, or cut anywhere, is
// ignored.
func TestCacheDamaged(t *testing.T) {
	home, dir := t.TempDir(), t.TempDir()
	c := openCache(t, home, 1<<20)
	aged(t, filepath.Join(dir, "src"), content(1, piece+5))
	transfer.AfterTick(t.TempDir(), 2*age)
	_, _ = exportWith(t, c, dir, true)
	entries, err := filepath.Glob(filepath.Join(home, "*.values"))
	require.NoError(t, err)
	require.Len(t, entries, 1)
	whole, err := os.ReadFile(entries[0])
	require.NoError(t, err)
	r := rand.New(rand.NewPCG(1, 1))
	for range 60 {
		bad := append([]byte(nil), whole...)
		bad[r.IntN(len(bad))] ^= 1 << r.IntN(8)
		if r.IntN(4) == 0 {
			bad = whole[:r.IntN(len(whole))]
		}
		require.NoError(t, os.WriteFile(entries[0], bad, 0o600))
		_, n := exportWith(t, nil, dir, true)
		require.Zero(t, n)
		require.False(t, c.Knows(filepath.Join(dir, "src")))
	}
	require.NoError(t, os.WriteFile(entries[0], whole, 0o600))
	require.True(t, c.Knows(filepath.Join(dir, "src")))
}

// TestCacheBound: the oldest entries go first.
func TestCacheBound(t *testing.T) {
	home, dir := t.TempDir(), t.TempDir()
	c := openCache(t, home, 2000) // three entries of 584 bytes
	for i := range 6 {
		path := filepath.Join(dir, fmt.Sprint(i))
		aged(t, path, []byte{byte(i)})
		transfer.AfterTick(t.TempDir(), 2*age)
		f, err := os.Open(path)
		require.NoError(t, err)
		_, _, err = c.Digest(context.Background(), f, "f", transfer.Silent{}, false)
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	for i := range 6 {
		require.Equal(t, i >= 3, c.Knows(filepath.Join(dir, fmt.Sprint(i))), i)
	}
	big := filepath.Join(dir, "big")
	aged(t, big, nil)
	require.NoError(t, os.Truncate(big, 1<<30))
	f, err := os.Open(big)
	require.NoError(t, err)
	defer f.Close()
	_, _, err = c.Digest(context.Background(), f, "f", transfer.Silent{}, false)
	require.NoError(t, err)
	require.False(t, c.Knows(big))
	require.True(t, c.Knows(filepath.Join(dir, "5")))
	require.NoError(t, os.WriteFile(filepath.Join(home, "new-123"), nil, 0o600))
	openCache(t, home, 2000)
	require.NoFileExists(t, filepath.Join(home, "new-123"))
}

// TestZeroTable: the table changes nothing but the time, also when it is damaged.
func TestZeroTable(t *testing.T) {
	home := t.TempDir()
	c := openCache(t, home, 1<<20)
	path := filepath.Join(t.TempDir(), "sparse")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.NoError(t, os.Truncate(path, 20*piece+5))
	want := b3sum(t, path)
	ask := func() {
		f, err := os.Open(path)
		require.NoError(t, err)
		defer f.Close()
		digest, _, err := c.Digest(context.Background(), f, "f", transfer.Silent{}, false)
		require.NoError(t, err)
		require.Equal(t, want, digest)
	}
	ask()
	ask()
	table := filepath.Join(home, "zeros.v1")
	b, err := os.ReadFile(table)
	require.NoError(t, err)
	require.Len(t, b, 20*40)
	for i := range b {
		if i%3 == 0 {
			b[i] ^= 4
		}
	}
	require.NoError(t, os.WriteFile(table, b, 0o600))
	ask()
	require.NoError(t, c.Close())
	ask()
}

// TestCacheOfImports: what an import published is known, so the next one shares
// it without reading it; what changed since is read and fetched.
func TestCacheOfImports(t *testing.T) {
	g := targetIn(t, loop(t, "xfs"))
	t.Cleanup(func() { g.root.Close() })
	c, dir := openCache(t, t.TempDir(), 1<<20), t.TempDir()
	data := content(1, 8*piece+777)
	copyIt := func(trust bool) api.ImportResult {
		t.Helper()
		aged(t, filepath.Join(dir, "src"), data)
		transfer.AfterTick(t.TempDir(), 2*age)
		x, err := transfer.ExportOptions{Cache: c, TrustMTime: trust}.Open(openRoot(t, dir), "src", t.TempDir(), transfer.Silent{})
		require.NoError(t, err)
		defer x.Close()
		im := (&transfer.Import{Source: direct{x}, Root: g.root, Name: "disk", Task: "task", Dir: t.TempDir(), Mode: api.ModeUpdate, Cache: c, TrustMTime: trust}).Fast()
		res, err := im.Run(context.Background())
		require.NoError(t, err)
		b := res.Bytes
		require.Equal(t, res.Size, b.Fetched+b.Copied+b.Reflinked+b.Hole+b.Carried, "%+v", b)
		g.holds(t, data)
		return res
	}
	require.EqualValues(t, len(data), copyIt(true).Bytes.Fetched)
	data[3*piece] ^= 1
	require.EqualValues(t, 7*piece+777, copyIt(true).Bytes.Carried)
	require.Zero(t, copyIt(false).Bytes.Carried)

	// A target that somebody wrote to is read.
	f, err := os.OpenFile(g.path(), os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("x"), 5*piece)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	res := copyIt(true)
	require.Zero(t, res.Bytes.Carried)
	require.EqualValues(t, transfer.PartSize, res.Bytes.Fetched)
}
