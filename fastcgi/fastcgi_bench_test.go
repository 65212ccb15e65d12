package fastcgi_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/fcgi"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"testing"

	"gantry/fastcgi"
	"gantry/internal/testkit"

	"github.com/stretchr/testify/require"
)

// contender is a way to serve a handler on a listener; stop comes after its close.
type contender struct {
	name  string
	serve func(net.Listener, http.Handler) (stop func())
}

var contenders = []contender{
	{"fastcgi", func(l net.Listener, h http.Handler) func() {
		s := &fastcgi.Server{Handler: h}
		done := make(chan struct{})
		go func() { defer close(done); _ = s.Serve(l) }()
		return func() { _ = s.Shutdown(context.Background()); <-done }
	}},
	{"net-http-fcgi", func(l net.Listener, h http.Handler) func() {
		done := make(chan struct{})
		go func() { defer close(done); _ = fcgi.Serve(l, h) }()
		return func() { <-done }
	}},
}

func listen(b testing.TB) (net.Listener, string) {
	path := filepath.Join(testkit.Dir(b), "s")
	l, err := net.Listen("unix", path)
	require.NoError(b, err)
	return l, path
}

// params as lighttpd sends them for a request with a client certificate.
func typical() []string {
	pem := make([]byte, 1200)
	for i := range pem {
		pem[i] = 'A'
	}
	return cgi("REQUEST_URI", "/v1/tasks/0199-a?after=17", "CONTENT_LENGTH", "0", "GATEWAY_INTERFACE", "CGI/1.1",
		"SERVER_SOFTWARE", "lighttpd/1.4.69", "SERVER_NAME", "node.example", "SERVER_PORT", "443", "SERVER_ADDR", "192.0.2.1",
		"REMOTE_ADDR", "192.0.2.7", "REMOTE_PORT", "40122", "DOCUMENT_ROOT", "/var/empty", "SCRIPT_NAME", "/v1/tasks/0199-a",
		"QUERY_STRING", "after=17", "HTTPS", "on", "REQUEST_SCHEME", "https", "HTTP_ACCEPT", "application/x-ndjson",
		"HTTP_USER_AGENT", "client/1.0", "SSL_PROTOCOL", "TLSv1.3", "SSL_CIPHER", "TLS_AES_128_GCM_SHA256",
		"SSL_CLIENT_VERIFY", "SUCCESS", "SSL_CLIENT_CERT", string(pem))
}

// drainReply reads records until FCGI_END_REQUEST without allocating.
func drainReply(br *bufio.Reader) error {
	for {
		h, err := br.Peek(8)
		if err != nil {
			return err
		}
		typ, n := h[1], 8+int(h[4])<<8+int(h[5])+int(h[6])
		if _, err := br.Discard(n); err != nil || typ == end {
			return err
		}
	}
}

// BenchmarkRequest is a small request and reply. The client allocates nothing
// but its socket, so the figures are the server's.
func BenchmarkRequest(b *testing.B) {
	for _, c := range contenders {
		for _, kept := range []bool{false, true} {
			name := c.name + "/socket-each"
			flags := byte(0)
			if kept {
				name, flags = c.name+"/kept", keepConn
			}
			b.Run(name, func(b *testing.B) {
				l, path := listen(b)
				stop := c.serve(l, http.HandlerFunc(ok))
				msg := request(1, flags, typical())
				br := bufio.NewReader(nil)
				var conn net.Conn
				b.ReportAllocs()
				for b.Loop() {
					if conn == nil {
						var err error
						conn, err = net.Dial("unix", path)
						require.NoError(b, err)
						br.Reset(conn)
					}
					if _, err := conn.Write(msg); err != nil {
						b.Fatal(err)
					}
					if err := drainReply(br); err != nil {
						b.Fatal(err)
					}
					if !kept {
						conn.Close()
						conn = nil
					}
				}
				if conn != nil {
					conn.Close()
				}
				l.Close()
				stop()
			})
		}
	}
}

// BenchmarkIdleRequest reports the memory, heap and stacks, of a request that
// has sent a line and now waits, as a feed does.
func BenchmarkIdleRequest(b *testing.B) {
	for _, c := range contenders {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				b.ReportMetric(float64(idleCost(b, c)), "B/request")
			}
		})
	}
}

// TestIdleRequest holds the promise of 64 KiB.
func TestIdleRequest(t *testing.T) {
	cost := idleCost(t, contenders[0])
	t.Logf("%d bytes for each idle request", cost)
	require.Less(t, cost, int64(64<<10))
}

func idleCost(b testing.TB, c contender) int64 {
	const n = 200
	l, path := listen(b)
	release := make(chan struct{})
	stop := c.serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "hello\n")
		w.(http.Flusher).Flush()
		<-release
	}))
	msg := request(1, 0, typical())
	conns := make([]net.Conn, n)
	for i := range conns { // before the measurement: they are the front's
		var err error
		conns[i], err = net.Dial("unix", path)
		require.NoError(b, err)
	}
	before := inUse()
	line := make([]byte, 512)
	for _, conn := range conns {
		_, err := conn.Write(msg)
		require.NoError(b, err)
		_, err = conn.Read(line)
		require.NoError(b, err)
	}
	cost := (inUse() - before) / n
	close(release)
	for _, conn := range conns {
		_, err := io.Copy(io.Discard, conn)
		if !errors.Is(err, io.EOF) {
			require.NoError(b, err)
		}
		conn.Close()
	}
	l.Close()
	stop()
	return cost
}

func inUse() int64 {
	debug.FreeOSMemory() // twice: sync.Pool keeps its content over one collection
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// BenchmarkUpload and BenchmarkDownload move 64 MiB in records as nginx makes them.
func BenchmarkUpload(b *testing.B) {
	const size = 64 << 20
	body := stream(stdin, 1, make([]byte, size))
	for _, c := range contenders {
		b.Run(c.name, func(b *testing.B) {
			l, path := listen(b)
			stop := c.serve(l, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				_, _ = io.CopyBuffer(onlyWriter{io.Discard}, r.Body, make([]byte, 64<<10))
			}))
			transfer(b, path, size, append(head(1, 0, cgi("CONTENT_LENGTH", "67108864")), body...))
			l.Close()
			stop()
		})
	}
}

type onlyWriter struct{ io.Writer }

func BenchmarkDownload(b *testing.B) {
	const size = 64 << 20
	block := make([]byte, 256<<10)
	for _, c := range contenders {
		b.Run(c.name, func(b *testing.B) {
			l, path := listen(b)
			stop := c.serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				for range size / len(block) {
					_, _ = w.Write(block)
				}
			}))
			transfer(b, path, size, request(1, 0, cgi()))
			l.Close()
			stop()
		})
	}
}

func transfer(b *testing.B, path string, size int64, msg []byte) {
	b.SetBytes(size)
	br := bufio.NewReaderSize(nil, 256<<10)
	for b.Loop() {
		conn, err := net.Dial("unix", path)
		require.NoError(b, err)
		br.Reset(conn)
		_, err = conn.Write(msg)
		require.NoError(b, err)
		require.NoError(b, drainReply(br))
		conn.Close()
	}
}
