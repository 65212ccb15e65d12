package fronttest_test

import (
	"bufio"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"gantry/front/selftest"
	"gantry/pki"
)

// hostileHeaders looks at the parameters on the FastCGI socket itself.
func hostileHeaders(t *testing.T, shared *world) string {
	w := prepareWorld(t, shared.kind)
	params := w.capture(t)
	w.startFront(t)
	id := w.identity(t, pki.RoleOperator)
	p := w.clientFor(t, pki.ClientTLS(id, nodeName, nil), w.o.API[0])
	headers := []string{
		"SSL-Client-Verify", "FAILED:spoofed", "Ssl-Client-Cert", "spoofed", "Gantry-Front-Token", "spoofed",
		"Https", "off", "Remote-Addr", "192.0.2.1", "Proxy", "http://192.0.2.1:3128/", "X-Forwarded-For", "192.0.2.1",
	}
	resp, body := p.get(t, "selftest/headers", append([]string{
		"SSL_CLIENT_VERIFY", "FAILED:spoofed", "Ssl_Client_Verify", "NONE", "SSL_CLIENT_CERT", "spoofed",
		"GANTRY_FRONT_TOKEN", "spoofed", "X_Forwarded_For", "192.0.2.2",
	}, headers...)...)
	refused := resp.StatusCode == http.StatusBadRequest
	if refused { // headers with underscores
		resp, body = p.get(t, "selftest/headers", headers...)
	}
	require.Equal(t, http.StatusOK, resp.StatusCode, "%s", body)
	byName := map[string][]string{}
	for _, p := range <-params {
		byName[p.name] = append(byName[p.name], p.value)
	}
	text := "identity untouched"
	for name, want := range map[string]string{
		"SSL_CLIENT_VERIFY": "SUCCESS", "SSL_CLIENT_CERT": string(pki.EncodeCert(id.Cert.Leaf)),
		"GANTRY_FRONT_TOKEN": token, "HTTPS": "on", "REMOTE_ADDR": "127.0.0.1",
	} {
		if got := byName[name]; len(got) != 1 || strings.TrimSpace(got[0]) != strings.TrimSpace(want) {
			text = fmt.Sprintf("%s = %q", name, got)
		}
	}
	if got := byName["HTTP_PROXY"]; got == nil {
		text += "; no HTTP_PROXY"
	}
	switch got := byName["HTTP_X_FORWARDED_FOR"]; {
	case len(got) == 2 || refused: // lighttpd before and since 1.4.83
		text += "; twin twice, or refused"
	case len(got) == 1 && got[0] == "192.0.2.1":
		text += "; twin dropped"
	default:
		text += fmt.Sprintf("; twin %q", got)
	}
	return text
}

func identityParams(t *testing.T, w *world) string {
	id := w.identity(t, pki.RoleOperator)
	_, data := w.clientFor(t, pki.ClientTLS(id, nodeName, nil), w.o.Data[1]).get(t, "selftest/headers")
	got := decode[selftest.Headers](t, data)
	text := fmt.Sprintf("%s, %s, HTTPS %s, %s", got.Params["SSL_CLIENT_VERIFY"], got.Params["SSL_PROTOCOL"], got.Params["HTTPS"], got.Params["SERVER_PROTOCOL"])
	if got.Params["SSL_CLIENT_CERT"] == fmt.Sprintf("sha256:%x", sha256.Sum256(id.Cert.Certificate[0])) {
		text += ", own certificate"
	}
	if got.Token {
		text += ", token"
	}
	return text
}

func headerLimits(t *testing.T, w *world) string {
	p := w.client(t)
	var out []string
	try := func(name, path string, header ...string) {
		resp, err := p.raw(t, path, header...)
		status := "no reply"
		if err == nil {
			status = fmt.Sprint(resp.StatusCode)
		}
		out = append(out, name+" "+status)
	}
	try("7 kB", "/node/v1/selftest/headers", "X-Long", strings.Repeat("x", 7000))
	try("9 kB", "/node/v1/selftest/headers", "X-Long", strings.Repeat("x", 9000))
	many := func(n, size int) (header []string) {
		for i := range n {
			header = append(header, fmt.Sprintf("X-%d", i), strings.Repeat("x", size))
		}
		return header
	}
	try("40 kB in lines", "/node/v1/selftest/headers", many(40, 1000)...)
	try("300 headers", "/node/v1/selftest/headers", many(300, 1)...)
	try("long path", "/node/v1/selftest/headers?"+strings.Repeat("x", 20_000))
	return strings.Join(out, "; ")
}

// raw sends a request that Go's client would refuse or tidy up.
func (p *peer) raw(t *testing.T, path string, header ...string) (*http.Response, error) {
	t.Helper()
	c, err := tls.Dial("tcp", p.addr, p.tls)
	require.NoError(t, err)
	defer c.Close()
	var b strings.Builder
	fmt.Fprintf(&b, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n", path, nodeName)
	for i := 0; i+1 < len(header); i += 2 {
		fmt.Fprintf(&b, "%s: %s\r\n", header[i], header[i+1])
	}
	io.WriteString(c, b.String()+"\r\n") // an early answer may cut it
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	resp.Header.Set("Body-Seen", string(text))
	return resp, nil
}

func otherPaths(t *testing.T, w *world) string {
	p := w.client(t)
	for _, path := range []string{
		"/", "/healthz", "/node", "/node/v1", "/node/v10/status", "/api/v1/jobs", "/NODE/V1/status",
		"/node/v1/../../healthz", "/node/v1/%2e%2e/%2e%2e/healthz", "/node/v1/..%2f..%2fhealthz", "/node/v1/./../../healthz",
		"//healthz", "/-/send/disks/disk%201.img", "/%2d/send/disks/disk%201.img", "/index.html", "/node/v1/..",
	} {
		resp, err := p.raw(t, path)
		require.NoError(t, err, "%s", path)
		body := resp.Header.Get("Body-Seen")
		t.Logf("%s: %d", path, resp.StatusCode)
		if !strings.HasPrefix(path, "/node/v1/") {
			require.Contains(t, []int{http.StatusNotFound, http.StatusBadRequest}, resp.StatusCode, "%s: %s", path, body)
		}
		if strings.Contains(body, "the responder was asked") {
			return path + " reached the responder: " + body
		}
	}
	return "none reached the responder"
}

func banner(t *testing.T, w *world) string {
	resp, _ := w.client(t).get(t, "selftest/headers")
	if got := resp.Header.Values("Server"); len(got) > 0 {
		return strings.Join(got, ", ")
	}
	return "none"
}
