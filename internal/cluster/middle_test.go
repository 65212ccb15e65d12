package cluster_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gantry/api"
	"gantry/config"
	"gantry/internal/cluster"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A middle stands inside TLS between beta and alpha's front: beta meets the
// certificate and key of alpha's front and cannot know, alpha meets beta's own
// certificate. So it can change whatever it carries, as a front that was taken
// over, or one with bad memory, could.
type middle struct {
	server *http.Server
	out    *http.Transport
	target string // URL of alpha's front
	stages string // beta's folder of stages

	// gate is held for reading while bytes go to beta, and for writing while
	// the stage is looked at: nothing moves then.
	gate sync.RWMutex

	mu     sync.Mutex
	plan   *plan           // guarded by mu; nil carries honestly
	before map[string]bool // guarded by mu; stages of earlier copies
}

// newMiddle makes itself alpha's data_url in beta's list of nodes.
func newMiddle(t *testing.T, c *cluster.Cluster) *middle {
	t.Helper()
	list := filepath.Join(c.Dir(), "beta", "node", "cluster.toml")
	nodes, err := config.LoadCluster(list)
	require.NoError(t, err)
	alpha, ok := nodes.Node("alpha")
	require.True(t, ok)
	pair := func(node, role string) tls.Certificate {
		dir := filepath.Join(c.Dir(), node, role)
		pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
		require.NoError(t, err)
		return pair
	}
	ca, err := os.ReadFile(filepath.Join(c.CA(), "ca.pem"))
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(ca))

	m := &middle{target: alpha.DataURL, stages: c.Path("beta", transfer.StageDir)}
	m.out = &http.Transport{
		TLSClientConfig:    &tls.Config{Certificates: []tls.Certificate{pair("beta", "node")}, RootCAs: roots, ServerName: "alpha", MinVersion: tls.VersionTLS13},
		DisableCompression: true,
	}
	var http1 http.Protocols
	http1.SetHTTP1(true)
	m.server = &http.Server{
		Handler: m, Protocols: &http1, ReadHeaderTimeout: 10 * time.Second,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair("alpha", "front")}, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13},
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- m.server.ServeTLS(l, "", "") }()
	t.Cleanup(func() {
		require.NoError(t, m.server.Close())
		require.ErrorIs(t, <-ended, http.ErrServerClosed)
		m.out.CloseIdleConnections()
	})

	text, err := os.ReadFile(list)
	require.NoError(t, err)
	changed := strings.Replace(string(text), fmt.Sprintf("data_url = %q", alpha.DataURL), fmt.Sprintf("data_url = %q", "https://"+l.Addr().String()), 1)
	require.NotEqual(t, string(text), changed)
	require.NoError(t, os.WriteFile(list, []byte(changed), 0o644))
	return m
}

// use sets what happens to the next copy; nil carries it honestly.
func (m *middle) use(p *plan) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.plan, m.before = p, map[string]bool{}
	for _, path := range m.all() {
		m.before[path] = true
	}
}

func (m *middle) all() []string {
	paths, _ := filepath.Glob(filepath.Join(m.stages, "*.stage"))
	return paths
}

// sound looks at the stages of the present copy.
func (m *middle) sound(source string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, path := range m.all() {
		if m.before[path] {
			continue
		}
		if err := soundStage(path, source); err != nil {
			return err
		}
	}
	return nil
}

// soundStage says which 4 KiB block of a stage is neither a hole nor the
// source's.
func soundStage(stage, source string) error {
	const block = 4 << 10
	st, err := os.Open(stage)
	if errors.Is(err, os.ErrNotExist) {
		return nil // published
	}
	if err != nil {
		return err
	}
	defer st.Close()
	src, err := os.Open(source)
	if err != nil {
		return err
	}
	defer src.Close()
	is, want := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := int64(0); ; {
		data, err := unix.Seek(int(st.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		if err != nil {
			return err
		}
		n, err := st.ReadAt(is, data)
		if n == 0 {
			return err
		}
		hole, err := unix.Seek(int(st.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		n = int(min(int64(n), hole-data))
		k, err := src.ReadAt(want[:n], data)
		if err != nil && err != io.EOF {
			return err
		}
		for b := 0; b < n; b += block {
			if e := min(b+block, n); e > k || !bytes.Equal(is[b:e], want[b:e]) {
				return fmt.Errorf("%s: the block at %d is neither a hole nor the source's", filepath.Base(stage), data+int64(b))
			}
		}
		at = data + int64(n)
	}
}

// ServeHTTP carries one request and lets the plan change the reply.
func (m *middle) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	p := m.plan
	m.mu.Unlock()
	content := strings.HasSuffix(r.URL.Path, "/content")
	var off, end int64
	if content {
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &off, &end); err != nil {
			panic(http.ErrAbortHandler)
		}
		if p != nil {
			m.judged(p, off, end)
		}
	}
	resp, body, err := m.ask(r)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	reply := &reply{status: resp.StatusCode, header: resp.Header, body: body}
	switch {
	case p == nil || resp.StatusCode/100 != 2:
	case content:
		p.tamper(reply, off)
	default:
		p.lie(reply, r.URL.Query())
	}
	m.send(w, r, reply)
}

// judged looks at the stage when beta asks again for a piece that it got
// corrupted: it has decided then what to do with the bytes.
func (m *middle) judged(p *plan, off, end int64) {
	pieces := p.awaits(off, end)
	if len(pieces) == 0 {
		return
	}
	m.gate.Lock()
	defer m.gate.Unlock()
	// What left here before the pause may be on its way to the stage: a block
	// that is being written is looked at again.
	err := m.sound(p.source)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for tries := 0; err != nil && tries < 200; tries++ {
		<-tick.C
		err = m.sound(p.source)
	}
	p.inspected(pieces, err)
}

// ask puts beta's request to alpha and reads the reply.
func (m *middle) ask(r *http.Request) (*http.Response, []byte, error) {
	out, err := http.NewRequestWithContext(r.Context(), r.Method, m.target+r.URL.RequestURI(), nil)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range []string{"Range", "Accept", api.TicketHeader} {
		if v := r.Header.Get(name); v != "" {
			out.Header.Set(name, v)
		}
	}
	resp, err := m.out.RoundTrip(out)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 2*api.MaxRange))
	return resp, body, err
}

// A reply is what beta gets.
type reply struct {
	status int
	header http.Header
	body   []byte
	// declared is the Content-Length, which a body that was changed has not;
	// 0: the body goes out in chunks, and its end is one in good order.
	declared int
	broken   bool   // the connection breaks behind the body
	endless  []byte // is repeated behind the body until beta leaves
}

func (m *middle) send(w http.ResponseWriter, r *http.Request, p *reply) {
	for _, name := range []string{"Content-Type", "Content-Range", "Etag"} {
		if v := p.header.Get(name); v != "" {
			w.Header().Set(name, v)
		}
	}
	if p.declared > 0 {
		w.Header().Set("Content-Length", fmt.Sprint(p.declared))
	}
	w.WriteHeader(p.status)
	flusher := http.NewResponseController(w)
	write := func(b []byte) bool {
		m.gate.RLock()
		defer m.gate.RUnlock()
		_, err := w.Write(b)
		return err == nil && flusher.Flush() == nil
	}
	for body := p.body; len(body) > 0; {
		n := min(len(body), 256<<10)
		if !write(body[:n]) {
			return
		}
		body = body[n:]
	}
	for len(p.endless) > 0 && r.Context().Err() == nil && write(p.endless) {
	}
	if p.broken {
		panic(http.ErrAbortHandler)
	}
}

// pieceOf is the piece that a content request begins with.
func pieceOf(off int64) int64 { return off / transfer.PieceSize }

// rehash says whether a manifest request asks to read again.
func rehash(q url.Values) bool { return q.Get("rehash") != "" }
