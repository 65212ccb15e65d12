package access_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/feedback"
	"gantry/internal/testkit"
	"gantry/pki"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// now is when these tests happen.
var now = time.Date(2026, 11, 20, 21, 0, 0, 0, time.UTC)

// params is a request's FastCGI parameters.
type params map[string]string

func (p params) Get(name string) (string, bool) {
	v, ok := p[name]
	return v, ok
}

// scene is a cluster's CA and a responder that knows its list.
type scene struct {
	ca *pki.CA
	v  *pki.Verifier
}

func newScene(t testing.TB, cluster string) scene {
	t.Helper()
	ca, err := pki.InitCA(filepath.Join(t.TempDir(), "ca"), cluster, pki.Options{Now: func() time.Time { return now }})
	require.NoError(t, err)
	s := scene{ca, &pki.Verifier{CA: ca.Cert()}}
	s.v.CRL, err = pki.OpenCRLStore(filepath.Join(t.TempDir(), "crl.pem"), ca.Cert())
	require.NoError(t, err)
	crl, err := ca.CRL()
	require.NoError(t, err)
	_, err = s.v.CRL.Put(crl.PEM, now)
	require.NoError(t, err)
	return s
}

func (s scene) issue(t testing.TB, role, name string) *pki.Leaf {
	t.Helper()
	leaf, err := s.ca.Issue(role, name, nil, 0)
	require.NoError(t, err)
	return leaf
}

// request is what a front passes for a client that it has verified.
func request(leaf *pki.Leaf) params {
	return params{"HTTPS": "on", "SSL_CLIENT_VERIFY": "SUCCESS", "SSL_CLIENT_CERT": string(leaf.CertPEM)}
}

// requireWire wants a wire error with code and text.
func requireWire(t testing.TB, err error, code, text string) {
	t.Helper()
	var e *feedback.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, code, e.Code, "%v", err)
	require.Contains(t, e.Message, text)
}

func write(t testing.TB, path string, data []byte, mode os.FileMode) string {
	t.Helper()
	require.NoError(t, os.WriteFile(path, data, mode))
	require.NoError(t, os.Chmod(path, mode))
	return path
}
