package fastcgi_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/textproto"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"gantry/fastcgi"
	"gantry/internal/testkit"

	"github.com/stretchr/testify/require"
)

const (
	begin, abort, end, params, stdin, stdout = 1, 2, 3, 4, 5, 6
	getValues, getValuesResult, unknownType  = 9, 10, 11

	responder, keepConn = 1, 1
)

// patience bounds every wait of a test; nothing waits for it to pass.
const patience = 10 * time.Second

// logs collects what the server says.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// served is a running server.
type served struct {
	*fastcgi.Server
	path string
	logs *logs
}

// serve runs srv on a unix socket until the end of the test.
func serve(t testing.TB, srv *fastcgi.Server) *served {
	t.Helper()
	s := &served{Server: srv, path: filepath.Join(testkit.Dir(t), "s"), logs: &logs{}}
	if srv.Logger == nil {
		srv.Logger = slog.New(slog.NewTextHandler(s.logs, nil))
	}
	l, err := net.Listen("unix", s.path)
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-ended; !errors.Is(err, fastcgi.ErrServerClosed) {
			t.Errorf("Serve returned %v", err)
		}
	})
	return s
}

func handle(t testing.TB, h http.HandlerFunc) *served {
	return serve(t, &fastcgi.Server{Handler: h})
}

// front is the other end of a connection, record by record.
type front struct {
	net.Conn
	t  testing.TB
	br *bufio.Reader
}

func (s *served) dial(t testing.TB) *front {
	t.Helper()
	c, err := net.Dial("unix", s.path)
	require.NoError(t, err)
	return newFront(t, c)
}

func newFront(t testing.TB, c net.Conn) *front {
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	t.Cleanup(func() { c.Close() })
	return &front{Conn: c, t: t, br: bufio.NewReader(c)}
}

func rec(typ byte, id uint16, content []byte, padding int) []byte {
	b := []byte{1, typ}
	b = binary.BigEndian.AppendUint16(b, id)
	b = binary.BigEndian.AppendUint16(b, uint16(len(content)))
	b = append(b, byte(padding), 0)
	return append(append(b, content...), make([]byte, padding)...)
}

func beginRec(id uint16, role, flags byte) []byte {
	return rec(begin, id, []byte{0, role, flags, 0, 0, 0, 0, 0}, 0)
}

// stream cuts content into records and appends the empty one.
func stream(typ byte, id uint16, content []byte) (b []byte) {
	for len(content) > 0 {
		n := min(len(content), 65535)
		b = append(b, rec(typ, id, content[:n], 0)...)
		content = content[n:]
	}
	return append(b, rec(typ, id, nil, 0)...)
}

// cgi is a complete set of parameters; pairs are added, or replace.
func cgi(pairs ...string) []string {
	all := []string{"REQUEST_METHOD", "GET", "REQUEST_URI", "/", "SERVER_PROTOCOL", "HTTP/1.1", "HTTP_HOST", "example.org"}
	for i := 0; i+1 < len(pairs); i += 2 {
		found := false
		for j := 0; j < len(all); j += 2 {
			if found = all[j] == pairs[i]; found {
				all[j+1] = pairs[i+1]
				break
			}
		}
		if !found {
			all = append(all, pairs[i], pairs[i+1])
		}
	}
	return all
}

// head is everything of a request but the body.
func head(id uint16, flags byte, pairs []string) []byte {
	b := beginRec(id, responder, flags)
	return append(b, stream(params, id, fastcgi.EncodePairs(pairs...))...)
}

// request is a request without a body.
func request(id uint16, flags byte, pairs []string) []byte {
	return append(head(id, flags, pairs), rec(stdin, id, nil, 0)...)
}

// send writes records; the server may have closed already.
func (f *front) send(b ...[]byte) {
	f.t.Helper()
	_, err := f.Write(bytes.Join(b, nil))
	require.NoError(f.t, err)
}

type record struct {
	typ     byte
	id      uint16
	content []byte
	padding int
}

func (f *front) next() (record, error) {
	var h [8]byte
	if _, err := io.ReadFull(f.br, h[:]); err != nil {
		return record{}, err
	}
	r := record{h[1], binary.BigEndian.Uint16(h[2:]), make([]byte, binary.BigEndian.Uint16(h[4:])), int(h[6])}
	if _, err := io.ReadFull(f.br, r.content); err != nil {
		return r, err
	}
	_, err := f.br.Discard(r.padding)
	return r, err
}

// want reads one record of the given type.
func (f *front) want(typ byte, id uint16) []byte {
	f.t.Helper()
	r, err := f.next()
	require.NoError(f.t, err)
	require.Equal(f.t, [2]int{int(typ), int(id)}, [2]int{int(r.typ), int(r.id)}, "record type and id; content %q", r.content)
	return r.content
}

// ends waits for the end of the connection.
func (f *front) ends() {
	f.t.Helper()
	r, err := f.next()
	require.ErrorIs(f.t, err, io.EOF, "got record %+v", r)
}

// wantEnd reads FCGI_END_REQUEST.
func (f *front) wantEnd(id uint16, app uint32, protocol byte) {
	f.t.Helper()
	c := f.want(end, id)
	require.Len(f.t, c, 8)
	require.Equal(f.t, app, binary.BigEndian.Uint32(c), "appStatus")
	require.Equal(f.t, protocol, c[4], "protocolStatus")
}

// reply is a whole answer, as far as it came.
type reply struct {
	status   string
	header   textproto.MIMEHeader
	body     string
	sizes    []int // of the FCGI_STDOUT records
	app      uint32
	protocol byte
	err      error // the connection ended before FCGI_END_REQUEST
}

func (f *front) reply(id uint16) reply {
	f.t.Helper()
	var out bytes.Buffer
	var rep reply
	for {
		r, err := f.next()
		if err != nil {
			rep.err = err
			break
		}
		require.Equal(f.t, id, r.id)
		if r.typ == end {
			rep.app, rep.protocol = binary.BigEndian.Uint32(r.content), r.content[4]
			break
		}
		require.Equal(f.t, byte(stdout), r.typ)
		if len(r.content) > 0 {
			rep.sizes = append(rep.sizes, len(r.content))
			out.Write(r.content)
		}
	}
	br := bufio.NewReader(&out)
	rep.header, _ = textproto.NewReader(br).ReadMIMEHeader()
	rep.status = rep.header.Get("Status")
	body, _ := io.ReadAll(br)
	rep.body = string(body)
	return rep
}

// ask sends one request on a connection of its own.
func (s *served) ask(t testing.TB, body string, pairs ...string) reply {
	t.Helper()
	f := s.dial(t)
	f.send(head(1, 0, cgi(pairs...)), stream(stdin, 1, []byte(body)))
	rep := f.reply(1)
	f.Close()
	return rep
}

// receive waits for a value from a handler.
func receive[T any](t testing.TB, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		require.FailNow(t, "nothing came from the handler")
		panic("unreachable")
	}
}

func ok(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }

// changing is a handler that subtests replace.
type changing struct {
	mu sync.Mutex
	h  http.HandlerFunc
}

func (c *changing) Set(h http.HandlerFunc) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.h = h
}

func (c *changing) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	h := c.h
	c.mu.Unlock()
	h(w, r)
}
