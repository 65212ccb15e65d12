package fastcgi_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"gantry/fastcgi"
	"gantry/internal/testkit"

	"github.com/stretchr/testify/require"
)

func TestKeepConn(t *testing.T) {
	s := serve(t, &fastcgi.Server{
		Limits: fastcgi.Limits{IdleTimeout: 100 * time.Millisecond},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			_, _ = w.Write(append([]byte(r.URL.Path), b...))
		}),
	})
	f := s.dial(t)
	for i := range 200 { // ids are used again, as nginx does, and change
		id, path := uint16(1+i%3), "/"+strconv.Itoa(i)
		f.send(head(id, keepConn, cgi("REQUEST_URI", path, "CONTENT_LENGTH", "4")), stream(stdin, id, []byte("body")))
		require.Equal(t, path+"body", f.reply(id).body)
	}
	f.ends() // idle for too long

	f = s.dial(t)
	f.send(request(1, 0, cgi()))
	require.NoError(t, f.reply(1).err)
	f.ends()
}

// TestDefaultTimes runs on a clock of its own.
func TestDefaultTimes(t *testing.T) {
	silent := func(t *testing.T, send []byte, answered bool, want time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			near, far := net.Pipe()
			srv := &fastcgi.Server{Handler: http.HandlerFunc(ok)}
			ended := make(chan struct{})
			go func() { defer close(ended); srv.ServeConn(near) }()
			_, err := far.Write(send)
			require.NoError(t, err)
			if answered {
				require.NoError(t, (&front{far, t, bufio.NewReader(far)}).reply(1).err)
			}
			start := time.Now()
			<-ended
			require.Equal(t, want, time.Since(start))
		})
	}
	t.Run("A17 nothing comes", func(t *testing.T) { silent(t, nil, false, 10*time.Second) })
	t.Run("A17 half a header", func(t *testing.T) { silent(t, []byte{1, 1, 0}, false, 10*time.Second) })
	t.Run("A17 half a request", func(t *testing.T) { silent(t, beginRec(1, responder, 0), false, 10*time.Second) })
	t.Run("idle", func(t *testing.T) { silent(t, request(1, keepConn, cgi()), true, 90*time.Second) })
	t.Run("lingering", func(t *testing.T) { silent(t, request(1, 0, cgi()), true, 5*time.Second) })
}

func TestPeers(t *testing.T) {
	peers := make(chan fastcgi.Peer, 1)
	h := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		p, found := fastcgi.PeerFrom(r.Context())
		require.True(t, found)
		peers <- p
	})
	me := fastcgi.Peer{UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), PID: int32(os.Getpid())}

	t.Run("allowed", func(t *testing.T) {
		s := serve(t, &fastcgi.Server{Handler: h, AllowPeer: func(p fastcgi.Peer) bool { return p == me }})
		require.Equal(t, "200 OK", s.ask(t, "").status)
		require.Equal(t, me, receive(t, peers))
	})
	t.Run("refused", func(t *testing.T) {
		s := serve(t, &fastcgi.Server{Handler: h, AllowPeer: func(p fastcgi.Peer) bool { return p.UID == 65533 }})
		for range 2 {
			s.dial(t).ends()
		}
		require.Eventually(t, func() bool { return s.logs.String() != "" }, patience, time.Millisecond)
		require.Regexp(t, `^[^\n]*FastCGI peer refused[^\n]* uid=`+strconv.Itoa(os.Getuid())+` pid=\d+\n$`, s.logs.String())
	})
	t.Run("unknown is refused", func(t *testing.T) {
		near, far := net.Pipe()
		srv := &fastcgi.Server{Handler: h, AllowPeer: func(fastcgi.Peer) bool { return true }}
		srv.ServeConn(near)
		_, err := far.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
	})
	t.Run("another uid", func(t *testing.T) {
		if os.Getuid() != 0 {
			t.Skip("needs root to become another user")
		}
		s := serve(t, &fastcgi.Server{Handler: h, AllowPeer: func(p fastcgi.Peer) bool { return p.UID == 0 }})
		require.NoError(t, os.Chmod(s.path, 0o777))
		fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		require.NoError(t, err)
		defer syscall.Close(fd)
		require.NoError(t, connectAs(58299, fd, s.path))
		n, err := syscall.Read(fd, make([]byte, 1))
		require.NoError(t, err)
		require.Zero(t, n, "closed at once")
		require.Eventually(t, func() bool { return s.logs.String() != "" }, patience, time.Millisecond)
		require.Contains(t, s.logs.String(), "uid=58299")
	})
}

func TestCaps(t *testing.T) {
	release := make(chan struct{})
	running := make(chan struct{})
	s := serve(t, &fastcgi.Server{
		Limits: fastcgi.Limits{Conns: 3, Requests: 2},
		Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			running <- struct{}{}
			<-release
		}),
	})
	a, b := s.dial(t), s.dial(t)
	a.send(request(1, keepConn, cgi()))
	b.send(request(1, 0, cgi()))
	receive(t, running)
	receive(t, running)

	c := s.dial(t)
	c.send(request(5, keepConn, cgi()))
	c.wantEnd(5, 0, 2) // FCGI_OVERLOADED
	s.dial(t).ends()   // one connection too many
	require.Contains(t, s.logs.String(), "too many requests")
	require.Contains(t, s.logs.String(), "too many connections")

	a.send(request(2, keepConn, cgi()))
	a.wantEnd(2, 0, 1) // FCGI_CANT_MPX_CONN goes first

	close(release)
	require.NoError(t, a.reply(1).err)
	require.NoError(t, b.reply(1).err)
	c.send(request(6, 0, cgi())) // slots are given back
	receive(t, running)
	require.NoError(t, c.reply(6).err)
	c.send() // the connection has not been closed for the refusal
}

// TestSlotsComeBack: a request that never reached its handler holds none.
func TestSlotsComeBack(t *testing.T) {
	s := serve(t, &fastcgi.Server{Limits: fastcgi.Limits{Requests: 1}, Handler: http.HandlerFunc(ok)})
	for name, records := range map[string][]byte{
		"hangs up":       beginRec(1, responder, 0),
		"aborts":         append(beginRec(1, responder, 0), rec(abort, 1, nil, 0)...),
		"breaks records": append(beginRec(1, responder, 0), rec(stdin, 1, nil, 0)...),
		"bad parameters": append(beginRec(1, responder, 0), append(rec(params, 1, nil, 0), rec(stdin, 1, nil, 0)...)...),
	} {
		t.Run(name, func(t *testing.T) {
			f := s.dial(t)
			f.send(records)
			require.NoError(t, f.Conn.(*net.UnixConn).CloseWrite())
			for { // until the server has closed
				if _, err := f.next(); err != nil {
					break
				}
			}
			require.Equal(t, "ok", s.ask(t, "").body)
		})
	}
}

// TestSlotIsFreeAtTheEnd: who has read FCGI_END_REQUEST may begin the next request
// at once, on any connection.
func TestSlotIsFreeAtTheEnd(t *testing.T) {
	s := serve(t, &fastcgi.Server{Limits: fastcgi.Limits{Requests: 1}, Handler: http.HandlerFunc(ok)})
	for range 500 {
		require.Equal(t, "ok", s.ask(t, "").body)
	}
}

// start runs a server whose end the test itself brings about.
func start(t *testing.T, srv *fastcgi.Server) (dial func() *front, served <-chan error) {
	path := filepath.Join(testkit.Dir(t), "s")
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	ch := make(chan error, 1)
	go func() { ch <- srv.Serve(l) }()
	return func() *front {
		c, err := net.Dial("unix", path)
		require.NoError(t, err)
		return newFront(t, c)
	}, ch
}

func TestShutdownWaits(t *testing.T) {
	running, release := make(chan struct{}), make(chan struct{})
	srv := &fastcgi.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			running <- struct{}{}
			<-release
		}
		_, _ = io.WriteString(w, "done")
	})}
	dial, served := start(t, srv)
	idle, fresh, busy := dial(), dial(), dial()
	idle.send(request(1, keepConn, cgi()))
	require.NoError(t, idle.reply(1).err)
	busy.send(request(1, keepConn, cgi("REQUEST_URI", "/wait")))
	receive(t, running)

	stopped := make(chan error, 1)
	go func() { stopped <- srv.Shutdown(context.Background()) }()
	require.ErrorIs(t, receive(t, served), fastcgi.ErrServerClosed)
	idle.ends()
	fresh.send(request(1, 0, cgi())) // was on its way
	require.Equal(t, "done", fresh.reply(1).body)
	fresh.Close()
	require.Empty(t, stopped)
	close(release)
	require.Equal(t, "done", busy.reply(1).body)
	busy.ends() // in spite of FCGI_KEEP_CONN
	busy.Close()
	require.NoError(t, receive(t, stopped))
	require.NoError(t, srv.Shutdown(context.Background()), "again")
	require.NoError(t, srv.Close())

	l, err := net.Listen("unix", filepath.Join(testkit.Dir(t), "s"))
	require.NoError(t, err)
	require.ErrorIs(t, srv.Serve(l), fastcgi.ErrServerClosed)
	_, err = l.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
}

func TestShutdownCancels(t *testing.T) {
	running := make(chan struct{}, 2)
	results := make(chan error, 2)
	stubborn := make(chan struct{})
	srv := &fastcgi.Server{
		Limits: fastcgi.Limits{StopTimeout: 200 * time.Millisecond},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			running <- struct{}{}
			if r.URL.Path == "/stubborn" {
				<-stubborn
				return
			}
			if r.URL.Path == "/read" {
				_, err := io.ReadAll(r.Body)
				results <- err
			} else {
				<-r.Context().Done()
				results <- context.Cause(r.Context())
			}
			_, _ = io.WriteString(w, "closing")
		}),
	}
	dial, served := start(t, srv)
	waiting, reading, ignoring := dial(), dial(), dial()
	waiting.send(request(1, 0, cgi()))
	reading.send(head(1, 0, cgi("REQUEST_URI", "/read", "CONTENT_LENGTH", "5")))
	ignoring.send(request(1, 0, cgi("REQUEST_URI", "/stubborn")))
	for range 3 {
		receive(t, running)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- srv.Shutdown(ctx) }()
	for range 2 {
		require.ErrorIs(t, receive(t, results), fastcgi.ErrServerClosed)
	}
	require.Equal(t, "closing", waiting.reply(1).body, "there is time for a last word")
	require.Equal(t, "closing", reading.reply(1).body)
	waiting.Close()
	reading.Close()
	err := receive(t, stopped)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorContains(t, err, "1 left behind")
	require.ErrorIs(t, ignoring.reply(1).err, io.EOF)
	require.ErrorIs(t, receive(t, served), fastcgi.ErrServerClosed)
	close(stubborn)
	require.NoError(t, srv.Shutdown(context.Background()))
}

func TestClose(t *testing.T) {
	causes := make(chan error, 1)
	running := make(chan struct{}, 1)
	srv := &fastcgi.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		running <- struct{}{}
		<-r.Context().Done()
		causes <- context.Cause(r.Context())
	})}
	dial, served := start(t, srv)
	f := dial()
	f.send(request(1, 0, cgi()))
	receive(t, running)
	require.NoError(t, srv.Close())
	require.ErrorIs(t, receive(t, causes), fastcgi.ErrServerClosed)
	require.ErrorIs(t, f.reply(1).err, io.EOF)
	require.ErrorIs(t, receive(t, served), fastcgi.ErrServerClosed)
	require.NoError(t, srv.Shutdown(context.Background()))
}

// scripted is a listener that fails as told.
type scripted struct {
	net.Listener
	errs  []error
	calls atomic.Int32
}

func (l *scripted) Accept() (net.Conn, error) {
	return nil, l.errs[l.calls.Add(1)-1]
}
func (l *scripted) Close() error { return nil }

func TestAcceptErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken")
		l := &scripted{errs: []error{syscall.EMFILE, syscall.ENFILE, syscall.ECONNABORTED, broken}}
		start := time.Now()
		err := (&fastcgi.Server{}).Serve(l)
		require.ErrorIs(t, err, broken)
		require.Equal(t, 35*time.Millisecond, time.Since(start), "5, 10 and 20 ms of waiting")
	})
}

func TestDefaultHandlerAndTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	srv := &fastcgi.Server{}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	c, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	f := newFront(t, c)
	f.send(request(1, 0, cgi("REQUEST_URI", "/nowhere-in-the-default-mux")))
	require.Equal(t, "404 Not Found", f.reply(1).status)
	f.Close()
	require.NoError(t, srv.Shutdown(context.Background()))
	require.ErrorIs(t, receive(t, ended), fastcgi.ErrServerClosed)
}
