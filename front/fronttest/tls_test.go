package fronttest_test

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/front"
	"gantry/pki"
)

// with is the client's side with other certificates, or none. Go's client
// would not send one that the server's list of CAs does not name: send it
// anyway, as an attacker would.
func (w *world) with(t *testing.T, cert *tls.Certificate) *tls.Config {
	t.Helper()
	conf := pki.ClientTLS(w.identity(t, pki.RoleOperator), nodeName, nil)
	conf.Certificates = nil
	conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if cert == nil {
			return &tls.Certificate{}, nil
		}
		return cert, nil
	}
	return conf
}

func badCertificates(t *testing.T, w *world) string {
	other, err := pki.InitCA(filepath.Join(t.TempDir(), "ca"), clusterName, pki.Options{})
	require.NoError(t, err)
	leaf, err := other.Issue(pki.RoleOperator, "anna", nil, time.Hour)
	require.NoError(t, err)
	stranger := identityOf(t, other, leaf).Cert

	// The same CA, three hours ago.
	past, err := pki.OpenCA(filepath.Join(w.dir, "ca"), pki.Options{Now: func() time.Time { return time.Now().Add(-3 * time.Hour) }})
	require.NoError(t, err)
	leaf, err = past.Issue(pki.RoleOperator, "anna", nil, time.Hour)
	require.NoError(t, err)
	expired := identityOf(t, w.ca, leaf).Cert

	var out []string
	for _, c := range []struct {
		name string
		cert *tls.Certificate
	}{{"none", nil}, {"expired", &expired}, {"other CA", &stranger}} {
		out = append(out, c.name+": "+w.refusal(t, w.with(t, c.cert), w.o.API[0]))
	}
	return strings.Join(out, "; ")
}

// refusal says how a client fares that should be refused.
func (w *world) refusal(t *testing.T, conf *tls.Config, addr string) string {
	t.Helper()
	resp, err := w.clientFor(t, conf, addr).request(t.Context(), http.MethodGet, "selftest/headers", nil)
	if err != nil {
		require.Contains(t, err.Error(), "tls:", "not a word of TLS")
		return "handshake refused"
	}
	defer resp.Body.Close()
	body := make([]byte, 4096)
	n, _ := resp.Body.Read(body)
	text := fmt.Sprint(resp.StatusCode)
	if strings.Contains(string(body[:n]), "refused by the responder") {
		text += " of the responder"
	}
	t.Logf("%s: %s", text, body[:n])
	return text
}

func refusedByResponder(t *testing.T, shared *world) string {
	// A list of its own: revoking is for good.
	w := prepareWorld(t, shared.kind)
	leaf, err := w.ca.Issue(pki.RoleOperator, "former", nil, time.Hour)
	require.NoError(t, err)
	crl, err := w.ca.Revoke(leaf.Serial)
	require.NoError(t, err)
	write(t, w.resp.CRL, crl.PEM, 0o600, responderUID)
	w.startResponder(t)
	w.startFront(t)

	revoked := w.refusal(t, pki.ClientTLS(identityOf(t, w.ca, leaf), nodeName, nil), w.o.API[0])
	role := w.refusal(t, pki.ClientTLS(w.identity(t, pki.RoleNode), nodeName, nil), w.o.API[0])
	resp, _ := w.client(t).get(t, "selftest/headers")
	require.Equal(t, http.StatusOK, resp.StatusCode, "the good certificate is refused too")
	return "revoked: " + revoked + "; wrong role: " + role
}

// everyAddress: TLS options must hold on each listener, not on the first only.
func everyAddress(t *testing.T, w *world) string {
	good := pki.ClientTLS(w.identity(t, pki.RoleOperator), nodeName, nil)
	serve, refuse := 0, 0
	for _, addr := range w.addresses() {
		resp, _ := w.clientFor(t, good, addr).get(t, "selftest/headers")
		if resp.StatusCode == http.StatusOK {
			serve++
		}
		if slices.Contains([]string{"handshake refused", "400"}, w.refusal(t, w.with(t, nil), addr)) {
			refuse++
		}
	}
	return fmt.Sprintf("%d addresses serve; %d refuse without a certificate", serve, refuse)
}

// tickets counts what a server offers for resumption.
type tickets struct {
	tls.ClientSessionCache
	offered atomic.Int64
}

func (c *tickets) Put(key string, state *tls.ClientSessionState) {
	if state != nil {
		c.offered.Add(1)
	}
	c.ClientSessionCache.Put(key, state)
}

func protocols(t *testing.T, w *world) string {
	good := pki.ClientTLS(w.identity(t, pki.RoleOperator), nodeName, nil)
	var out []string
	for _, addr := range w.addresses() {
		old := good.Clone()
		old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
		text := "TLS 1.2 refused"
		if c, err := tls.Dial("tcp", addr, old); err == nil {
			c.Close()
			text = "TLS 1.2 accepted"
		}

		h2 := good.Clone()
		h2.NextProtos = []string{"h2", "http/1.1"}
		c, err := tls.Dial("tcp", addr, h2)
		require.NoError(t, err)
		text += "; " + c.ConnectionState().NegotiatedProtocol
		c.Close()

		// A client that would resume if it could.
		again := good.Clone()
		cache := &tickets{ClientSessionCache: tls.NewLRUClientSessionCache(8)}
		again.ClientSessionCache, again.SessionTicketsDisabled = cache, false
		again.VerifyConnection = nil
		resumed := false
		for range 3 {
			p := w.clientFor(t, again, addr)
			resp, _ := p.get(t, "selftest/headers") // tickets come with the first reply
			resumed = resumed || resp.TLS.DidResume
			p.http.CloseIdleConnections()
		}
		t.Logf("%s: %d tickets offered", addr, cache.offered.Load())
		if resumed {
			text += "; resumed"
		} else {
			text += "; never resumed"
		}
		out = append(out, text)
	}
	return strings.Join(slices.Compact(out), " | ")
}

func noRoot(t *testing.T, w *world) string {
	pids := w.front.group()
	require.NotEmpty(t, pids)
	if w.kind == front.Nginx {
		require.Greater(t, len(pids), 1, "nginx has workers")
	}
	if os.Geteuid() != 0 {
		return "no root"
	}
	for _, pid := range pids {
		for _, id := range uids(t, pid) {
			if id != fmt.Sprint(frontUID) {
				return fmt.Sprintf("process %d has uid %s", pid, id)
			}
		}
	}
	return "no root"
}
