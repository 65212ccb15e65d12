package pki_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/pki"
)

// stored is an identity's files in a folder.
func (a authority) stored(t testing.TB, role, name string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	leaf, err := a.Issue(role, name, nil, 0)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "ca.pem"), a.CertPEM(), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "cert.pem"), leaf.CertPEM, 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "key.pem"), leaf.KeyPEM, 0o600))
	return dir
}

func load(dir string) (*pki.Identity, error) {
	return pki.LoadIdentity(filepath.Join(dir, "ca.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
}

func (a authority) identity(t testing.TB, role, name string) *pki.Identity {
	t.Helper()
	id, err := load(a.stored(t, role, name))
	require.NoError(t, err)
	return id
}

func TestKeyFiles(t *testing.T) {
	a := newAuthority(t, "demo")
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o666} {
		t.Run(fmt.Sprintf("H125 mode %04o", mode), func(t *testing.T) {
			dir := a.stored(t, pki.RoleNode, "alpha")
			path := filepath.Join(dir, "key.pem")
			require.NoError(t, os.Chmod(path, mode))
			_, err := load(dir)
			require.ErrorContains(t, err, fmt.Sprintf("(mode %04o); run: chmod 600 %s", mode, path))
			require.NoError(t, os.Chmod(path, 0o600))
			_, err = load(dir)
			require.NoError(t, err, "the remedy does not help")
		})
	}
	t.Run("H125 the CA's key", func(t *testing.T) {
		require.NoError(t, os.Chmod(filepath.Join(a.dir, pki.KeyFile), 0o640))
		_, err := pki.OpenCA(a.dir, pki.Options{})
		require.ErrorContains(t, err, "run: chmod 600")
		require.NoError(t, os.Chmod(filepath.Join(a.dir, pki.KeyFile), 0o600))
	})
	t.Run("H125 not ours", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("needs root to give a file away")
		}
		dir := a.stored(t, pki.RoleNode, "alpha")
		path := filepath.Join(dir, "key.pem")
		require.NoError(t, os.Chown(path, 58260, 58260))
		_, err := load(dir)
		require.ErrorContains(t, err, "belongs to uid 58260 and is read by nobody else, this program runs as root; run it as that user: setpriv --reuid 58260")
		require.NoError(t, os.Chown(path, 1, 1))
		_, err = load(dir)
		require.ErrorContains(t, err, "belongs to uid 1 (daemon) and is read by nobody else, this program runs as root; run it as that user: runuser -u daemon -- COMMAND")
	})
	t.Run("H125 a FIFO does not block", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "key.pem")
		require.NoError(t, syscall.Mkfifo(path, 0o600))
		_, err := pki.ReadSecret(path)
		require.ErrorContains(t, err, "is not a regular file")
	})
	t.Run("H125 too long", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "key.pem")
		require.NoError(t, os.WriteFile(path, make([]byte, pki.MaxPEM+1), 0o600))
		_, err := pki.ReadSecret(path)
		require.ErrorContains(t, err, "is longer than 16384 bytes")
	})
}

func TestIdentityBelongsTogether(t *testing.T) {
	a, other := newAuthority(t, "demo"), newAuthority(t, "demo")
	edKey := func() []byte {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		require.NoError(t, err)
		der, err := x509.MarshalPKCS8PrivateKey(key)
		require.NoError(t, err)
		return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	}
	p384 := func() []byte {
		key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		require.NoError(t, err)
		der, err := x509.MarshalPKCS8PrivateKey(key)
		require.NoError(t, err)
		return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	}
	foreign, err := other.Issue(pki.RoleNode, "alpha", nil, 0)
	require.NoError(t, err)
	for _, c := range []struct {
		name, file string
		data       []byte
		want       string
	}{
		{"H129 empty client CA", "ca.pem", nil, "ca.pem: certificate refused: empty"},
		{"H129 client CA without text", "ca.pem", []byte("\n"), "ca.pem: certificate refused: no PEM block"},
		{"H129 client CA that is no CA", "ca.pem", foreign.CertPEM, "not a CA certificate"},
		{"two CAs", "ca.pem", append(a.CertPEM(), other.CertPEM()...), "more than one PEM block"},
		{"another CA", "ca.pem", other.CertPEM(), "was not signed by"},
		{"a CA as certificate", "cert.pem", a.CertPEM(), "not an end certificate"},
		{"another certificate", "cert.pem", foreign.CertPEM, "was not signed by"},
		{"another key", "key.pem", foreign.KeyPEM, "is not the key of"},
		{"an Ed25519 key", "key.pem", edKey(), "not an ECDSA P-256 key"},
		{"a P-384 key", "key.pem", p384(), "not an ECDSA P-256 key"},
		{"a certificate as key", "key.pem", a.CertPEM(), "not a private key"},
		{"a spoiled key", "key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}), "not a private key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := a.stored(t, pki.RoleNode, "alpha")
			require.NoError(t, os.WriteFile(filepath.Join(dir, c.file), c.data, 0o600))
			_, err := load(dir)
			require.ErrorContains(t, err, c.want)
			require.ErrorContains(t, err, dir, "the error names the file")
		})
	}
	for _, missing := range []string{"ca.pem", "cert.pem", "key.pem"} {
		dir := a.stored(t, pki.RoleNode, "alpha")
		require.NoError(t, os.Remove(filepath.Join(dir, missing)))
		_, err := load(dir)
		require.ErrorIs(t, err, os.ErrNotExist)
	}
}

func TestIdentityWarnsAtAThirdOfItsLife(t *testing.T) {
	a := newAuthority(t, "demo")
	id := a.identity(t, pki.RoleNode, "alpha")
	require.Equal(t, "spiffe://demo/node/alpha", id.ID.String())
	day := 24 * time.Hour
	require.Equal(t, 90*day, id.Remaining(now))
	require.Empty(t, id.Warn(now.Add(59*day)))
	require.Contains(t, id.Warn(now.Add(61*day)), "expires on 2027-02-18T21:00:00Z; renew it: gantry ca issue node alpha")
	require.Contains(t, id.Warn(now.Add(91*day)), "expired on")
}
