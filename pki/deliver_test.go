package pki_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"gantry/pki"
)

func TestDeliver(t *testing.T) {
	a := newAuthority(t, "demo")
	dir := filepath.Join(t.TempDir(), "new", "folder")
	first, err := a.Issue(pki.RoleNode, "alpha", nil, 0)
	require.NoError(t, err)
	require.NoError(t, pki.CheckDelivery(dir, false))
	require.NoError(t, a.Deliver(first, dir, false))
	id, err := load(dir)
	require.NoError(t, err, "what is delivered can be loaded")
	require.Equal(t, "spiffe://demo/node/alpha", id.ID.String())
	store, err := pki.OpenCRLStore(filepath.Join(dir, "crl.pem"), id.CA)
	require.NoError(t, err)
	require.EqualValues(t, 1, store.Current().Number.Int64())
	for name, mode := range map[string]os.FileMode{"": 0o700, "key.pem": 0o600, "cert.pem": 0o644} {
		info, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, mode, info.Mode().Perm(), name)
	}

	second, err := a.Issue(pki.RoleNode, "alpha", nil, 0)
	require.NoError(t, err)
	err = a.Deliver(second, dir, false)
	require.ErrorContains(t, err, "key.pem is there already")
	kept, err := os.ReadFile(filepath.Join(dir, "key.pem"))
	require.NoError(t, err)
	require.Equal(t, first.KeyPEM, kept)
	require.NoError(t, a.Deliver(second, dir, true))
	_, err = load(dir)
	require.NoError(t, err)
}
