package pki_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/pki"
)

func TestInitWritesACompleteFolder(t *testing.T) {
	a := newAuthority(t, "demo")
	for name, mode := range map[string]os.FileMode{
		"": 0o700, pki.CertFile: 0o644, pki.KeyFile: 0o600, pki.CRLFile: 0o644, pki.IndexFile: 0o600,
	} {
		info, err := os.Stat(filepath.Join(a.dir, name))
		require.NoError(t, err)
		require.Equal(t, mode, info.Mode().Perm(), name)
	}
	entries, err := os.ReadDir(filepath.Dir(a.dir))
	require.NoError(t, err)
	require.Len(t, entries, 1, "a temporary folder was left")

	crl, err := a.CRL()
	require.NoError(t, err)
	require.EqualValues(t, 1, crl.Number.Int64())
	require.Equal(t, pki.DefaultCRLLife, crl.NextUpdate.Sub(crl.ThisUpdate))
	require.Zero(t, crl.Len())

	cert := a.Cert()
	require.True(t, cert.IsCA && cert.MaxPathLenZero)
	require.Equal(t, "spiffe://demo", cert.URIs[0].String())
	require.Equal(t, elliptic.P256(), cert.PublicKey.(*ecdsa.PublicKey).Curve)
	require.Greater(t, cert.SerialNumber.BitLen(), 96)
}

func TestInitRefusesAFolderInUse(t *testing.T) {
	a := newAuthority(t, "demo")
	before, err := os.ReadFile(filepath.Join(a.dir, pki.KeyFile))
	require.NoError(t, err)
	_, err = pki.InitCA(a.dir, "demo", pki.Options{})
	require.ErrorContains(t, err, "is not an empty folder")
	after, err := os.ReadFile(filepath.Join(a.dir, pki.KeyFile))
	require.NoError(t, err)
	require.Equal(t, before, after)

	empty := t.TempDir()
	_, err = pki.InitCA(empty, "demo", pki.Options{})
	require.NoError(t, err, "an empty folder is as good as none")
}

func TestInitDeletesNoFile(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	require.NoError(t, os.WriteFile(file, []byte("precious"), 0o600))
	require.NoError(t, os.Symlink(dir, link))
	for _, path := range []string{file, link} {
		_, err := pki.InitCA(path, "demo", pki.Options{})
		require.ErrorContains(t, err, "is not an empty folder")
		_, err = os.Lstat(path)
		require.NoError(t, err)
	}
}

func TestOpenSaysHowToMakeOne(t *testing.T) {
	_, err := pki.OpenCA(t.TempDir(), pki.Options{})
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, "gantry ca init CLUSTER --dir")
}

func TestOpenRefusesForeignKey(t *testing.T) {
	a, b := newAuthority(t, "demo"), newAuthority(t, "demo")
	key, err := os.ReadFile(filepath.Join(b.dir, pki.KeyFile))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(a.dir, pki.KeyFile), key, 0o600))
	_, err = pki.OpenCA(a.dir, pki.Options{})
	require.ErrorContains(t, err, "ca.key is not the key of ca.pem")
}

func TestNames(t *testing.T) {
	good := []string{"a", "7", "alpha", "alpha-1", "a_b", "alpha.example.org", strings.Repeat("x", 64)}
	bad := []string{"", "Alpha", "-a", "a-", ".a", "a.", "a..b", "a/b", "a b", "a*", "*", "ä", "a\x00b", "a%61", strings.Repeat("x", 65)}
	a := newAuthority(t, "demo")
	for _, name := range good {
		require.NoError(t, pki.CheckName("name", name), name)
		id := a.issue(t, pki.RoleFront, name)
		require.Equal(t, "spiffe://demo/front/"+name, id.URIs[0].String())
		_, err := pki.InitCA(filepath.Join(t.TempDir(), "x"), name, pki.Options{})
		require.NoError(t, err, name)
	}
	for _, name := range bad {
		require.Error(t, pki.CheckName("name", name), name)
		_, err := a.Issue(pki.RoleNode, name, nil, 0)
		require.Error(t, err, name)
		_, err = pki.InitCA(filepath.Join(t.TempDir(), "x"), name, pki.Options{})
		require.Error(t, err, name)
		_, err = pki.ParseURI("spiffe://demo/node/" + name)
		require.Error(t, err, name)
	}
	_, err := a.Issue("admin", "ann", nil, 0)
	require.ErrorContains(t, err, "allowed are node, front, master, operator")
}

func TestIssuedCertificates(t *testing.T) {
	a := newAuthority(t, "demo")
	node := a.issue(t, pki.RoleNode, "alpha")
	require.Equal(t, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, node.ExtKeyUsage)
	require.Empty(t, node.DNSNames)
	require.Equal(t, now.Add(90*24*time.Hour), node.NotAfter.UTC())
	require.Equal(t, now.Add(-pki.ClockSkew), node.NotBefore.UTC())

	front := a.issue(t, pki.RoleFront, "alpha", "alpha.example.org", "192.0.2.7", "2001:db8::7", "192.0.2.7")
	require.Equal(t, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, front.ExtKeyUsage)
	require.Equal(t, []string{"alpha", "alpha.example.org"}, front.DNSNames)
	require.Len(t, front.IPAddresses, 2)
	require.NoError(t, front.VerifyHostname("alpha"))
	require.NoError(t, front.VerifyHostname("192.0.2.7"))
	require.NoError(t, front.VerifyHostname("[2001:db8::7]"))
	require.NotEqual(t, node.SerialNumber, front.SerialNumber)

	for _, host := range []string{"", "alpha:8443", "*.example.org", "Alpha", "fe80::1%eth0", "a b", "-a", "a..b", strings.Repeat("a", 254)} {
		_, err := a.Issue(pki.RoleFront, "alpha", []string{host}, 0)
		require.Error(t, err, host)
	}
	_, err := a.Issue(pki.RoleNode, "alpha", []string{"alpha.example.org"}, 0)
	require.ErrorContains(t, err, "only a front's certificate carries hosts")
}

func TestLifeIsBounded(t *testing.T) {
	a := newAuthority(t, "demo")
	for _, life := range []time.Duration{-time.Second, pki.MaxLeafLife + 1} {
		_, err := a.Issue(pki.RoleNode, "alpha", nil, life)
		require.ErrorContains(t, err, "at most 90 days")
	}
	// Nothing outlives the CA.
	end := a.Cert().NotAfter
	late, err := pki.OpenCA(a.dir, pki.Options{Now: at(end.Add(-time.Hour))})
	require.NoError(t, err)
	leaf, err := late.Issue(pki.RoleNode, "alpha", nil, 0)
	require.NoError(t, err)
	require.Equal(t, end, leaf.NotAfter)
	tooLate, err := pki.OpenCA(a.dir, pki.Options{Now: at(end.Add(time.Second))})
	require.NoError(t, err)
	_, err = tooLate.Issue(pki.RoleNode, "alpha", nil, 0)
	require.ErrorContains(t, err, "the CA's own certificate expired")
}

func TestIndexRemembers(t *testing.T) {
	a := newAuthority(t, "demo")
	leaf, err := a.Issue(pki.RoleNode, "alpha", nil, 0)
	require.NoError(t, err)
	_, err = a.Issue(pki.RoleOperator, "ann", nil, time.Hour)
	require.NoError(t, err)
	_, err = a.Revoke(leaf.Serial)
	require.NoError(t, err)

	again, err := pki.OpenCA(a.dir, pki.Options{})
	require.NoError(t, err)
	list, err := again.List()
	require.NoError(t, err)
	require.Len(t, list, 2)
	require.Equal(t, pki.Entry{Serial: leaf.Serial, Role: "node", Name: "alpha", Issued: now, NotAfter: leaf.NotAfter.UTC(), Revoked: now}, list[0])
	require.Equal(t, "ann", list[1].Name)
	require.True(t, list[1].Revoked.IsZero())
}

func TestIndexMendsATornLine(t *testing.T) {
	a := newAuthority(t, "demo")
	a.issue(t, pki.RoleNode, "alpha")
	path := filepath.Join(a.dir, pki.IndexFile)
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	// A crash in the middle of the next append.
	require.NoError(t, os.WriteFile(path, append(whole, `{"v":1,"event":"iss`...), 0o600))
	list, err := a.List()
	require.NoError(t, err)
	require.Len(t, list, 1)
	a.issue(t, pki.RoleNode, "beta")
	list, err = a.List()
	require.NoError(t, err)
	require.Len(t, list, 2)
	require.Equal(t, "beta", list[1].Name)
}

func TestIndexRefusesWhatItDoesNotUnderstand(t *testing.T) {
	for name, line := range map[string]string{
		"newer format":          `{"v":2,"event":"issue","t":"2026-11-20T21:00:00Z","serial":"01"}`,
		"unknown event":         `{"v":1,"event":"pardon","t":"2026-11-20T21:00:00Z","serial":"01"}`,
		"revokes a stranger":    `{"v":1,"event":"revoke","t":"2026-11-20T21:00:00Z","serial":"01"}`,
		"unknown field":         `{"v":1,"event":"issue","t":"2026-11-20T21:00:00Z","serial":"01","x":1}`,
		"not JSON":              `hello`,
		"an empty line between": ``,
	} {
		t.Run(name, func(t *testing.T) {
			a := newAuthority(t, "demo")
			require.NoError(t, os.WriteFile(filepath.Join(a.dir, pki.IndexFile), []byte(line+"\n"), 0o600))
			_, err := a.List()
			require.ErrorContains(t, err, "index:1: ")
			_, err = a.Issue(pki.RoleNode, "alpha", nil, 0)
			require.Error(t, err)
		})
	}
}

// Two programs at work in one folder lose neither an entry nor a number.
func TestConcurrentUse(t *testing.T) {
	const each = 8
	a := newAuthority(t, "demo")
	var group sync.WaitGroup
	for range 2 {
		ca, err := pki.OpenCA(a.dir, pki.Options{Now: at(now)})
		require.NoError(t, err)
		group.Go(func() {
			for range each {
				leaf, err := ca.Issue(pki.RoleOperator, "ann", nil, 0)
				if err == nil {
					_, err = ca.Revoke(leaf.Serial)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	list, err := a.List()
	require.NoError(t, err)
	require.Len(t, list, 2*each)
	crl, err := a.CRL()
	require.NoError(t, err)
	require.EqualValues(t, 1+2*each, crl.Number.Int64())
	require.Equal(t, 2*each, crl.Len())
}
