package pki_test

import (
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/pki"
)

// handshake runs one between the two configurations and returns both ends'
// errors. In TLS 1.3 a client finishes before the server has judged it, so a
// byte goes each way.
func handshake(t *testing.T, client, server *tls.Config) (state tls.ConnectionState, clientErr, serverErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		raw, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		defer raw.Close()
		raw.SetDeadline(time.Now().Add(10 * time.Second))
		done <- echo(tls.Server(raw, server))
	}()
	raw, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	defer raw.Close()
	require.NoError(t, raw.SetDeadline(time.Now().Add(10*time.Second)))
	c := tls.Client(raw, client)
	clientErr = greet(c)
	state = c.ConnectionState()
	raw.Close()
	return state, clientErr, <-done
}

func echo(c *tls.Conn) error {
	var b [1]byte
	if _, err := c.Read(b[:]); err != nil {
		return err
	}
	_, err := c.Write(b[:])
	return err
}

func greet(c *tls.Conn) error {
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	_, err := c.Read(make([]byte, 1))
	return err
}

// live is an authority with today's date: crypto/tls asks the real clock.
func live(t *testing.T, cluster string) authority {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "ca")
	ca, err := pki.InitCA(dir, cluster, pki.Options{})
	require.NoError(t, err)
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, pki.CertFile), filepath.Join(dir, pki.KeyFile))
	require.NoError(t, err)
	return authority{ca, dir, pair.PrivateKey.(crypto.Signer)}
}

func TestTLSBetweenClientAndFront(t *testing.T) {
	a := live(t, "demo")
	front := a.identity(t, pki.RoleFront, "alpha")
	ann := a.identity(t, pki.RoleOperator, "ann")
	pin := pki.Pin(front.Cert.Leaf)
	require.Regexp(t, "^sha256:[0-9a-f]{64}$", pin)
	strangers := "sha256:" + strings.Repeat("0", 64)

	for name, pins := range map[string][]string{"no pins": nil, "its pin": {pin}, "one of several": {strangers, pin}} {
		t.Run(name, func(t *testing.T) {
			client := pki.ClientTLS(ann, "alpha", pins)
			// A cache that somebody adds must stay empty: no tickets.
			client.ClientSessionCache = tls.NewLRUClientSessionCache(4)
			for range 2 {
				state, clientErr, serverErr := handshake(t, client, pki.ServerTLS(front))
				require.NoError(t, clientErr)
				require.NoError(t, serverErr)
				require.EqualValues(t, tls.VersionTLS13, state.Version)
				require.False(t, state.DidResume, "G120 a session must not be resumed")
				require.Equal(t, "http/1.1", state.NegotiatedProtocol)
			}
		})
	}
	t.Run("G107 right CA, other fingerprint", func(t *testing.T) {
		_, err, _ := handshake(t, pki.ClientTLS(ann, "alpha", []string{strangers}), pki.ServerTLS(front))
		requireCode(t, err, pki.CodePin, pin+" is not pinned")
	})
	t.Run("another node's front", func(t *testing.T) {
		beta := a.identity(t, pki.RoleFront, "beta")
		_, err, _ := handshake(t, pki.ClientTLS(ann, "alpha", nil), pki.ServerTLS(beta))
		require.ErrorContains(t, err, "certificate is valid for beta, not alpha")
	})
	t.Run("a front with our name among its hosts", func(t *testing.T) {
		dir := a.stored(t, pki.RoleFront, "beta")
		leaf, err := a.Issue(pki.RoleFront, "beta", []string{"alpha"}, 0)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "cert.pem"), leaf.CertPEM, 0o644))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "key.pem"), leaf.KeyPEM, 0o600))
		beta, err := load(dir)
		require.NoError(t, err)
		_, err, _ = handshake(t, pki.ClientTLS(ann, "alpha", nil), pki.ServerTLS(beta))
		requireCode(t, err, pki.CodeServer, "belongs to spiffe://demo/front/beta, expected spiffe://demo/front/alpha")
	})
	t.Run("a client certificate in a front's place", func(t *testing.T) {
		node := a.identity(t, pki.RoleNode, "alpha")
		_, err, _ := handshake(t, pki.ClientTLS(ann, "alpha", nil), pki.ServerTLS(node))
		require.Error(t, err)
	})
	t.Run("another CA of that name", func(t *testing.T) {
		other := live(t, "demo").identity(t, pki.RoleFront, "alpha")
		_, err, _ := handshake(t, pki.ClientTLS(ann, "alpha", nil), pki.ServerTLS(other))
		var unknown *tls.CertificateVerificationError
		require.True(t, errors.As(err, &unknown), "%v", err)
	})
	t.Run("a revoked front", func(t *testing.T) {
		list, err := a.List()
		require.NoError(t, err)
		store, err := pki.OpenCRLStore(filepath.Join(t.TempDir(), "crl.pem"), a.Cert())
		require.NoError(t, err)
		crl, err := a.Revoke(list[0].Serial)
		require.NoError(t, err)
		require.Equal(t, "front", list[0].Role)
		_, err = store.Put(crl.PEM, time.Now())
		require.NoError(t, err)
		informed := *ann
		informed.CRL = store
		_, err, _ = handshake(t, pki.ClientTLS(&informed, "alpha", nil), pki.ServerTLS(front))
		requireCode(t, err, pki.CodeServer, "was revoked")
	})
	t.Run("TLS 1.2", func(t *testing.T) {
		server := pki.ServerTLS(front)
		server.MinVersion, server.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
		_, err, _ := handshake(t, pki.ClientTLS(ann, "alpha", nil), server)
		require.Error(t, err)
		client := pki.ClientTLS(ann, "alpha", nil)
		client.MinVersion, client.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
		_, _, err = handshake(t, client, pki.ServerTLS(front))
		require.Error(t, err)
	})
}

// Where nothing but a fingerprint is known, it alone decides, and nothing is
// forgiven.
func TestTrustInPinsAlone(t *testing.T) {
	a, b := live(t, "demo"), live(t, "other")
	ann := a.identity(t, pki.RoleOperator, "ann")
	front := b.identity(t, pki.RoleFront, "alpha")
	pin := pki.Pin(front.Cert.Leaf)
	server := pki.ServerTLS(front)
	server.ClientCAs.AddCert(a.Cert()) // the peer has agreed to know our CA
	strangers := "sha256:" + strings.Repeat("0", 64)

	state, clientErr, serverErr := handshake(t, pki.PinnedTLS(ann, "alpha", []string{strangers, pin}), server)
	require.NoError(t, clientErr)
	require.NoError(t, serverErr)
	require.EqualValues(t, tls.VersionTLS13, state.Version)
	require.False(t, state.DidResume)

	_, err, _ := handshake(t, pki.PinnedTLS(ann, "alpha", []string{strangers}), server)
	requireCode(t, err, pki.CodePin, pin+" is not pinned")
	_, err, _ = handshake(t, pki.PinnedTLS(ann, "alpha", nil), server)
	requireCode(t, err, pki.CodePin, "there are no pins")

	t.Run("a certificate that is no server's", func(t *testing.T) {
		node := b.identity(t, pki.RoleNode, "alpha")
		server := pki.ServerTLS(node)
		_, err, _ := handshake(t, pki.PinnedTLS(ann, "alpha", []string{pki.Pin(node.Cert.Leaf)}), server)
		requireCode(t, err, pki.CodeServer, "does not allow a server")
	})
	t.Run("an expired certificate", func(t *testing.T) {
		key := front.Cert.PrivateKey.(crypto.Signer)
		template := *front.Cert.Leaf
		template.NotAfter = time.Now().Add(-time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
		require.NoError(t, err)
		server := pki.ServerTLS(front)
		server.Certificates = []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
		_, err, _ = handshake(t, pki.PinnedTLS(ann, "alpha", []string{pin}), server)
		requireCode(t, err, pki.CodeServer, "expired on")
	})
	t.Run("TLS 1.2", func(t *testing.T) {
		server := pki.ServerTLS(front)
		server.MinVersion, server.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
		_, err, _ := handshake(t, pki.PinnedTLS(ann, "alpha", []string{pin}), server)
		require.Error(t, err)
	})
}

func TestFrontDemandsACertificate(t *testing.T) {
	a := live(t, "demo")
	front := a.identity(t, pki.RoleFront, "alpha")
	ann := a.identity(t, pki.RoleOperator, "ann")
	none := pki.ClientTLS(ann, "alpha", nil)
	none.Certificates = nil
	foreign := pki.ClientTLS(ann, "alpha", nil)
	foreign.Certificates = []tls.Certificate{live(t, "demo").identity(t, pki.RoleOperator, "ann").Cert}
	asFront := pki.ClientTLS(ann, "alpha", nil)
	asFront.Certificates = []tls.Certificate{front.Cert}
	for name, client := range map[string]*tls.Config{"none": none, "of another CA": foreign, "a front's": asFront} {
		t.Run(name, func(t *testing.T) {
			_, clientErr, serverErr := handshake(t, client, pki.ServerTLS(front))
			require.Error(t, clientErr)
			require.Error(t, serverErr)
		})
	}
}
