package pki_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/internal/testkit"
	"gantry/pki"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// now is when these tests happen.
var now = time.Date(2026, 11, 20, 21, 0, 0, 0, time.UTC)

func at(t time.Time) func() time.Time { return func() time.Time { return t } }

// authority is a CA and the key that OpenCA keeps to itself, with which tests
// sign what Issue never would.
type authority struct {
	*pki.CA
	dir string
	key crypto.Signer
}

func newAuthority(t testing.TB, cluster string) authority {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "ca")
	ca, err := pki.InitCA(dir, cluster, pki.Options{Now: at(now)})
	require.NoError(t, err)
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, pki.CertFile), filepath.Join(dir, pki.KeyFile))
	require.NoError(t, err)
	return authority{ca, dir, pair.PrivateKey.(crypto.Signer)}
}

// issue makes a certificate the ordinary way.
func (a authority) issue(t testing.TB, role, name string, hosts ...string) *x509.Certificate {
	t.Helper()
	leaf, err := a.Issue(role, name, hosts, 0)
	require.NoError(t, err)
	cert, err := pki.ParseCertPEM(leaf.CertPEM)
	require.NoError(t, err)
	return cert
}

// sign makes a certificate for operator ann after change has had its way with
// the template, for the public key pub (nil: a fresh P-256 one).
func (a authority) sign(t testing.TB, pub any, change func(*x509.Certificate)) (*x509.Certificate, error) {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(4711),
		Subject:               pkix.Name{CommonName: "ann"},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(time.Hour),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		URIs:                  []*url.URL{{Scheme: "spiffe", Host: a.Cluster(), Path: "/operator/ann"}},
	}
	if change != nil {
		change(template)
	}
	if pub == nil {
		pub = newKey(t).Public()
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.Cert(), pub, a.key)
	require.NoError(t, err)
	return x509.ParseCertificate(der)
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}

// store is a CRL store that holds the CA's current list.
func (a authority) store(t testing.TB) *pki.CRLStore {
	t.Helper()
	s, err := pki.OpenCRLStore(filepath.Join(t.TempDir(), "crl.pem"), a.Cert())
	require.NoError(t, err)
	crl, err := a.CRL()
	require.NoError(t, err)
	_, err = s.Put(crl.PEM, now)
	require.NoError(t, err)
	return s
}

func (a authority) verifier(t testing.TB) *pki.Verifier {
	return &pki.Verifier{CA: a.Cert(), CRL: a.store(t)}
}

// requireCode wants an *pki.Error with code whose text matches rule.
func requireCode(t testing.TB, err error, code, rule string) {
	t.Helper()
	var e *pki.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, code, e.Code, "%v", err)
	require.Regexp(t, rule, e.Rule)
}
