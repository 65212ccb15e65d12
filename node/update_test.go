package node_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"gantry/api"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

// copyOver copies vm1.img from alpha to beta with more arguments.
func (w *world) copyOver(change func(*api.ImportArgs)) api.ImportResult {
	export, args := w.pair("vm1.img")
	change(&args)
	exported := w.all["alpha"].follow("ann", export)
	rec, err := w.all["beta"].run("ann", newRequest(api.OpImport, args))
	result := resultOf[api.ImportResult](w.t, rec, err)
	require.Equal(w.t, result.Digest, resultOf[api.ExportResult](w.t, <-exported, nil).Digest)
	return result
}

// TestTrustMTime: a file that was read once and has settled is not read again,
// and a full digest forgets what was recorded.
func TestTrustMTime(t *testing.T) {
	w := newWorld(t, "", "alpha")
	alpha := w.all["alpha"].start()
	data := alpha.file("disks/vm1.img", 5<<20, 1)
	carried := func() int64 {
		export, _ := w.pair("vm1.img")
		args := api.ExportArgs{File: api.File{Resource: "disks", Path: "vm1.img"}, TrustMTime: true}
		export.Args = api.Encode(args)
		final := alpha.follow("ann", export)
		require.Equal(t, 200, alpha.ask("ann", "GET", "/tasks/"+export.ID+"/manifest?from=0&n=64", nil, "").status)
		err := alpha.as("ann").Finish(t.Context(), export.ID, "", digest(data))
		require.NoError(t, err)
		return resultOf[api.ExportResult](t, <-final, nil).Carried
	}
	require.Zero(t, carried())
	require.Eventually(t, func() bool { return carried() == int64(len(data)) }, 30*time.Second, 250*time.Millisecond)
	full := api.DigestArgs{File: api.File{Resource: "disks", Path: "vm1.img"}, Full: true}
	rec, err := alpha.run("ann", newRequest(api.OpDigest, full))
	require.Equal(t, digest(data), resultOf[api.DigestResult](t, rec, err).Digest)
	require.Equal(t, int64(len(data)), carried())
	data = alpha.file("disks/vm1.img", 5<<20, 2)
	require.Zero(t, carried())
}

// TestUpdateBetweenTwoNodes: parts and frames over a real front, the old copy
// kept, and a dry run before it.
func TestUpdateBetweenTwoNodes(t *testing.T) {
	w := newWorld(t, "", "alpha", "beta")
	alpha, beta := w.all["alpha"].start(), w.all["beta"].start()
	old := alpha.file("disks/vm1.img", 20<<20, 1)
	update := func(a *api.ImportArgs) { a.Mode = api.ModeUpdate }
	require.Equal(t, api.TargetCreated, w.copyOver(update).Target)

	data := append([]byte(nil), old...)
	for _, at := range []int{0, 9 << 20, 20<<20 - 1} {
		data[at] ^= 1
	}
	require.NoError(t, os.WriteFile(filepath.Join(alpha.dir, "disks/vm1.img"), data, 0o644))
	dry := w.copyOver(func(a *api.ImportArgs) { a.Mode, a.DryRun = api.ModeUpdate, true })
	require.True(t, dry.DryRun)
	require.EqualValues(t, 3*transfer.PartSize, dry.Bytes.Fetched)
	have := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(beta.dir, "disks", name))
		require.NoError(t, err)
		return b
	}
	require.Equal(t, digest(old), digest(have("vm1.img")))

	result := w.copyOver(func(a *api.ImportArgs) { a.Mode, a.KeepOld = api.ModeUpdate, true })
	require.Equal(t, dry.Bytes.Fetched, result.Bytes.Fetched)
	require.Less(t, result.Wire, int64(4*transfer.PartSize))
	require.Equal(t, digest(data), result.Digest)
	require.Equal(t, digest(data), digest(have("vm1.img")))
	require.NotEmpty(t, result.Old)
	require.Equal(t, digest(old), digest(have(result.Old)))
}
