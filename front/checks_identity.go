package front

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"time"

	"gantry/front/selftest"
)

const (
	// soon is when a certificate is about to expire: two weeks to act in.
	soon = 14 * 24 * time.Hour
	// clockOff is half of what a node bears in a task's id.
	clockOff = 2 * time.Minute
)

func (c *checker) tlsVersion(ctx context.Context) (string, string, error) {
	old := c.conf.Clone()
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if _, err := c.dial(ctx, old); err == nil {
		return "", "", errors.New("the front also speaks TLS 1.2; node traffic needs 1.3 only")
	}
	return "TLS 1.3 only", "", ctx.Err()
}

func (c *checker) expiry(ctx context.Context) (string, string, error) {
	state, err := c.dial(ctx, c.conf)
	if err != nil {
		return "", "", err
	}
	end := state.PeerCertificates[0].NotAfter.UTC()
	detail := "until " + end.Format(time.RFC3339)
	if left := time.Until(end); left < soon {
		return "", detail, fmt.Errorf("the front's certificate expires in %s", left.Round(time.Hour))
	}
	return "the front's certificate is good for a while", detail, nil
}

// foreign shows a certificate that nobody has signed.
func (c *checker) foreign(ctx context.Context) (string, string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "stranger"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return "", "", err
	}
	conf := c.conf.Clone()
	conf.Certificates = nil
	conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
	}
	return c.turnedAway(ctx, conf, "a client of another CA")
}

// demanded shows none.
func (c *checker) demanded(ctx context.Context) (string, string, error) {
	bare := c.conf.Clone()
	bare.Certificates, bare.GetClientCertificate = nil, nil
	return c.turnedAway(ctx, bare, "a client without a certificate")
}

// turnedAway wants the front to refuse, not the responder.
func (c *checker) turnedAway(ctx context.Context, conf *tls.Config, who string) (string, string, error) {
	tr := c.transport(conf)
	defer tr.CloseIdleConnections()
	resp, err := c.send(ctx, &http.Client{Transport: tr}, http.MethodGet, "headers", nil, 0)
	if ctx.Err() != nil {
		return "", "", ctx.Err()
	}
	if err != nil {
		return who + " is refused", "in the handshake", nil
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusBadRequest {
		return who + " is refused", resp.Status, nil
	}
	return "", "", fmt.Errorf("%s gets %s; the front must refuse it", who, resp.Status)
}

// echoed asks the responder what arrived of a request with these headers, which
// are sent as spelled.
func (c *checker) echoed(ctx context.Context, header map[string]string) (h selftest.Headers, resp *http.Response, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+c.prefix+"/selftest/"+"headers", nil)
	if err != nil {
		return h, nil, err
	}
	for name, value := range header {
		req.Header[name] = []string{value}
	}
	if resp, err = c.http.Do(req); err != nil {
		return h, nil, err
	}
	return h, resp, answer(resp, &h)
}

// identity tries to be somebody else.
func (c *checker) identity(ctx context.Context) (string, string, error) {
	spoofed := map[string]string{
		"SSL-Client-Verify": "spoofed", "SSL_CLIENT_VERIFY": "spoofed", "SSL-Client-Cert": "spoofed", "SSL_CLIENT_CERT": "spoofed",
	}
	h, resp, err := c.echoed(ctx, spoofed)
	if resp != nil && resp.StatusCode == http.StatusBadRequest { // it bears no underscores at all
		delete(spoofed, "SSL_CLIENT_VERIFY")
		delete(spoofed, "SSL_CLIENT_CERT")
		h, _, err = c.echoed(ctx, spoofed)
	}
	if err != nil {
		return "", "", err
	}
	if v := h.Params["SSL_CLIENT_VERIFY"]; v != "SUCCESS" {
		return "", "", fmt.Errorf("headers from the client pass for identity: SSL_CLIENT_VERIFY is %q", v)
	}
	if len(c.conf.Certificates) > 0 {
		want := fmt.Sprintf("sha256:%x", sha256.Sum256(c.conf.Certificates[0].Certificate[0]))
		if got := h.Params["SSL_CLIENT_CERT"]; got != want {
			return "", "", fmt.Errorf("the node sees certificate %q instead of %q", got, want)
		}
	}
	return "identity comes from the handshake, not from headers", "", nil
}

func (c *checker) proxyHeader(ctx context.Context) (string, string, error) {
	h, _, err := c.echoed(ctx, map[string]string{"Proxy": "http://192.0.2.1/"}) // RFC 5737: an address that is nobody's
	if err != nil {
		return "", "", err
	}
	if len(h.HTTP["Proxy"]) > 0 {
		return "", "", errors.New("a client's Proxy header reaches the responder as HTTP_PROXY (CVE-2016-5387)")
	}
	return "a client's Proxy header is dropped", "", nil
}

func (c *checker) underscore(ctx context.Context) (string, string, error) {
	h, resp, err := c.echoed(ctx, map[string]string{"X_Gantry_Check": "1"})
	switch {
	case resp != nil && resp.StatusCode == http.StatusBadRequest:
		return "headers with underscores are refused", resp.Status, nil
	case err != nil:
		return "", "", err
	case len(h.HTTP["X-Gantry-Check"]) == 0:
		return "headers with underscores are dropped", "", nil
	case c.kind == Nginx:
		return "", "", errors.New("X_Gantry_Check arrives as X-Gantry-Check")
	}
	return "headers with underscores arrive; the responder refuses a twin", "", nil
}

func (c *checker) parameters(ctx context.Context) (string, string, error) {
	h, _, err := c.echoed(ctx, nil)
	if err != nil {
		return "", "", err
	}
	var missing []string
	for name, ok := range map[string]bool{
		"HTTPS": h.Params["HTTPS"] == "on", "SSL_PROTOCOL": h.Params["SSL_PROTOCOL"] == "TLSv1.3",
		"SERVER_PROTOCOL": h.Params["SERVER_PROTOCOL"] == "HTTP/1.1", "REQUEST_METHOD": h.Params["REQUEST_METHOD"] == http.MethodGet,
		"REQUEST_URI": h.Params["REQUEST_URI"] == c.prefix+"/selftest/"+"headers",
		"SERVER_ADDR": h.Params["SERVER_ADDR"] != "", "SERVER_PORT": h.Params["SERVER_PORT"] != "",
	} {
		if !ok {
			missing = append(missing, fmt.Sprintf("%s is %q", name, h.Params[name]))
		}
	}
	if len(missing) > 0 {
		return "", "", errors.New("the responder is told something else than what is so: " + strings.Join(missing, ", "))
	}
	return "the responder is told what is so", "", nil
}

func (c *checker) version(ctx context.Context) (string, string, error) {
	_, resp, err := c.echoed(ctx, nil)
	if err != nil {
		return "", "", err
	}
	if v := resp.Header.Get("Server"); strings.Contains(v, "/") {
		return "", "", fmt.Errorf("the front tells its version to everybody: %q", v)
	}
	return "the front does not tell its version", "", nil
}

func (c *checker) clock(ctx context.Context) (string, string, error) {
	var off time.Duration
	err := c.stream(ctx, "lines?n=1", func(l selftest.Line, at time.Time) error {
		off = at.Sub(l.Time)
		return nil
	})
	if err != nil {
		return "", "", err
	}
	detail := fmt.Sprintf("%s apart", off.Abs().Round(time.Millisecond))
	if off.Abs() > clockOff {
		return "", detail, errors.New("the clocks of node and caller differ; task ids carry times")
	}
	return "the clocks agree", detail, nil
}
