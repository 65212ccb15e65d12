package fastcgi_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"gantry/fastcgi"

	"github.com/stretchr/testify/require"
)

const (
	badRequest    = "bad request parameters: "
	notIdentified = "client certificate not verified by the front server"
)

// problem reads a refusal.
func (r reply) problem(t testing.TB) (status int, detail string) {
	t.Helper()
	require.NoError(t, r.err)
	require.Equal(t, "application/problem+json", r.header.Get("Content-Type"))
	var doc struct {
		Status int
		Detail string
	}
	require.NoError(t, json.Unmarshal([]byte(r.body), &doc))
	require.True(t, strings.HasPrefix(r.status, strconv.Itoa(doc.Status)), r.status)
	return doc.Status, doc.Detail
}

// TestBadParameters is list B as far as it is syntax. The connection is kept and
// asked again after each.
func TestBadParameters(t *testing.T) {
	s := serve(t, &fastcgi.Server{
		Handler: http.HandlerFunc(ok),
		Single:  func(name string) bool { return name == "FRONT_TOKEN" },
	})
	enc := fastcgi.EncodePairs
	with := func(extra ...string) []byte { return enc(append(cgi(), extra...)...) }
	replaced := func(pairs ...string) []byte { return enc(cgi(pairs...)...) }
	many := func(n int) []byte {
		all := cgi()
		for i := len(all) / 2; i < n; i++ {
			all = append(all, "P"+strconv.Itoa(i), "v")
		}
		return enc(all...)
	}
	const bad, identity, good = 400, 403, 200
	cases := []struct {
		name   string
		params []byte
		status int
		detail string
	}{
		{"B19 name length 0", with("", "x"), bad, badRequest + `""`},
		{"B20 name of 2^31-1 bytes", append(with(), 0xff, 0xff, 0xff, 0xff, 0), bad, badRequest + "pair 5: lengths run past the end"},
		{"B21 lengths past the record", append(with(), 5, 5, 'a', 'b'), bad, badRequest + "pair 5: lengths run past the end"},
		{"B21 lengths past 2^31", append(with(), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), bad, badRequest + "pair 5: lengths run past the end"},
		{"B21 length cut off", append(with(), 0x80, 0), bad, badRequest + "pair 5: lengths run past the end"},
		{"B22 64 KiB", with("X", strings.Repeat("x", 64<<10-len(with("X", strings.Repeat("x", 200)))+200)), good, ""},
		{"B22 64 KiB and a byte", with("X", strings.Repeat("x", 64<<10-len(with("X", strings.Repeat("x", 200)))+201)), bad, badRequest + `"more than 65536 bytes"`},
		{"B22 1 MiB", with("X", strings.Repeat("x", 1<<20)), bad, badRequest + `"more than 65536 bytes"`},
		{"B23 256 parameters", many(256), good, ""},
		{"B23 257 parameters", many(257), bad, badRequest + "too many pairs"},
		{"B24 SSL_CLIENT_VERIFY twice", with("SSL_CLIENT_VERIFY", "NONE", "SSL_CLIENT_VERIFY", "SUCCESS"), identity, notIdentified},
		{"B24 SSL_CLIENT_CERT twice and equal", with("SSL_CLIENT_CERT", "x", "SSL_CLIENT_CERT", "x"), identity, notIdentified},
		{"B24 REMOTE_USER twice", with("REMOTE_USER", "a", "REMOTE_USER", "b"), identity, notIdentified},
		{"B24 AUTH_TYPE twice", with("AUTH_TYPE", "a", "AUTH_TYPE", "b"), identity, notIdentified},
		{"B24 a name of Single twice", with("FRONT_TOKEN", "a", "FRONT_TOKEN", "b"), identity, notIdentified},
		{"B24 CONTENT_LENGTH twice", with("CONTENT_LENGTH", "0", "CONTENT_LENGTH", "0"), bad, badRequest + "CONTENT_LENGTH"},
		{"B24 REQUEST_URI twice", with("REQUEST_URI", "/"), bad, badRequest + "REQUEST_URI"},
		{"B24 HTTP_HOST twice", with("HTTP_HOST", "a"), bad, badRequest + "HTTP_HOST"},
		{"B24 another name twice", with("SCRIPT_NAME", "a", "SCRIPT_NAME", "b"), good, ""},
		{"B25 NUL in a value", with("A", "x\x00"), bad, badRequest + "A"},
		{"B25 CR in a value", with("A", "x\ry"), bad, badRequest + "A"},
		{"B25 LF in a value", with("REMOTE_USER", "x\n"), bad, badRequest + "REMOTE_USER"},
		{"B25 LF in a header", with("HTTP_A", "x\nB: c"), bad, badRequest + "HTTP_A"},
		{"B25 DEL in a header", with("HTTP_A", "\x7f"), bad, badRequest + "HTTP_A"},
		{"B25 NUL in a certificate", with("SSL_CLIENT_CERT", "x\x00"), bad, badRequest + "SSL_CLIENT_CERT"},
		{"B25 lines in a certificate", with("SSL_CLIENT_CERT", "-----BEGIN\r\nx\n"), good, ""},
		{"B25 LF in a name", with("A\nB", "x"), bad, badRequest + `"A\nB"`},
		{"B25 equals sign in a name", with("A=B", "x"), bad, badRequest + `"A=B"`},
		{"B25 a long bad name is cut", with(strings.Repeat("\x01", 500), "x"), bad, badRequest + strconv.QuoteToASCII(strings.Repeat("\x01", 64))},
		{"header name with a colon", with("HTTP_A:B", "x"), bad, badRequest + "HTTP_A:B"},
		{"header name that is empty", with("HTTP_", "x"), bad, badRequest + "HTTP_"},
		{"B26 CONTENT_LENGTH -1", with("CONTENT_LENGTH", "-1"), bad, badRequest + "CONTENT_LENGTH"},
		{"B26 CONTENT_LENGTH +5", with("CONTENT_LENGTH", "+5"), bad, badRequest + "CONTENT_LENGTH"},
		{"B26 CONTENT_LENGTH 5,5", with("CONTENT_LENGTH", "5,5"), bad, badRequest + "CONTENT_LENGTH"},
		{"B26 CONTENT_LENGTH 2^63", with("CONTENT_LENGTH", "9223372036854775808"), bad, badRequest + "CONTENT_LENGTH"},
		{"B26 CONTENT_LENGTH 0x1", with("CONTENT_LENGTH", "0x1"), bad, badRequest + "CONTENT_LENGTH"},
		{"B26 CONTENT_LENGTH 1_0", with("CONTENT_LENGTH", "1_0"), bad, badRequest + "CONTENT_LENGTH"},
		{"B26 CONTENT_LENGTH with a space", with("CONTENT_LENGTH", " 0"), bad, badRequest + "CONTENT_LENGTH"},
		{"B31 PATH_INFO with a line feed", with("PATH_INFO", "/a\nb"), bad, badRequest + "PATH_INFO"},
		{"B31 PATH_INFO with dots", with("PATH_INFO", "/a/../b"), bad, badRequest + "PATH_INFO"},
		{"B31 PATH_INFO that ends in dots", with("PATH_INFO", "/.."), bad, badRequest + "PATH_INFO"},
		{"B31 PATH_INFO with three dots", with("PATH_INFO", "/a...b/..."), good, ""},
		{"B31 PATH_INFO empty", with("PATH_INFO", ""), good, ""}, // RFC 3875, section 4.1.5, and what lighttpd sends
		{"B33 REQUEST_METHOD with a space", replaced("REQUEST_METHOD", "get "), bad, badRequest + "REQUEST_METHOD"},
		{"B33 REQUEST_METHOD of 1 kB", replaced("REQUEST_METHOD", strings.Repeat("G", 1024)), bad, badRequest + "REQUEST_METHOD"},
		{"B33 REQUEST_METHOD empty", replaced("REQUEST_METHOD", ""), bad, badRequest + "REQUEST_METHOD"},
		{"SERVER_PROTOCOL nonsense", replaced("SERVER_PROTOCOL", "HTTP"), bad, badRequest + "SERVER_PROTOCOL"},
		{"REQUEST_URI relative", replaced("REQUEST_URI", "x"), bad, badRequest + "REQUEST_URI"},
		{"REQUEST_URI with a bad escape", replaced("REQUEST_URI", "/%zz"), bad, badRequest + "REQUEST_URI"},
		{"CONTENT_TYPE with ESC", with("CONTENT_TYPE", "a\x1b"), bad, badRequest + "CONTENT_TYPE"},
		{"no parameters", nil, bad, badRequest + "REQUEST_METHOD"},
	}
	f := s.dial(t)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			f.send(beginRec(1, responder, keepConn), stream(params, 1, c.params), rec(stdin, 1, nil, 0))
			rep := f.reply(1)
			if c.status == good {
				require.Equal(t, "200 OK", rep.status, rep.body)
				require.Equal(t, "ok", rep.body)
			} else {
				status, detail := rep.problem(t)
				require.Equal(t, c.status, status)
				require.Equal(t, c.detail, detail)
			}
			require.Zero(t, rep.app)
		})
		f.send(request(2, keepConn, cgi()))
		require.Equal(t, "ok", f.reply(2).body, "the connection is in step after %q", c.name)
	}
}

func TestParamLimits(t *testing.T) {
	s := serve(t, &fastcgi.Server{Handler: http.HandlerFunc(ok), Limits: fastcgi.Limits{ParamBytes: 1 << 30, Params: 3}})
	_, detail := s.ask(t, "").problem(t)
	require.Equal(t, badRequest+"too many pairs", detail)
	_, detail = s.ask(t, "", "A", strings.Repeat("x", 256<<10)).problem(t)
	require.Equal(t, badRequest+`"more than 262144 bytes"`, detail, "the hard limit")
}

// TestRequest is what a handler sees of the parameters.
func TestRequest(t *testing.T) {
	requests := make(chan *http.Request, 1)
	s := handle(t, func(_ http.ResponseWriter, r *http.Request) { requests <- r })
	get := func(t *testing.T, pairs ...string) *http.Request {
		f := s.dial(t)
		f.send(request(1, 0, pairs))
		require.Equal(t, "200 OK", f.reply(1).status)
		return receive(t, requests)
	}

	t.Run("all of it", func(t *testing.T) {
		r := get(t, cgi("REQUEST_METHOD", "PUT", "REQUEST_URI", "/a%2fb/c?q=1&r", "SERVER_PROTOCOL", "HTTP/2.0",
			"CONTENT_LENGTH", "0", "CONTENT_TYPE", "text/x", "HTTP_CONTENT_TYPE", "text/forged", "HTTP_CONTENT_LENGTH", "77",
			"HTTP_TRANSFER_ENCODING", "chunked", "HTTP_X_ONE", "1", "REMOTE_ADDR", "2001:db8::1", "REMOTE_PORT", "443",
			"SCRIPT_NAME", "/elsewhere", "HTTPS", "on", "SSL_CLIENT_VERIFY", "SUCCESS")...)
		require.Equal(t, "PUT", r.Method)
		require.Equal(t, "/a/b/c", r.URL.Path)
		require.Equal(t, "/a%2fb/c", r.URL.RawPath)
		require.Equal(t, "q=1&r", r.URL.RawQuery)
		require.Equal(t, "/a%2fb/c?q=1&r", r.RequestURI)
		require.Equal(t, "HTTP/2.0", r.Proto)
		require.Equal(t, 2, r.ProtoMajor)
		require.Equal(t, "example.org", r.Host)
		require.Equal(t, "[2001:db8::1]:443", r.RemoteAddr)
		require.Equal(t, http.Header{"Content-Type": {"text/x"}, "Content-Length": {"0"}, "X-One": {"1"}}, r.Header)
		require.Nil(t, r.TLS)
		p := fastcgi.ParamsFrom(r.Context())
		v, found := p.Get("SSL_CLIENT_VERIFY")
		require.True(t, found)
		require.Equal(t, "SUCCESS", v)
		_, found = p.Get("SSL_CLIENT_CERT")
		require.False(t, found)
	})
	t.Run("as little as possible", func(t *testing.T) {
		r := get(t, "REQUEST_METHOD", "GET", "SCRIPT_NAME", "/a b", "PATH_INFO", "/c", "QUERY_STRING", "d=e")
		require.Equal(t, "/a%20b/c?d=e", r.RequestURI)
		require.Equal(t, "/a b/c", r.URL.Path)
		require.Equal(t, "HTTP/1.0", r.Proto)
		require.Empty(t, r.RemoteAddr)
		require.Empty(t, r.Host)
	})
	t.Run("absolute form", func(t *testing.T) {
		r := get(t, cgi("REQUEST_URI", "http://other.example/x", "REMOTE_ADDR", "192.0.2.1")...)
		require.Equal(t, "other.example", r.Host)
		require.Equal(t, "192.0.2.1:0", r.RemoteAddr)
	})
	t.Run("B27 HTTP_SSL_CLIENT_VERIFY from the client", func(t *testing.T) {
		r := get(t, cgi("HTTP_SSL_CLIENT_VERIFY", "SUCCESS")...)
		_, found := fastcgi.ParamsFrom(r.Context()).Get("SSL_CLIENT_VERIFY")
		require.False(t, found, "a header is never the front's word")
		require.Equal(t, "SUCCESS", r.Header.Get("Ssl-Client-Verify"))
	})
	t.Run("B28 HTTP_PROXY", func(t *testing.T) {
		r := get(t, cgi("HTTP_PROXY", "http://evil.example")...)
		require.Empty(t, r.Header)
		for name := range fastcgi.ParamsFrom(r.Context()).All() {
			require.NotEqual(t, "HTTP_PROXY", name)
		}
	})
	t.Run("B29 X_Forwarded_For twin", func(t *testing.T) {
		r := get(t, append(cgi(), "HTTP_X_FORWARDED_FOR", "192.0.2.1", "HTTP_X_FORWARDED_FOR", "192.0.2.2")...)
		require.Equal(t, []string{"192.0.2.1", "192.0.2.2"}, r.Header["X-Forwarded-For"])
	})
	t.Run("a name given twice has the last value", func(t *testing.T) {
		r := get(t, append(cgi(), "A", "1", "A", "2")...)
		p := fastcgi.ParamsFrom(r.Context())
		v, _ := p.Get("A")
		require.Equal(t, "2", v)
		var all []string
		for name, value := range p.All() {
			if name == "A" {
				all = append(all, value)
			}
		}
		require.Equal(t, []string{"1", "2"}, all)
	})
	t.Run("no parameters in a foreign context", func(t *testing.T) {
		p := fastcgi.ParamsFrom(t.Context())
		_, found := p.Get("A")
		require.False(t, found)
		for range p.All() {
			require.Fail(t, "a nil Params holds none")
		}
		_, found = fastcgi.PeerFrom(t.Context())
		require.False(t, found)
	})
}

func TestContentLength(t *testing.T) {
	type seen struct {
		length int64
		body   string
		none   bool
	}
	got := make(chan seen, 1)
	s := handle(t, func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got <- seen{r.ContentLength, string(b), r.Body == http.NoBody}
	})
	for _, c := range []struct {
		name, length, body string
		want               seen
	}{
		{"known", "5", "hello", seen{5, "hello", false}},
		{"zero", "0", "", seen{0, "", true}},
		{"missing, with a body", "", "hello", seen{-1, "hello", false}},
		{"missing, without one", "", "", seen{0, "", true}},
		{"leading zeros", "005", "hello", seen{5, "hello", false}},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, "200 OK", s.ask(t, c.body, "CONTENT_LENGTH", c.length).status)
			require.Equal(t, c.want, receive(t, got))
		})
	}
}
