package access_test

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/access"
	"gantry/pki"
)

func TestIdentify(t *testing.T) {
	s := newScene(t, "demo")
	leaf := s.issue(t, pki.RoleOperator, "ann")
	caller, err := access.Identify(request(leaf), s.v, now)
	require.NoError(t, err)
	require.Equal(t, "spiffe://demo/operator/ann", caller.ID.String())
	sum := sha256.Sum256(caller.Cert.Raw)
	require.Equal(t, hex.EncodeToString(sum[:]), caller.SHA256)
}

const unverified = "client certificate not verified by the front server"

func TestIdentifyRefuses(t *testing.T) {
	s, other := newScene(t, "demo"), newScene(t, "demo")
	ann, bob := s.issue(t, pki.RoleOperator, "ann"), s.issue(t, pki.RoleOperator, "bob")
	good := string(ann.CertPEM)
	for _, c := range []struct {
		name       string
		change     params // "-" deletes
		code, text string
	}{
		{"B27 the client says so in HTTP_SSL_CLIENT_VERIFY", params{"SSL_CLIENT_VERIFY": "-", "HTTP_SSL_CLIENT_VERIFY": "SUCCESS"}, "client_certificate", unverified},
		{"B27 the client sends the certificate as a header", params{"SSL_CLIENT_CERT": "-", "HTTP_SSL_CLIENT_CERT": good}, "client_certificate", unverified},
		{"B27 the client claims all of it", params{"SSL_CLIENT_VERIFY": "-", "SSL_CLIENT_CERT": "-", "HTTPS": "-",
			"HTTP_SSL_CLIENT_VERIFY": "SUCCESS", "HTTP_SSL_CLIENT_CERT": good, "HTTP_HTTPS": "on"}, "client_certificate", unverified},
		{"B27 other names for it", params{"SSL_CLIENT_VERIFY": "-", "REDIRECT_SSL_CLIENT_VERIFY": "SUCCESS", "ssl_client_verify": "SUCCESS"}, "client_certificate", unverified},
		{"B30 missing", params{"SSL_CLIENT_VERIFY": "-"}, "client_certificate", unverified},
		{"B30 empty", params{"SSL_CLIENT_VERIFY": ""}, "client_certificate", unverified},
		{"B30 NONE", params{"SSL_CLIENT_VERIFY": "NONE"}, "client_certificate", unverified},
		{"B30 FAILED", params{"SSL_CLIENT_VERIFY": "FAILED:certificate has expired"}, "client_certificate", unverified},
		{"B30 in lower case", params{"SSL_CLIENT_VERIFY": "success"}, "client_certificate", unverified},
		{"B30 with a space", params{"SSL_CLIENT_VERIFY": "SUCCESS "}, "client_certificate", unverified},
		{"B30 no certificate", params{"SSL_CLIENT_CERT": "-"}, "client_certificate", unverified},
		{"B32 folded with tabs", params{"SSL_CLIENT_CERT": strings.ReplaceAll(good, "\n", "\n\t")}, "client_certificate", "certificate refused: "},
		{"B32 percent-escaped", params{"SSL_CLIENT_CERT": url.QueryEscape(good)}, "client_certificate", "certificate refused: no PEM block"},
		{"B32 truncated", params{"SSL_CLIENT_CERT": good[:len(good)/2]}, "client_certificate", "certificate refused: no PEM block"},
		{"B32 two certificates", params{"SSL_CLIENT_CERT": good + string(bob.CertPEM)}, "client_certificate", "certificate refused: more than one PEM block"},
		{"B34 HTTPS missing", params{"HTTPS": "-"}, "client_certificate", unverified},
		{"B34 HTTPS off", params{"HTTPS": "off"}, "client_certificate", unverified},
		{"B34 HTTPS in upper case", params{"HTTPS": "ON"}, "client_certificate", unverified},
		{"B34 HTTPS as a number", params{"HTTPS": "1"}, "client_certificate", unverified},
		{"B34 only the scheme says so", params{"HTTPS": "-", "REQUEST_SCHEME": "https"}, "client_certificate", unverified},
		{"G106 a front", params{"SSL_CLIENT_CERT": string(s.issue(t, pki.RoleFront, "alpha").CertPEM)}, "client_certificate", "certificate refused: extended key usage"},
		{"G106 another CA", params{"SSL_CLIENT_CERT": string(other.issue(t, pki.RoleOperator, "ann").CertPEM)}, "client_certificate", "certificate refused: not signed by this cluster's CA"},
		{"G118 text behind", params{"SSL_CLIENT_CERT": good + "x"}, "client_certificate", "certificate refused: text after the PEM block"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := request(ann)
			_, err := access.Identify(p, s.v, now)
			require.NoError(t, err)
			maps.Copy(p, c.change)
			maps.DeleteFunc(p, func(_, v string) bool { return v == "-" })
			caller, err := access.Identify(p, s.v, now)
			requireWire(t, err, c.code, c.text)
			require.Zero(t, caller)
			require.NotContains(t, err.Error(), good[40:60], "the reply repeats what was sent")
		})
	}
}

// A client that adds headers to a good certificate changes nothing.
func TestIdentifyIgnoresHeaders(t *testing.T) {
	s := newScene(t, "demo")
	p := request(s.issue(t, pki.RoleOperator, "ann"))
	p["HTTP_SSL_CLIENT_CERT"] = string(s.issue(t, pki.RoleMaster, "m").CertPEM)
	p["HTTP_SSL_CLIENT_VERIFY"] = "FAILED"
	caller, err := access.Identify(p, s.v, now)
	require.NoError(t, err)
	require.Equal(t, "ann", caller.ID.Name)
}

func TestIdentifyAndTheList(t *testing.T) {
	s := newScene(t, "demo")
	ann := s.issue(t, pki.RoleOperator, "ann")
	bob := s.issue(t, pki.RoleOperator, "bob")
	later := now.AddDate(0, 0, 31)

	t.Run("G108 stale, and who it is for the one request that cures it", func(t *testing.T) {
		caller, err := access.Identify(request(ann), s.v, later)
		requireWire(t, err, "crl_stale", "gantry ca crl --push")
		require.Equal(t, "ann", caller.ID.Name)
	})
	t.Run("G108 revoked", func(t *testing.T) {
		crl, err := s.ca.Revoke(bob.Serial)
		require.NoError(t, err)
		_, err = s.v.CRL.Put(crl.PEM, now)
		require.NoError(t, err)
		for _, at := range []time.Time{now, later} {
			caller, err := access.Identify(request(bob), s.v, at)
			requireWire(t, err, "certificate_revoked", "certificate refused: serial "+bob.Serial)
			require.Zero(t, caller)
		}
	})
	t.Run("G106 expired is not cured by a stale list", func(t *testing.T) {
		caller, err := access.Identify(request(ann), s.v, now.AddDate(0, 0, 91))
		requireWire(t, err, "client_certificate", "certificate refused: expired on")
		require.Zero(t, caller)
	})
}
