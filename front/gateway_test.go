package front

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"gantry/internal/testkit"
)

// scripted is a responder that reads the parameters and then says what it was
// told to say, whatever that is.
func scripted(t *testing.T, say []byte) (socket string) {
	t.Helper()
	socket = filepath.Join(testkit.Dir(t), "s")
	l, err := net.Listen("unix", socket)
	require.NoError(t, err)
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			var seen []byte
			buf := make([]byte, 1<<16)
			for !bytes.Contains(seen, emptyParams) {
				n, err := c.Read(buf)
				seen = append(seen, buf[:n]...)
				if err != nil {
					break
				}
			}
			c.Write(say)
			c.(*net.UnixConn).CloseWrite()
			io.Copy(io.Discard, c)
			c.Close()
		}
	}()
	return socket
}

var emptyParams = []byte{1, 4, 0, 1, 0, 0, 0, 0}

func stdout(text string) []byte {
	return append([]byte{1, 6, 0, 1, byte(len(text) >> 8), byte(len(text)), 0, 0}, text...)
}

func end(app, protocol byte) []byte {
	return []byte{1, 3, 0, 1, 0, 8, 0, 0, 0, 0, 0, app, protocol, 0, 0, 0}
}

// through asks a gateway before such a responder.
func through(t *testing.T, socket string) (*http.Response, string, error) {
	t.Helper()
	g := &gateway{socket: socket, logf: t.Logf}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.TLS = &tls.ConnectionState{Version: tls.VersionTLS13, PeerCertificates: []*x509.Certificate{{Raw: []byte("any")}}}
		g.ServeHTTP(w, r)
	}))
	defer s.Close()
	resp, err := s.Client().Get(s.URL)
	require.NoError(t, err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return resp, string(data), err
}

func TestGatewayReplies(t *testing.T) {
	const head = "Status: 200 OK\r\nContent-Type: text/plain\r\n"
	long := head + "X-Long: " + strings.Repeat("x", 2000) + "\r\n\r\n"
	for _, c := range []struct {
		name   string
		say    [][]byte
		status int
		body   string
		broken bool
	}{
		{"whole", [][]byte{stdout(head + "\r\nhello"), end(0, 0)}, 200, "hello", false},
		{"whole, in small records", [][]byte{stdout(head[:7]), stdout(head[7:] + "\r\n"), stdout("hel"), stdout("lo"), end(0, 0)}, 200, "hello", false},
		{"with a length", [][]byte{stdout(head + "Content-Length: 5\r\n\r\nhello"), end(0, 0)}, 200, "hello", false},
		{"shorter than its length", [][]byte{stdout(head + "Content-Length: 6\r\n\r\nhello"), end(0, 0)}, 200, "hello", true},
		{"no end record", [][]byte{stdout(head + "\r\nhello")}, 200, "hello", true},
		{"half an end record", [][]byte{stdout(head + "\r\nhello"), end(0, 0)[:12]}, 200, "hello", true},
		{"application status 1", [][]byte{stdout(head + "\r\nhello"), end(1, 0)}, 200, "hello", true},
		{"nothing", nil, 502, "the responder gave no reply\n", false},
		{"overloaded", [][]byte{end(0, 2)}, 502, "the responder gave no reply\n", false},
		{"half a header", [][]byte{stdout(head[:20]), end(0, 0)}, 502, "the responder gave no reply\n", false},
		{"header line beyond gofast's 1,024 bytes", [][]byte{stdout(long), end(0, 0)}, 502, "the responder gave no reply\n", false},
		{"no FastCGI at all", [][]byte{[]byte("HTTP/1.1 200 OK\r\n\r\nhello")}, 502, "the responder gave no reply\n", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp, body, err := through(t, scripted(t, bytes.Join(c.say, nil)))
			require.Equal(t, c.status, resp.StatusCode)
			require.Equal(t, c.body, body)
			require.Equal(t, c.broken, err != nil, "%v", err)
		})
	}
}

// Orders to a front that sends files go no further than a front that does not.
func TestGatewayDropsOrders(t *testing.T) {
	resp, _, err := through(t, scripted(t, append(stdout("Status: 200 OK\r\nX-Sendfile: /srv/a\r\nX-Accel-Redirect: /-/send/a\r\nX-Accel-Buffering: no\r\nX-Kept: 1\r\n\r\n"), end(0, 0)...)))
	require.NoError(t, err)
	require.Equal(t, "1", resp.Header.Get("X-Kept"))
	for name := range resp.Header {
		require.NotContains(t, fmt.Sprint(name), "X-Accel")
		require.NotEqual(t, "X-Sendfile", name)
	}
}

func TestGatewayWithoutResponder(t *testing.T) {
	resp, body, err := through(t, filepath.Join(testkit.Dir(t), "s"))
	require.NoError(t, err)
	require.Equal(t, http.StatusBadGateway, resp.StatusCode)
	require.Equal(t, "no responder\n", body)
}
