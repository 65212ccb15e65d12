package fastcgi_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"gantry/fastcgi"

	"github.com/stretchr/testify/require"
)

// TestReplies compares what a handler does with what the front gets.
func TestReplies(t *testing.T) {
	var h changing
	s := handle(t, h.ServeHTTP)
	do := func(t *testing.T, method string, handler http.HandlerFunc) reply {
		h.Set(handler)
		return s.ask(t, "", "REQUEST_METHOD", method)
	}

	t.Run("nothing", func(t *testing.T) {
		rep := do(t, "GET", func(http.ResponseWriter, *http.Request) {})
		require.Equal(t, "200 OK", rep.status)
		require.Equal(t, map[string][]string{"Status": {"200 OK"}, "Content-Length": {"0"}}, map[string][]string(rep.header))
	})
	t.Run("no Content-Type is invented", func(t *testing.T) {
		rep := do(t, "GET", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") })
		require.Equal(t, map[string][]string{"Status": {"200 OK"}, "Content-Length": {"6"}}, map[string][]string(rep.header))
		require.Equal(t, "<html>", rep.body)
		require.Len(t, rep.sizes, 1)
	})
	t.Run("header", func(t *testing.T) {
		rep := do(t, "GET", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-A", "one\r\nSet-Cookie: forged\x00")
			w.Header()["X-B"] = []string{"1", "2"}
			w.Header()["Bad name"] = []string{"x"}
			w.Header()["Bad:name"] = []string{"x"}
			for _, name := range []string{"Status", "Connection", "Transfer-Encoding", "Upgrade", "Keep-Alive", "Te", "Trailer"} {
				w.Header().Set(name, "x")
			}
			w.WriteHeader(http.StatusTeapot)
			w.WriteHeader(http.StatusOK)
			w.Header().Set("Late", "x")
		})
		require.Equal(t, map[string][]string{
			"Status": {"418 I'm a teapot"}, "X-A": {"one  Set-Cookie: forged"}, "X-B": {"1", "2"}, "Content-Length": {"0"},
		}, map[string][]string(rep.header))
	})
	t.Run("unknown status", func(t *testing.T) {
		require.Equal(t, "299 Status", do(t, "GET", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(299) }).status)
	})
	t.Run("interim replies are left out", func(t *testing.T) {
		rep := do(t, "GET", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusSwitchingProtocols)
			w.WriteHeader(http.StatusAccepted)
		})
		require.Equal(t, "202 Accepted", rep.status)
	})
	t.Run("invalid status", func(t *testing.T) {
		rep := do(t, "GET", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(0) })
		require.Equal(t, "500 Internal Server Error", rep.status)
		require.EqualValues(t, 1, rep.app)
	})
	for _, status := range []int{http.StatusNoContent, http.StatusNotModified} {
		t.Run("no body allowed", func(t *testing.T) {
			rep := do(t, "GET", func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(status)
				_, err := w.Write([]byte("x"))
				require.ErrorIs(t, err, http.ErrBodyNotAllowed)
			})
			require.NoError(t, rep.err)
			require.Empty(t, rep.body)
			require.Empty(t, rep.header.Get("Content-Length"))
		})
	}
	t.Run("HEAD", func(t *testing.T) {
		rep := do(t, "HEAD", func(w http.ResponseWriter, _ *http.Request) {
			n, err := w.Write([]byte("hello"))
			require.NoError(t, err)
			require.Equal(t, 5, n)
			n2, err := io.Copy(w, onlyReader{strings.NewReader("world")})
			require.NoError(t, err)
			require.EqualValues(t, 5, n2)
		})
		require.Equal(t, "10", rep.header.Get("Content-Length"))
		require.Empty(t, rep.body)
	})
	t.Run("HEAD with the length of what is not sent", func(t *testing.T) {
		rep := do(t, "HEAD", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "1000") })
		require.NoError(t, rep.err)
		require.Equal(t, "1000", rep.header.Get("Content-Length"))
	})
	t.Run("invalid Content-Length is dropped", func(t *testing.T) {
		rep := do(t, "GET", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "many")
			_, _ = io.WriteString(w, "x")
		})
		require.Equal(t, "1", rep.header.Get("Content-Length"))
	})
	t.Run("more than Content-Length", func(t *testing.T) {
		rep := do(t, "GET", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "2")
			_, err := io.WriteString(w, "ok")
			require.NoError(t, err)
			_, err = io.WriteString(w, "!")
			require.ErrorIs(t, err, http.ErrContentLength)
		})
		require.NoError(t, rep.err)
		require.Equal(t, "ok", rep.body)
	})
	t.Run("less than Content-Length", func(t *testing.T) {
		rep := do(t, "GET", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "5")
			_, _ = io.WriteString(w, "ok")
		})
		require.ErrorIs(t, rep.err, io.EOF, "no FCGI_END_REQUEST")
		require.Contains(t, s.logs.String(), "shorter than its Content-Length")
	})
}

type onlyReader struct{ io.Reader }

func TestFlush(t *testing.T) {
	step := make(chan struct{})
	lines := []string{"short\n", strings.Repeat("x", 56<<10), strings.Repeat("y", 65535), strings.Repeat("z", 65536)}
	s := handle(t, func(w http.ResponseWriter, _ *http.Request) {
		rc := http.NewResponseController(w)
		require.NoError(t, rc.EnableFullDuplex())
		require.NoError(t, rc.Flush()) // the header alone
		for _, l := range lines {
			<-step
			_, err := io.WriteString(w, l[:len(l)/3])
			require.NoError(t, err)
			_, err = io.WriteString(w, l[len(l)/3:])
			require.NoError(t, err)
			require.NoError(t, rc.Flush())
			require.NoError(t, rc.Flush(), "nothing to send, no record")
		}
	})
	f := s.dial(t)
	f.send(request(1, 0, cgi()))
	require.Equal(t, "Status: 200 OK\r\n\r\n", string(f.want(stdout, 1)))
	for _, l := range lines[:3] {
		step <- struct{}{}
		require.True(t, l == string(f.want(stdout, 1)), "one record for each line")
	}
	step <- struct{}{}
	first := f.want(stdout, 1)
	require.Len(t, first, 65528, "records that are cut are aligned")
	require.Equal(t, lines[3], string(first)+string(f.want(stdout, 1)))
	require.Empty(t, f.want(stdout, 1))
	f.wantEnd(1, 0, 0)
	f.ends()
}

// TestLargeReplies checks contents and record sizes over every way to write.
func TestLargeReplies(t *testing.T) {
	data := make([]byte, 3<<20+12345)
	rnd := rand.NewChaCha8([32]byte{1})
	_, _ = rnd.Read(data)
	var h changing
	s := handle(t, h.ServeHTTP)
	pieces := func(size int) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			for rest := data; len(rest) > 0; {
				n, err := w.Write(rest[:min(size, len(rest))])
				if err != nil {
					t.Error(err)
					return
				}
				rest = rest[n:]
			}
		}
	}
	for name, write := range map[string]func(w http.ResponseWriter){
		"at once": pieces(len(data)), "1000 bytes": pieces(1000), "32 KiB": pieces(32 << 10), "65528": pieces(65528),
		"70000": pieces(70000), "256 KiB": pieces(256 << 10),
		"copied":                 func(w http.ResponseWriter) { _, _ = io.Copy(w, onlyReader{bytes.NewReader(data)}) },
		"copied in small pieces": func(w http.ResponseWriter) { _, _ = io.Copy(w, iotestReader{bytes.NewReader(data), 777}) },
	} {
		t.Run(name, func(t *testing.T) {
			h.Set(func(w http.ResponseWriter, _ *http.Request) { write(w) })
			rep := s.ask(t, "")
			require.NoError(t, rep.err)
			require.True(t, string(data) == rep.body, "the bytes arrive")
			small := 0
			for _, n := range rep.sizes {
				if n < 4096 {
					small++
				}
			}
			require.LessOrEqual(t, small, 2, "sizes: %v", rep.sizes)
		})
	}
}

type iotestReader struct {
	io.Reader
	max int
}

func (r iotestReader) Read(p []byte) (int, error) { return r.Reader.Read(p[:min(len(p), r.max)]) }

func TestCopyFailure(t *testing.T) {
	broken := errors.New("broken")
	s := handle(t, func(w http.ResponseWriter, _ *http.Request) {
		n, err := io.Copy(w, io.MultiReader(strings.NewReader("abc"), errReader{broken}))
		require.ErrorIs(t, err, broken)
		require.EqualValues(t, 3, n)
	})
	require.Equal(t, "abc", s.ask(t, "").body)
}

type errReader struct{ error }

func (r errReader) Read([]byte) (int, error) { return 0, r.error }

func TestPanics(t *testing.T) {
	var h changing
	s := handle(t, h.ServeHTTP)
	t.Run("before the header", func(t *testing.T) {
		h.Set(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Secret", "x")
			_, _ = io.WriteString(w, "half a secret")
			panic("out of cheese")
		})
		rep := s.ask(t, "", "REQUEST_URI", "/panic?token=secret")
		require.NoError(t, rep.err)
		require.Equal(t, "500 Internal Server Error", rep.status)
		require.Equal(t, "internal error\n", rep.body)
		require.Empty(t, rep.header.Get("X-Secret"))
		require.EqualValues(t, 1, rep.app)
		require.Contains(t, s.logs.String(), "out of cheese")
		require.Contains(t, s.logs.String(), "response_test.go", "the stack")
		require.Contains(t, s.logs.String(), `"GET /panic"`, "without the query")
	})
	t.Run("after the header the reply breaks", func(t *testing.T) {
		h.Set(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "some")
			w.(http.Flusher).Flush()
			_, _ = io.WriteString(w, "unsent")
			panic(errors.New("late"))
		})
		rep := s.ask(t, "")
		require.ErrorIs(t, rep.err, io.EOF, "an FCGI_END_REQUEST would make it look complete")
		require.Equal(t, "200 OK", rep.status)
		require.Equal(t, "some", rep.body)
		require.Contains(t, s.logs.String(), "late")
		require.NotContains(t, s.logs.String(), "shorter than its Content-Length")
	})
	t.Run("http.ErrAbortHandler", func(t *testing.T) {
		before := s.logs.String()
		h.Set(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "some")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		})
		rep := s.ask(t, "")
		require.ErrorIs(t, rep.err, io.EOF, "the socket closes without FCGI_END_REQUEST")
		require.Equal(t, "some", rep.body)
		require.Equal(t, before, s.logs.String(), "quietly")
	})
	t.Run("runtime.Goexit", func(t *testing.T) {
		h.Set(func(http.ResponseWriter, *http.Request) { runtime.Goexit() })
		require.ErrorIs(t, s.ask(t, "").err, io.EOF)
	})
	h.Set(ok)
	require.Equal(t, "ok", s.ask(t, "").body, "the server lives")
}

func TestWriteAfterReturn(t *testing.T) {
	leaked := make(chan http.ResponseWriter, 1)
	s := handle(t, func(w http.ResponseWriter, _ *http.Request) { leaked <- w })
	f := s.dial(t)
	f.send(request(1, keepConn, cgi()))
	require.NoError(t, f.reply(1).err)
	w := receive(t, leaked)
	_, err := w.Write([]byte("stray"))
	require.ErrorContains(t, err, "after the handler returned")
	require.Error(t, http.NewResponseController(w).Flush())
	require.Error(t, http.NewResponseController(w).SetWriteDeadline(time.Now()))
	f.send(request(1, 0, cgi()))
	require.Empty(t, f.reply(1).body)
}

func TestWriteDeadlines(t *testing.T) {
	errs := make(chan error, 1)
	flood := func(w http.ResponseWriter) {
		b := make([]byte, 1<<20)
		for {
			if _, err := w.Write(b); err != nil {
				errs <- err
				return
			}
		}
	}
	t.Run("the handler's", func(t *testing.T) {
		s := handle(t, func(w http.ResponseWriter, _ *http.Request) {
			require.NoError(t, http.NewResponseController(w).SetWriteDeadline(time.Now().Add(50*time.Millisecond)))
			flood(w)
		})
		f := s.dial(t) // and never reads
		f.send(request(1, 0, cgi()))
		require.ErrorIs(t, receive(t, errs), os.ErrDeadlineExceeded)
	})
	t.Run("set while a write is blocked", func(t *testing.T) {
		writers := make(chan http.ResponseWriter, 1)
		s := handle(t, func(w http.ResponseWriter, _ *http.Request) {
			writers <- w
			flood(w)
		})
		f := s.dial(t)
		f.send(request(1, 0, cgi()))
		w := receive(t, writers)
		_, err := io.ReadFull(f, make([]byte, 1<<20)) // from here on nobody reads
		require.NoError(t, err)
		set := make(chan error, 1)
		go func() { set <- http.NewResponseController(w).SetWriteDeadline(time.Now().Add(50 * time.Millisecond)) }()
		require.NoError(t, receive(t, set))
		require.ErrorIs(t, receive(t, errs), os.ErrDeadlineExceeded)
	})
	t.Run("the server's", func(t *testing.T) {
		s := serve(t, &fastcgi.Server{
			Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { flood(w) }),
			Limits:  fastcgi.Limits{WriteTimeout: 50 * time.Millisecond},
		})
		f := s.dial(t)
		f.send(request(1, 0, cgi()))
		require.ErrorIs(t, receive(t, errs), os.ErrDeadlineExceeded)
	})
	t.Run("client gone", func(t *testing.T) {
		s := handle(t, func(w http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			flood(w)
			require.ErrorIs(t, http.NewResponseController(w).Flush(), fastcgi.ErrClientGone, "the error stays")
		})
		f := s.dial(t)
		f.send(request(1, 0, cgi()))
		f.Close()
		require.ErrorIs(t, receive(t, errs), fastcgi.ErrClientGone)
	})
}

// TestHalfClosed is a front that closes its sending half and waits.
func TestHalfClosed(t *testing.T) {
	s := handle(t, func(w http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		_, _ = io.WriteString(w, "goodbye")
	})
	f := s.dial(t)
	f.send(request(1, 0, cgi()))
	require.NoError(t, f.Conn.(*net.UnixConn).CloseWrite())
	require.Equal(t, "goodbye", f.reply(1).body)
}
