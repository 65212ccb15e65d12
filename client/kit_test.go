package client_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"gantry/api"
	"gantry/client"
	"gantry/config"
	"gantry/feedback"
	"gantry/pki"

	"github.com/stretchr/testify/require"
)

// pipes is a listener whose connections are net.Pipes, so that a whole client
// and server live in a synctest bubble and wait in no time.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

func (p *pipes) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return ours, nil
	case <-p.done:
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// authority is a CA with an operator and the front of node alpha.
type authority struct {
	dir             string
	ca              *pki.CA
	operator, front *pki.Identity
}

func newAuthority(t *testing.T) *authority {
	a := &authority{dir: t.TempDir()}
	var err error
	a.ca, err = pki.InitCA(filepath.Join(a.dir, "ca"), "demo", pki.Options{})
	require.NoError(t, err)
	a.operator = a.issue(t, pki.RoleOperator, "ann")
	a.front = a.issue(t, pki.RoleFront, "alpha")
	return a
}

func (a *authority) issue(t *testing.T, role, name string) *pki.Identity {
	leaf, err := a.ca.Issue(role, name, nil, 48*time.Hour)
	require.NoError(t, err)
	path := func(ext string) string { return filepath.Join(a.dir, role+"-"+name+ext) }
	require.NoError(t, os.WriteFile(path(".ca"), a.ca.CertPEM(), 0o600))
	require.NoError(t, os.WriteFile(path(".pem"), leaf.CertPEM, 0o600))
	require.NoError(t, os.WriteFile(path(".key"), leaf.KeyPEM, 0o600))
	id, err := pki.LoadIdentity(path(".ca"), path(".pem"), path(".key"))
	require.NoError(t, err)
	return id
}

// node serves handler as node alpha until the test ends, and returns a client
// of it. change may be nil.
func node(t *testing.T, handler http.HandlerFunc, change func(*client.Config, *tls.Config, *authority)) *client.Client {
	t.Helper()
	a, p := newAuthority(t), newPipes()
	server := pki.ServerTLS(a.front)
	conf := client.Config{
		Node: config.ClusterNode{Name: "alpha", URL: "https://alpha.test:8443"},
		TLS:  pki.ClientTLS(a.operator, "alpha", nil),
		Dial: p.dial,
	}
	if change != nil {
		change(&conf, server, a)
	}
	srv := &http.Server{Handler: handler, TLSConfig: server, ErrorLog: log.New(io.Discard, "", 0)}
	var done sync.WaitGroup
	done.Go(func() { srv.ServeTLS(p, "", "") })
	c := client.New(conf)
	t.Cleanup(func() {
		c.Close()
		srv.Close()
		done.Wait()
	})
	return c
}

func pinned(a *authority) *tls.Config {
	return pki.ClientTLS(a.operator, "alpha", []string{pki.Pin(a.operator.Cert.Leaf)})
}

func otherPool(t *testing.T) *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(newAuthority(t).front.CA)
	return pool
}

const (
	taskID = "0199a7e0-0000-7000-8000-000000000001"
	dirA   = "11111111111111111111111111111111"
	dirB   = "22222222222222222222222222222222"
)

func request() *api.TaskRequest {
	return &api.TaskRequest{ID: taskID, Op: api.OpDigest, Args: api.Encode(api.DigestArgs{File: api.File{Resource: "disks", Path: "a"}})}
}

// lines of a feed.
func hello(dir string, last int) string {
	return fmt.Sprintf(`{"kind":"hello","v":1,"id":%q,"op":"digest","node":"alpha","start":1,"interval":10,"last":%d,"dir_id":%q}`+"\n", taskID, last, dir)
}

func state(seq int) string {
	return fmt.Sprintf(`{"seq":%d,"t":"2026-11-20T21:31:04.120Z","kind":"state","state":"running"}`+"\n", seq)
}

func result(seq int) string {
	return fmt.Sprintf(`{"seq":%d,"t":"2026-11-20T21:31:04.120Z","kind":"result","value":{"digest":"b3:0"}}`+"\n", seq)
}

const heartbeat = `{"kind":"heartbeat","t":"2026-11-20T21:31:04.120Z","last":1}` + "\n"

// send writes lines, each flushed, as a feed.
func send(w http.ResponseWriter, lines ...string) {
	w.Header().Set("Content-Type", api.TypeFeed)
	for _, l := range lines {
		io.WriteString(w, l)
		w.(http.Flusher).Flush()
	}
}

func refuse(w http.ResponseWriter, code *api.Code, dirID string) {
	w.Header().Set("Content-Type", api.TypeProblem)
	w.WriteHeader(code.Status)
	w.Write(api.Encode(api.Problem{
		Type: "about:blank", Title: code.Name, Status: code.Status, Detail: "no", Code: code.Name, Retryable: code.Retryable, DirID: dirID,
	}))
}

// script answers the nth request with the nth handler and fails the test on
// one too many.
type script struct {
	t     *testing.T
	mu    sync.Mutex
	seen  []string
	steps []http.HandlerFunc
}

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.seen = append(s.seen, r.Method+" "+r.URL.RequestURI())
	n := len(s.seen)
	s.mu.Unlock()
	if n > len(s.steps) {
		s.t.Errorf("request %d is one too many: %s %s", n, r.Method, r.URL)
		w.WriteHeader(http.StatusTeapot)
		return
	}
	s.steps[n-1](w, r)
}

func (s *script) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen
}

func collect(into *[]string) func(feedback.Record) error {
	return func(rec feedback.Record) error {
		*into = append(*into, fmt.Sprintf("%s %d", rec.Kind, rec.Seq))
		return nil
	}
}
