package fastcgi_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
	"time"

	"gantry/fastcgi"

	"github.com/stretchr/testify/require"
)

// TestClientGone is the promise that the standard library does not make: the
// context ends with the socket whatever the handler is doing.
func TestClientGone(t *testing.T) {
	started, causes := make(chan struct{}, 1), make(chan error, 1)
	s := handle(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/some" {
			_, _ = io.ReadFull(r.Body, make([]byte, 100))
		}
		started <- struct{}{}
		<-r.Context().Done()
		causes <- context.Cause(r.Context())
	})
	big := bytes.Repeat([]byte("x"), 1<<20)
	for _, c := range []struct {
		name  string
		send  []byte
		flood bool // more than the read-ahead and the socket hold
	}{
		{"after the body", request(1, 0, cgi()), false},
		{"before the body", head(1, 0, cgi("CONTENT_LENGTH", "5")), false},
		{"within the body", append(head(1, 0, cgi("CONTENT_LENGTH", "50")), rec(stdin, 1, []byte("xyz"), 0)[:10]...), false},
		{"while nobody reads the body", head(1, 0, cgi("CONTENT_LENGTH", "1048576")), true},
		{"after some of the body was read", head(1, 0, cgi("CONTENT_LENGTH", "1048576", "REQUEST_URI", "/some")), true},
	} {
		for _, half := range []bool{false, true} {
			name := c.name + ", closed"
			if half {
				name = c.name + ", half closed"
			}
			t.Run(name, func(t *testing.T) {
				f := s.dial(t)
				f.send(c.send)
				if c.flood {
					fill(t, f, stream(stdin, 1, big))
				}
				receive(t, started)
				require.Empty(t, causes)
				if half {
					require.NoError(t, f.Conn.(*net.UnixConn).CloseWrite())
				} else {
					f.Close()
				}
				require.ErrorIs(t, receive(t, causes), fastcgi.ErrClientGone)
			})
		}
	}
}

// fill writes until the other side takes no more, and reports that it does not.
func fill(t *testing.T, f *front, b []byte) (n int) {
	t.Helper()
	for len(b) > 0 {
		require.NoError(t, f.SetWriteDeadline(time.Now().Add(100*time.Millisecond)))
		m, err := f.Write(b[:min(len(b), 64<<10)])
		n, b = n+m, b[m:]
		if err != nil {
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			return n
		}
	}
	require.Fail(t, "the server took it all")
	return n
}

// TestParkedCostsNothing: a reader that waits for room does not spin, and bytes
// that arrive meanwhile do not end the wait.
func TestParkedCostsNothing(t *testing.T) {
	started, release := make(chan struct{}), make(chan struct{})
	sums := make(chan [32]byte, 1)
	s := handle(t, func(_ http.ResponseWriter, r *http.Request) {
		started <- struct{}{}
		<-release
		h := sha256.New()
		_, err := io.Copy(h, r.Body)
		if err == nil {
			sums <- [32]byte(h.Sum(nil))
		}
	})
	data := make([]byte, 4<<20)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(data)
	all := stream(stdin, 1, data)
	f := s.dial(t)
	f.send(head(1, 0, cgi("CONTENT_LENGTH", "4194304")))
	receive(t, started)
	n := fill(t, f, all)
	var before, after syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &before))
	n += fill(t, f, all[n:]) // 100 ms in which nothing moves
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &after))
	used := time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
	require.Less(t, used, 50*time.Millisecond, "processor time within 100 ms")
	require.Less(t, n, 256<<10+32<<10+512<<10, "read-ahead, one chunk and what the kernel holds")
	close(release)
	require.NoError(t, f.SetDeadline(time.Now().Add(patience)))
	f.send(all[n:])
	require.Equal(t, sha256.Sum256(data), receive(t, sums))
}

// TestUploads sends bodies through every size of record and of read.
func TestUploads(t *testing.T) {
	data := make([]byte, 1<<20+17)
	_, _ = rand.NewChaCha8([32]byte{3}).Read(data)
	got := make(chan []byte, 1)
	size := 0
	s := serve(t, &fastcgi.Server{
		Limits: fastcgi.Limits{ReadAhead: 100_000},
		Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			var all []byte
			buf := make([]byte, size)
			for {
				n, err := r.Body.Read(buf)
				all = append(all, buf[:n]...)
				if err != nil {
					break
				}
			}
			got <- all
		}),
	})
	for _, recordSize := range []int{100, 8191, 32768, 65535} {
		for _, size = range []int{333, 4096, 32768, 2 << 20} {
			f := s.dial(t)
			b := head(1, 0, cgi("CONTENT_LENGTH", "1048593"))
			for rest := data; len(rest) > 0; {
				n := min(recordSize, len(rest))
				b = append(b, rec(stdin, 1, rest[:n], n%256)...)
				rest = rest[n:]
			}
			f.send(b, rec(stdin, 1, nil, 0))
			require.True(t, bytes.Equal(data, receive(t, got)), "records of %d bytes, reads of %d", recordSize, size)
			require.NoError(t, f.reply(1).err)
		}
	}
}

func TestReadDeadline(t *testing.T) {
	errs := make(chan error, 4)
	s := handle(t, func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		buf := make([]byte, 10)
		_ = rc.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		_, err := r.Body.Read(buf)
		errs <- err
		_ = rc.SetReadDeadline(time.Now().Add(time.Hour))
		_ = rc.SetReadDeadline(time.Time{})
		_, _ = io.WriteString(w, "more")
		_ = rc.Flush()
		n, err := r.Body.Read(buf)
		if string(buf[:n]) != "hello" {
			t.Errorf("got %q", buf[:n])
		}
		errs <- err
		_ = rc.SetReadDeadline(time.Now().Add(-time.Second))
		_, err = r.Body.Read(buf)
		errs <- err
		r.Body.Close()
		r.Body.Close()
		_, err = r.Body.Read(buf)
		errs <- err
	})
	f := s.dial(t)
	f.send(head(1, 0, cgi("CONTENT_LENGTH", "5")))
	require.ErrorIs(t, receive(t, errs), os.ErrDeadlineExceeded)
	f.want(stdout, 1)
	f.send(stream(stdin, 1, []byte("hello")))
	require.NoError(t, receive(t, errs))
	require.ErrorIs(t, receive(t, errs), os.ErrDeadlineExceeded)
	require.ErrorIs(t, receive(t, errs), http.ErrBodyReadAfterClose)
	require.Empty(t, f.want(stdout, 1))
	f.wantEnd(1, 0, 0)
}

// TestEarlyAnswer: the front is still sending when the handler has answered.
func TestEarlyAnswer(t *testing.T) {
	s := serve(t, &fastcgi.Server{
		Limits: fastcgi.Limits{LingerTimeout: 200 * time.Millisecond},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "too big", http.StatusForbidden)
		}),
	})
	const length = 300 << 20
	for _, flags := range []byte{0, keepConn} {
		f := s.dial(t)
		f.send(head(1, flags, cgi("CONTENT_LENGTH", "314572800")))
		sent := make(chan int, 1)
		go func() { // sends until it has an answer, as nginx and lighttpd do
			n := 0
			chunk := rec(stdin, 1, make([]byte, 60000), 0)
			for n < length {
				m, err := f.Write(chunk)
				if n += m; err != nil {
					break
				}
			}
			sent <- n
		}()
		rep := f.reply(1)
		require.NoError(t, rep.err)
		require.Equal(t, "403 Forbidden", rep.status)
		f.ends()
		f.Close()
		require.Less(t, receive(t, sent), length)
	}

	t.Run("a front that goes on sending is cut off", func(t *testing.T) {
		f := s.dial(t)
		f.send(head(1, 0, cgi("CONTENT_LENGTH", "314572800")))
		require.Equal(t, "403 Forbidden", f.reply(1).status)
		chunk := rec(stdin, 1, []byte("x"), 0)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			<-tick.C
			if _, err := f.Write(chunk); err != nil {
				require.ErrorIs(t, err, syscall.EPIPE)
				return
			}
		}
	})
	t.Run("120 times, every answer arrives", func(t *testing.T) {
		body := stream(stdin, 1, make([]byte, 200_000))
		for range 120 {
			f := s.dial(t)
			go func() { _, _ = f.Write(append(head(1, 0, cgi("CONTENT_LENGTH", "200000")), body...)) }()
			require.Equal(t, "too big\n", f.reply(1).body)
			f.Close()
		}
	})
	t.Run("kept when only the end record is missing", func(t *testing.T) {
		answered := make(chan struct{})
		s := handle(t, func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.ReadFull(r.Body, make([]byte, 5))
			close(answered)
		})
		f := s.dial(t)
		f.send(head(1, keepConn, cgi("CONTENT_LENGTH", "5")), rec(stdin, 1, []byte("hello"), 0))
		receive(t, answered)
		require.NoError(t, f.reply(1).err)
		f.send(rec(stdin, 1, nil, 0), beginRec(2, 2, keepConn))
		f.wantEnd(2, 0, 3)
		f.send(head(3, keepConn, cgi())) // stays half begun
	})
	t.Run("then it is idle, no longer lingering", func(t *testing.T) {
		s := serve(t, &fastcgi.Server{
			Limits:  fastcgi.Limits{IdleTimeout: 50 * time.Millisecond, LingerTimeout: time.Hour},
			Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.ReadFull(r.Body, make([]byte, 5)) }),
		})
		f := s.dial(t)
		f.send(head(1, keepConn, cgi("CONTENT_LENGTH", "5")), rec(stdin, 1, []byte("hello"), 0))
		require.NoError(t, f.reply(1).err)
		f.send(rec(stdin, 1, nil, 0))
		f.ends()
	})
	t.Run("a request that begins within the old body is refused", func(t *testing.T) {
		s := handle(t, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.ReadFull(r.Body, make([]byte, 5)) })
		f := s.dial(t)
		f.send(head(1, keepConn, cgi("CONTENT_LENGTH", "5")), rec(stdin, 1, []byte("hello"), 0))
		require.NoError(t, f.reply(1).err)
		f.send(request(2, keepConn, cgi()))
		f.ends()
	})
}
