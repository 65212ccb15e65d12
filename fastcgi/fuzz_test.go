package fastcgi_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"gantry/fastcgi"

	"github.com/stretchr/testify/require"
)

// The corpora in testdata/fuzz cover more than 80% of record.go, params.go,
// dispatch.go, management.go and request.go on their own:
//
//	go test -run Fuzz -coverprofile c.out ./fastcgi && go tool cover -func c.out

// recorded is a front that has sent everything, hung up, and reads all.
type recorded struct {
	io.Reader
	out bytes.Buffer
}

func (c *recorded) Write(p []byte) (int, error)      { return c.out.Write(p) }
func (c *recorded) Close() error                     { return nil }
func (c *recorded) LocalAddr() net.Addr              { return nil }
func (c *recorded) RemoteAddr() net.Addr             { return nil }
func (c *recorded) SetDeadline(time.Time) error      { return nil }
func (c *recorded) SetReadDeadline(time.Time) error  { return nil }
func (c *recorded) SetWriteDeadline(time.Time) error { return nil }

// FuzzRecords: whatever comes in, the server ends, what it sends is records in
// order, and it is not much more than what came.
func FuzzRecords(f *testing.F) {
	f.Fuzz(func(t *testing.T, in []byte) {
		watchdog := time.AfterFunc(10*time.Second, func() { panic("the connection does not end") })
		defer watchdog.Stop()
		srv := &fastcgi.Server{
			Limits: fastcgi.Limits{ReadAhead: 1000, ParamBytes: 4096, Requests: 1},
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !strings.HasPrefix(r.URL.Path, "/early") {
					_, _ = io.Copy(w, r.Body)
				}
			}),
		}
		c := &recorded{Reader: bytes.NewReader(in)}
		srv.ServeConn(c)
		out := c.out.Bytes()
		require.LessOrEqual(t, len(out), 64*len(in))
		ended := 0
		for len(out) > 0 {
			require.GreaterOrEqual(t, len(out), 8)
			require.Equal(t, byte(1), out[0])
			if out[1] == end {
				ended++
			}
			size := 8 + int(binary.BigEndian.Uint16(out[4:])) + int(out[6])
			require.GreaterOrEqual(t, len(out), size)
			out = out[size:]
		}
		require.LessOrEqual(t, ended, bytes.Count(in, []byte{1, begin}), "answers to requests")
	})
}

// FuzzParams: what is decoded can be encoded again, not longer, to the same; and
// what becomes a request is fit for a handler.
func FuzzParams(f *testing.F) {
	const limit = 50
	f.Fuzz(func(t *testing.T, in string) {
		pairs, err := fastcgi.DecodePairs(in, limit)
		if err != nil {
			_, _, _, refused := fastcgi.ParseRequest(in, limit)
			require.Equal(t, http.StatusBadRequest, refused)
			return
		}
		again := fastcgi.EncodePairs(pairs...)
		require.LessOrEqual(t, len(again), len(in))
		twice, err := fastcgi.DecodePairs(string(again), limit)
		require.NoError(t, err)
		require.Equal(t, pairs, twice)

		r, p, length, refused := fastcgi.ParseRequest(in, limit)
		if refused != 0 {
			return
		}
		require.GreaterOrEqual(t, length, int64(-1))
		require.NotNil(t, r.URL)
		_, proxy := p.Get("HTTP_PROXY")
		require.False(t, proxy)
		require.Empty(t, r.Header.Values("Proxy"))
		var sent bytes.Buffer
		require.NoError(t, r.Header.Write(&sent))
		lines := 0
		for _, values := range r.Header {
			lines += len(values)
		}
		require.Equal(t, lines, strings.Count(sent.String(), "\n"), "every value is one line")
		for name, value := range p.All() {
			require.NotContains(t, name+value, "\x00")
		}
	})
}

var errStop = errors.New("stop")

// TestRecordedInput keeps FuzzRecords honest: its front does get answers.
func TestRecordedInput(t *testing.T) {
	in := append(head(1, 0, cgi("CONTENT_LENGTH", "5")), stream(stdin, 1, []byte("hello"))...)
	c := &recorded{Reader: io.MultiReader(bytes.NewReader(in), errReader{errStop})}
	(&fastcgi.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })}).ServeConn(c)
	require.Contains(t, c.out.String(), "hello")
}
