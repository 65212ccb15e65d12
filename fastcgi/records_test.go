package fastcgi_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"gantry/fastcgi"

	"github.com/stretchr/testify/require"
)

// TestBrokenRecords is list A: what a front can do wrong with records. Where a
// request is running it ends with application status 2; the connection ends, and
// the server goes on.
func TestBrokenRecords(t *testing.T) {
	s := handle(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			<-r.Context().Done()
			return
		}
		_, err := io.Copy(w, r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
	})
	waiting := request(1, keepConn, cgi("REQUEST_URI", "/wait"))

	// Each is sent alone on a connection, and after the head of a request.
	broken := []struct {
		name    string
		records []byte
	}{
		{"A1 version 0", []byte{0, begin, 0, 2, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0}},
		{"A1 version 2", []byte{2, begin, 0, 2, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0}},
		{"A2 unknown type with a request id", rec(99, 2, nil, 0)},
		{"A2 management type with a request id", rec(getValues, 2, nil, 0)},
		{"A2 FCGI_STDOUT from the front", rec(stdout, 2, []byte("x"), 0)},
		{"A4 PARAMS before BEGIN", rec(params, 2, fastcgi.EncodePairs("A", "B"), 0)},
		{"A5 STDIN before BEGIN", rec(stdin, 2, []byte("x"), 0)},
		{"A7 BEGIN with id 0", rec(begin, 0, make([]byte, 8), 0)},
		{"A7 ABORT with id 0", rec(abort, 0, nil, 0)},
		{"A7 PARAMS with id 0", rec(params, 0, nil, 0)},
		{"A7 STDIN with id 0", rec(stdin, 0, []byte("x"), 0)},
		{"BEGIN of seven bytes", rec(begin, 2, make([]byte, 7), 0)},
		{"GET_VALUES that runs past its end", rec(getValues, 0, []byte{200, 0, 0, 9, 9}, 0)},
	}
	for _, c := range broken {
		t.Run(c.name, func(t *testing.T) {
			f := s.dial(t)
			f.send(c.records)
			f.ends()
		})
		t.Run(c.name+" during a request", func(t *testing.T) {
			f := s.dial(t)
			f.send(waiting, c.records)
			f.wantEnd(1, 2, 0)
			f.ends()
		})
	}

	inRequest := []struct {
		name    string
		records [][]byte
	}{
		{"A5 STDIN before the end of PARAMS", [][]byte{beginRec(1, responder, 0), rec(stdin, 1, []byte("x"), 0)}},
		{"A6 second BEGIN before the end of PARAMS", [][]byte{beginRec(1, responder, 0), beginRec(1, responder, 0)}},
		{"A6 second BEGIN on a running request", [][]byte{waiting, beginRec(1, responder, 0)}},
		{"PARAMS after their end", [][]byte{waiting, rec(params, 1, nil, 0)}},
		{"STDIN after its end", [][]byte{waiting, rec(stdin, 1, []byte("x"), 0)}},
		{"A15 STDIN beyond CONTENT_LENGTH 0", [][]byte{head(1, 0, cgi("CONTENT_LENGTH", "0")), rec(stdin, 1, []byte("x"), 0)}},
		{"A15 STDIN beyond CONTENT_LENGTH", [][]byte{head(1, 0, cgi("CONTENT_LENGTH", "3")), rec(stdin, 1, []byte("four"), 0)}},
	}
	for _, c := range inRequest {
		t.Run(c.name, func(t *testing.T) {
			f := s.dial(t)
			f.send(c.records...)
			f.wantEnd(1, 2, 0)
			f.ends()
		})
	}

	t.Run("A9 truncated header", func(t *testing.T) {
		for n := 1; n < 8; n++ {
			f := s.dial(t)
			f.send(beginRec(1, responder, 0)[:n])
			require.NoError(t, f.Conn.(*net.UnixConn).CloseWrite())
			f.ends()
		}
	})
	require.Equal(t, "200 OK", s.ask(t, "").status, "the server goes on")
	require.Equal(t, 1, strings.Count(s.logs.String(), "FastCGI connection closed"), "one line a minute and peer")
}

func TestTruncatedBody(t *testing.T) {
	type result struct {
		n          int
		err, cause error
	}
	got := make(chan result, 1)
	s := handle(t, func(_ http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if cause := context.Cause(r.Context()); cause != nil || err == nil {
			got <- result{len(b), err, cause}
			return
		}
		got <- result{len(b), err, nil}
	})
	sized := head(1, 0, cgi("CONTENT_LENGTH", "10"))

	t.Run("A10 truncated body, then the end of the socket", func(t *testing.T) {
		f := s.dial(t)
		f.send(sized, rec(stdin, 1, []byte("12345678"), 0)[:12])
		require.NoError(t, f.Conn.(*net.UnixConn).CloseWrite())
		res := receive(t, got)
		require.Equal(t, 4, res.n)
		require.ErrorIs(t, res.err, io.ErrUnexpectedEOF)
		require.ErrorIs(t, res.err, fastcgi.ErrClientGone)
		require.ErrorIs(t, res.cause, fastcgi.ErrClientGone)
	})
	t.Run("A16 STDIN end before CONTENT_LENGTH", func(t *testing.T) {
		f := s.dial(t)
		f.send(sized, stream(stdin, 1, []byte("12345")))
		res := receive(t, got)
		require.Equal(t, 5, res.n)
		require.True(t, res.err == io.ErrUnexpectedEOF, "%v", res.err)
		require.NoError(t, f.reply(1).err)
	})
	t.Run("A15 longer than CONTENT_LENGTH, in a second record", func(t *testing.T) {
		f := s.dial(t)
		f.send(sized, rec(stdin, 1, []byte("1234567890"), 0), rec(stdin, 1, []byte("1"), 0))
		res := receive(t, got)
		require.Equal(t, 10, res.n)
		require.ErrorIs(t, res.err, fastcgi.ErrProtocol)
		require.ErrorIs(t, res.cause, fastcgi.ErrProtocol)
	})
}

func TestRecords(t *testing.T) {
	s := handle(t, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		_, _ = io.WriteString(w, strconv.Itoa(len(b)))
		if err != nil {
			_, _ = io.WriteString(w, err.Error())
		}
	})

	t.Run("A3 unknown management type", func(t *testing.T) {
		f := s.dial(t)
		f.send(rec(77, 0, []byte("whatever"), 3))
		require.Equal(t, []byte{77, 0, 0, 0, 0, 0, 0, 0}, f.want(unknownType, 0))
		f.send(request(1, 0, cgi()))
		require.Equal(t, "200 OK", f.reply(1).status)
	})
	t.Run("A8 content 65535 and padding 255", func(t *testing.T) {
		f := s.dial(t)
		full := bytes.Repeat([]byte("x"), 65535)
		f.send(head(1, keepConn, cgi("CONTENT_LENGTH", "131070")), rec(stdin, 1, full, 255), rec(stdin, 1, full, 255), rec(stdin, 1, nil, 255))
		require.Equal(t, "131070", f.reply(1).body)
		f.send(request(2, 0, cgi()))
		require.Equal(t, "0", f.reply(2).body)
	})
	t.Run("A11 role not RESPONDER", func(t *testing.T) {
		for _, role := range []byte{0, 2, 3, 255} {
			f := s.dial(t)
			f.send(beginRec(1, role, keepConn), stream(params, 1, fastcgi.EncodePairs(cgi()...)), stream(stdin, 1, []byte("x")))
			f.wantEnd(1, 0, 3)
			f.send(request(1, keepConn, cgi())) // still in step
			require.Equal(t, "200 OK", f.reply(1).status)
			f.send(rec(stdin, 1, nil, 0)) // of no refused request any more
			f.ends()
		}
		f := s.dial(t)
		f.send(beginRec(1, 2, 0))
		f.wantEnd(1, 0, 3)
		f.ends()
	})
	t.Run("A12 reserved flag bits", func(t *testing.T) { // ignored, see parseBegin
		f := s.dial(t)
		f.send(request(1, 0xff, cgi()))
		require.Equal(t, "200 OK", f.reply(1).status)
		f.send(request(1, 0xfe, cgi()))
		require.Equal(t, "200 OK", f.reply(1).status)
		f.ends()
	})
	t.Run("A14 ABORT for an unknown id", func(t *testing.T) {
		f := s.dial(t)
		f.send(rec(abort, 9, nil, 0), rec(abort, 9, nil, 0), request(1, 0, cgi()))
		require.Equal(t, "200 OK", f.reply(1).status)
	})
	t.Run("A18 GET_VALUES of 64 kB", func(t *testing.T) {
		pairs := []string{"FCGI_MAX_CONNS", "", "FCGI_MPXS_CONNS", "", "FCGI_MAX_REQS", "", "FCGI_MPXS_CONNS", ""}
		ask := fastcgi.EncodePairs(pairs...)
		for i := 0; len(ask) < 65535-20; i++ {
			ask = append(ask, fastcgi.EncodePairs("N"+strconv.Itoa(i), "v")...)
		}
		f := s.dial(t)
		f.send(rec(getValues, 0, ask, 0), rec(getValues, 0, nil, 0))
		got, err := fastcgi.DecodePairs(string(f.want(getValuesResult, 0)), 10)
		require.NoError(t, err)
		require.Equal(t, []string{"FCGI_MAX_CONNS", "2048", "FCGI_MPXS_CONNS", "0", "FCGI_MAX_REQS", "1024"}, got)
		require.Empty(t, f.want(getValuesResult, 0))
	})
}

func TestAbort(t *testing.T) {
	type result struct{ cause, readErr, writeErr error }
	got := make(chan result, 1)
	s := handle(t, func(w http.ResponseWriter, r *http.Request) {
		<-r.Context().Done() // neither reads nor writes
		_, readErr := io.ReadAll(r.Body)
		_, writeErr := w.Write([]byte("too late"))
		got <- result{context.Cause(r.Context()), readErr, writeErr}
	})
	t.Run("A14 ABORT twice", func(t *testing.T) {
		f := s.dial(t)
		f.send(head(1, 0, cgi("CONTENT_LENGTH", "9")), rec(stdin, 1, []byte("x"), 0), rec(abort, 1, nil, 0), rec(abort, 1, nil, 5))
		res := receive(t, got)
		require.ErrorIs(t, res.cause, fastcgi.ErrAborted)
		require.ErrorIs(t, res.readErr, fastcgi.ErrAborted)
		require.ErrorIs(t, res.readErr, io.ErrUnexpectedEOF)
		require.ErrorIs(t, res.writeErr, fastcgi.ErrAborted)
		require.Empty(t, f.want(stdout, 1))
		f.wantEnd(1, 0, 0)
		f.ends()
	})
	t.Run("after the body a kept connection goes on", func(t *testing.T) {
		f := s.dial(t)
		for range 2 {
			f.send(request(1, keepConn, cgi()), rec(abort, 1, nil, 0))
			require.ErrorIs(t, receive(t, got).cause, fastcgi.ErrAborted)
			require.Empty(t, f.want(stdout, 1))
			f.wantEnd(1, 0, 0)
		}
	})
	t.Run("before the end of the parameters", func(t *testing.T) {
		f := s.dial(t)
		rest := stream(params, 1, fastcgi.EncodePairs(cgi()...))
		f.send(beginRec(1, responder, keepConn), rec(abort, 1, nil, 0))
		f.wantEnd(1, 0, 0)
		f.send(rest, rec(stdin, 1, nil, 0), request(2, 0, cgi()), rec(abort, 2, nil, 0))
		require.ErrorIs(t, receive(t, got).cause, fastcgi.ErrAborted)
	})
}

func TestManyBegins(t *testing.T) {
	causes := make(chan error, 1)
	s := handle(t, func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		causes <- context.Cause(r.Context())
	})
	t.Run("A13 65,535 BEGINs without end", func(t *testing.T) {
		f := s.dial(t)
		f.send(request(1, keepConn, cgi()))
		go func() { // the server stops reading them as requests early on
			for id := 2; id <= 65535; id++ {
				if _, err := f.Write(beginRec(uint16(id), responder, keepConn)); err != nil {
					return
				}
			}
			f.Conn.(*net.UnixConn).CloseWrite()
		}()
		for id := range 64 {
			f.wantEnd(uint16(id)+2, 0, 1) // FCGI_CANT_MPX_CONN
		}
		f.wantEnd(66, 0, 2) // FCGI_OVERLOADED
		f.wantEnd(1, 2, 0)
		f.ends()
		require.ErrorIs(t, receive(t, causes), fastcgi.ErrProtocol)
	})
	t.Run("records of a refused request pass", func(t *testing.T) {
		f := s.dial(t)
		f.send(request(1, 0, cgi()), request(2, 0, cgi()), rec(abort, 2, nil, 0))
		f.wantEnd(2, 0, 1)
		f.send(rec(abort, 1, nil, 0))
		require.ErrorIs(t, receive(t, causes), fastcgi.ErrAborted)
	})
}

func TestSlowHeader(t *testing.T) {
	s := serve(t, &fastcgi.Server{Handler: http.HandlerFunc(ok), Limits: fastcgi.Limits{HeaderTimeout: 100 * time.Millisecond}})
	t.Run("A17 one byte at a time", func(t *testing.T) { // the sum counts, not the pause
		f := s.dial(t)
		all := request(1, 0, cgi())
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for _, b := range all {
			<-tick.C
			if _, err := f.Write([]byte{b}); err != nil {
				return // closed, as it should be
			}
		}
		require.Fail(t, "the server took a request that came too slowly")
	})
	t.Run("nothing at all", func(t *testing.T) { s.dial(t).ends() })
	t.Run("half of the parameters", func(t *testing.T) {
		f := s.dial(t)
		f.send(beginRec(1, responder, 0), rec(params, 1, fastcgi.EncodePairs(cgi()...), 0))
		f.ends()
	})
	t.Run("a front that is silent about the body gets its request started", func(t *testing.T) {
		f := s.dial(t)
		f.send(head(1, 0, cgi()))
		require.Equal(t, "200 OK", f.reply(1).status)
	})
}
