package pki_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/pki"
)

func TestVerifyAcceptsClients(t *testing.T) {
	a := newAuthority(t, "demo")
	v := a.verifier(t)
	for _, role := range []string{pki.RoleNode, pki.RoleMaster, pki.RoleOperator} {
		id, err := v.VerifyClient(a.issue(t, role, "ann"), now)
		require.NoError(t, err)
		require.Equal(t, pki.ID{Cluster: "demo", Role: role, Name: "ann"}, id)
		require.Equal(t, "spiffe://demo/"+role+"/ann", id.String())
	}
	// The hand-made certificate that the refusals below are variations of.
	cert, err := a.sign(t, nil, nil)
	require.NoError(t, err)
	_, err = v.VerifyClient(cert, now)
	require.NoError(t, err)
}

// Each row changes one thing of a certificate that would pass.
func TestVerifyRefuses(t *testing.T) {
	a, other := newAuthority(t, "demo"), newAuthority(t, "demo")
	uris := func(list ...string) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			c.URIs = nil
			for _, s := range list {
				u, err := url.Parse(s)
				require.NoError(t, err)
				c.URIs = append(c.URIs, u)
			}
		}
	}
	small := func(bits int) any {
		t.Setenv("GODEBUG", "rsa1024min=0")
		key, err := rsa.GenerateKey(rand.Reader, bits)
		require.NoError(t, err)
		return key.Public()
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	require.NoError(t, err)
	for _, c := range []struct {
		name   string
		by     authority
		pub    any
		change func(*x509.Certificate)
		rule   string
	}{
		{"G106 expired", a, nil, func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Second) }, "expired on 2026-11-20T20:59:59Z"},
		{"G106 not yet valid", a, nil, func(c *x509.Certificate) { c.NotBefore = now.Add(time.Second) }, "not valid before 2026-11-20T21:00:01Z"},
		{"G106 wrong CA", other, nil, nil, "not signed by this cluster's CA"},
		{"G106 wrong key usage", a, nil, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement }, "key usage"},
		{"G106 more key usage", a, nil, func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign }, "key usage"},
		{"G106 server usage only", a, nil, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, "extended key usage"},
		{"G106 a CA", a, nil, func(c *x509.Certificate) { c.IsCA = true }, "not an end certificate"},
		{"G106 no basic constraints", a, nil, func(c *x509.Certificate) { c.BasicConstraintsValid = false }, "not an end certificate"},
		{"G106 unknown critical extension", a, nil, func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
		}, "unhandled critical extension"},
		{"G109 CN right but SAN other", a, nil, uris("spiffe://demo/operator/eve"), `common name "ann" and spiffe://demo/operator/eve disagree`},
		{"G109 SAN of another cluster", a, nil, uris("spiffe://prod/operator/ann"), `not of cluster "demo"`},
		{"G109 two ids", a, nil, uris("spiffe://demo/operator/ann", "spiffe://demo/master/ann"), "2 URI names"},
		{"G109 no id, only DNS", a, nil, func(c *x509.Certificate) { c.URIs, c.DNSNames = nil, []string{"ann"} }, "0 URI names"},
		{"G109 no SPIFFE id", a, nil, uris("https://demo/operator/ann"), "is not spiffe://CLUSTER/ROLE/NAME"},
		{"G109 unknown role", a, nil, uris("spiffe://demo/admin/ann"), `role "admin" is unknown`},
		{"G109 escaped", a, nil, uris("spiffe://demo/operator/a%6en"), "contains '%'"},
		{"G109 upper case", a, nil, uris("spiffe://demo/operator/Ann"), "contains 'A'"},
		{"G109 with query", a, nil, uris("spiffe://demo/operator/ann?x"), `contains '\?'`},
		{"G109 with port", a, nil, uris("spiffe://demo:1/operator/ann"), "contains ':'"},
		{"G109 deeper path", a, nil, uris("spiffe://demo/operator/ann/x"), "is not spiffe://CLUSTER/ROLE/NAME"},
		{"G110 empty subject", a, nil, func(c *x509.Certificate) { c.Subject = pkix.Name{} }, `common name "" and spiffe://demo/operator/ann disagree`},
		{"G113 RSA 1024", a, small(1024), nil, "public key is RSA"},
		{"G113 RSA 2048", a, small(2048), nil, "public key is RSA"},
		{"G113 P-224", a, p224.Public(), nil, "public key is ECDSA, only ECDSA P-256"},
		{"G119 NUL in name", a, nil, func(c *x509.Certificate) { c.Subject.CommonName = "ann\x00.evil" }, "disagree"},
		{"G117 constraints of other names", a, nil, func(c *x509.Certificate) { c.PermittedURIDomains = []string{"evil"} }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			cert, err := c.by.sign(t, c.pub, c.change)
			require.NoError(t, err)
			_, err = a.verifier(t).VerifyClient(cert, now)
			if c.rule == "" {
				// Name constraints are a matter of CAs; on a leaf they say
				// nothing and cost nothing.
				require.NoError(t, err)
				return
			}
			requireCode(t, err, pki.CodeCertificate, c.rule)
		})
	}
}

func TestVerifyRefusesWhatTheCADidNotSign(t *testing.T) {
	a := newAuthority(t, "demo")
	v := a.verifier(t)
	t.Run("G106 self-signed", func(t *testing.T) {
		key := newKey(t)
		template, err := a.sign(t, key.Public(), nil)
		require.NoError(t, err)
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		require.NoError(t, err)
		cert, err := x509.ParseCertificate(der)
		require.NoError(t, err)
		_, err = v.VerifyClient(cert, now)
		requireCode(t, err, pki.CodeCertificate, "not signed by this cluster's CA")
	})
	t.Run("G106 the CA's own certificate", func(t *testing.T) {
		_, err := v.VerifyClient(a.Cert(), now)
		requireCode(t, err, pki.CodeCertificate, "not an end certificate")
	})
	t.Run("G106 a front", func(t *testing.T) {
		_, err := v.VerifyClient(a.issue(t, pki.RoleFront, "alpha"), now)
		requireCode(t, err, pki.CodeCertificate, "extended key usage")
	})
	t.Run("G106 signature changed", func(t *testing.T) {
		cert := a.issue(t, pki.RoleOperator, "ann")
		raw := append([]byte{}, cert.Raw...)
		raw[len(raw)-1] ^= 1
		forged, err := x509.ParseCertificate(raw)
		require.NoError(t, err)
		_, err = v.VerifyClient(forged, now)
		requireCode(t, err, pki.CodeCertificate, "not signed by this cluster's CA")
	})
	t.Run("G106 the CA itself expired", func(t *testing.T) {
		cert, err := a.sign(t, nil, func(c *x509.Certificate) { c.NotAfter = now.AddDate(30, 0, 0) })
		require.NoError(t, err)
		_, err = v.VerifyClient(cert, now.AddDate(20, 0, 0))
		requireCode(t, err, pki.CodeCertificate, "CA's own certificate expired")
	})
	t.Run("G113 RSA with exponent 1", func(t *testing.T) {
		t.Setenv("GODEBUG", "rsa1024min=0")
		pub := &rsa.PublicKey{N: new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), 2047), big.NewInt(1)), E: 1}
		cert, err := a.sign(t, pub, nil)
		if err == nil {
			_, err = v.VerifyClient(cert, now)
		}
		require.Error(t, err)
	})
}

func TestRevocation(t *testing.T) {
	a := newAuthority(t, "demo")
	cert := a.issue(t, pki.RoleOperator, "ann")
	list, err := a.List()
	require.NoError(t, err)
	v := a.verifier(t)
	t.Run("G108 revoked", func(t *testing.T) {
		_, err := v.VerifyClient(cert, now)
		require.NoError(t, err)
		crl, err := a.Revoke(list[0].Serial)
		require.NoError(t, err)
		_, err = v.VerifyClient(cert, now)
		require.NoError(t, err, "the list has not arrived yet")
		_, err = v.CRL.Put(crl.PEM, now)
		require.NoError(t, err)
		_, err = v.VerifyClient(cert, now)
		requireCode(t, err, pki.CodeRevoked, "serial "+list[0].Serial+" was revoked on 2026-11-20T21:00:00Z")
		require.ErrorContains(t, err, "certificate refused: ")
	})
	t.Run("G108 revoked stays revoked on a stale list", func(t *testing.T) {
		_, err := v.VerifyClient(cert, now.AddDate(0, 0, 31))
		requireCode(t, err, pki.CodeRevoked, "was revoked")
	})
	t.Run("G108 list stale", func(t *testing.T) {
		other := a.issue(t, pki.RoleOperator, "bob")
		_, err := v.VerifyClient(other, now.AddDate(0, 0, 30))
		require.NoError(t, err)
		_, err = v.VerifyClient(other, now.AddDate(0, 0, 30).Add(time.Second))
		requireCode(t, err, pki.CodeCRLStale, "revocation list 2 expired on 2026-12-20T21:00:00Z")
		id, err := v.Judge(other, now.AddDate(0, 0, 30).Add(time.Second))
		require.NoError(t, err)
		require.Equal(t, "bob", id.Name)
	})
	t.Run("G108 list missing", func(t *testing.T) {
		empty, err := pki.OpenCRLStore(filepath.Join(t.TempDir(), "crl.pem"), a.Cert())
		require.NoError(t, err)
		for _, store := range []*pki.CRLStore{empty, nil} {
			_, err = (&pki.Verifier{CA: a.Cert(), CRL: store}).VerifyClient(cert, now)
			requireCode(t, err, pki.CodeCRLStale, "there is no revocation list")
		}
	})
}

func TestParseCertPEM(t *testing.T) {
	a := newAuthority(t, "demo")
	cert := a.issue(t, pki.RoleOperator, "ann")
	good := string(pki.EncodeCert(cert))
	many, err := a.sign(t, nil, func(c *x509.Certificate) {
		for range 10_000 {
			c.DNSNames = append(c.DNSNames, "name.example.org")
		}
	})
	require.NoError(t, err)
	key, err := a.Issue(pki.RoleOperator, "ann", nil, 0)
	require.NoError(t, err)
	headers := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Headers: map[string]string{"A": "b"}, Bytes: cert.Raw}))
	trailing := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: append(append([]byte{}, cert.Raw...), 0)}))
	for _, c := range []struct{ name, text, rule string }{
		{"as lighttpd and nginx pass it", good, ""},
		{"without the last line feed", strings.TrimSuffix(good, "\n"), ""},
		{"B32 folded with tabs", strings.ReplaceAll(good, "\n", "\n\t"), "no PEM block|not canonical|text after"},
		{"B32 folded with spaces", strings.ReplaceAll(strings.TrimSuffix(good, "\n"), "\n", " "), "no PEM block"},
		{"B32 percent-escaped", url.PathEscape(good), "no PEM block"},
		{"B32 truncated", good[:len(good)/2], "no PEM block"},
		{"B32 truncated at the last line", good[:len(good)-10], "no PEM block"},
		{"B32 two certificates", good + good, "more than one PEM block"},
		{"B32 carriage returns", strings.ReplaceAll(good, "\n", "\r\n"), "not canonical|text after"},
		{"B32 empty", "", "empty"},
		{"G118 text before", "hello\n" + good, "not canonical"},
		{"G118 text after", good + "hello\n", "text after the PEM block"},
		{"G118 a blank line after", good + "\n", "text after the PEM block"},
		{"G118 a key", string(key.KeyPEM), `PEM block is "PRIVATE KEY"`},
		{"G118 key before certificate", string(key.KeyPEM) + good, `PEM block is "PRIVATE KEY"`},
		{"G118 headers", headers, "has headers"},
		{"G118 other columns", strings.Replace(good, "\n", "", 2), "no PEM block|not canonical"},
		{"G118 bytes after the certificate", trailing, "not an X.509 certificate"},
		{"G117 1 MiB of PEM", good + strings.Repeat("A", 1<<20), "at most 16384 are allowed"},
		{"G117 10,000 names", string(pki.EncodeCert(many)), "at most 16384 are allowed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := pki.ParseCertPEM([]byte(c.text))
			if c.rule == "" {
				require.NoError(t, err)
				require.True(t, got.Equal(cert))
				return
			}
			requireCode(t, err, pki.CodeCertificate, c.rule)
		})
	}
}
