package selftest_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/api"
	"gantry/front/selftest"
	"gantry/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

func call(h http.Handler, method, path string, body io.Reader) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, selftest.Prefix+path, body))
	return w
}

func TestLinesAreNumbered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from := time.Now()
		w := call(selftest.New(selftest.Options{}), http.MethodGet, "lines?n=5&every=2s", nil)
		require.Equal(t, 10*time.Second, time.Since(from))
		n := 0
		for s := bufio.NewScanner(w.Body); s.Scan(); {
			var l selftest.Line
			require.NoError(t, api.DecodeBytes(s.Bytes(), &l))
			n++
			require.Equal(t, n, l.N)
			require.Equal(t, from.Add(time.Duration(n)*2*time.Second).UnixNano(), l.Time.UnixNano())
			require.Equal(t, n == 5, l.Last)
		}
		require.Equal(t, 5, n)
		require.Equal(t, "no", w.Header().Get("X-Accel-Buffering"))
		require.True(t, w.Flushed)
	})
}

func TestLimitsAreNamed(t *testing.T) {
	h := selftest.New(selftest.Options{})
	for path, want := range map[string]string{
		"lines?n=100001":               "0 to 100000",
		"lines?n=-1":                   "0 to 100000",
		"lines":                        "n: want a number",
		"lines?n=1000&every=1s":        "at most 45s",
		"lines?n=1&every=10m":          "0s to 45s",
		"quiet?for=46s":                "0s to 45s",
		"quiet?for=-1s":                "0s to 45s",
		"big?n=1073741825":             "0 to 1073741824",
		"cancel/start?id=short":        "16 to 64 hexadecimal digits",
		"cancel/ask?id=../../etc/x":    "16 to 64 hexadecimal digits",
		"cancel/start?id=&mode=silent": "16 to 64 hexadecimal digits",
	} {
		w := call(h, http.MethodGet, path, nil)
		require.Equal(t, http.StatusBadRequest, w.Code, "%s", path)
		require.Contains(t, w.Body.String(), want, "%s", path)
	}
}

func TestTooManyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := selftest.New(selftest.Options{})
		for range selftest.MaxRequests {
			go call(h, http.MethodGet, "quiet?for=10s", nil)
		}
		synctest.Wait()
		require.Equal(t, http.StatusServiceUnavailable, call(h, http.MethodGet, "headers", nil).Code)
		time.Sleep(11 * time.Second) // bubble time
		require.Equal(t, http.StatusOK, call(h, http.MethodGet, "headers", nil).Code)
	})
}

func TestNoDangerUnlessAsked(t *testing.T) {
	require.Equal(t, http.StatusNotFound, call(selftest.New(selftest.Options{}), http.MethodGet, "die?how=panic", nil).Code)
	h := selftest.New(selftest.Options{Danger: true})
	const id = "00112233445566778899aabbccddeeff"
	require.Equal(t, http.StatusOK, call(h, http.MethodGet, "die/now?id="+id, nil).Code)
	require.Panics(t, func() { call(h, http.MethodGet, "die?how=panic&id="+id, nil) })
}

func TestCancelTellsWhatBecameOfIt(t *testing.T) {
	const id = "00112233445566778899aabbccddeeff"
	ask := func(h http.Handler, until string) (a selftest.Cancel) {
		w := call(h, http.MethodGet, "cancel/ask?id="+id+"&until="+until, nil)
		require.NoError(t, api.DecodeBytes(w.Body.Bytes(), &a))
		return a
	}
	start := func(h http.Handler, ctx context.Context, mode string) {
		r := httptest.NewRequestWithContext(ctx, http.MethodGet, selftest.Prefix+"cancel/start?id="+id+"&mode="+mode, nil)
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
	for _, mode := range []string{"silent", "write"} {
		t.Run(mode+", client leaves", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := selftest.New(selftest.Options{})
				ctx, leave := context.WithCancelCause(t.Context())
				go start(h, ctx, mode)
				require.Equal(t, "running", ask(h, "started").State)
				leave(io.ErrClosedPipe)
				a := ask(h, "ended")
				require.Equal(t, selftest.Cancel{State: "ended", Cause: io.ErrClosedPipe.Error(), Left: true}, a)
				require.Equal(t, http.StatusConflict, call(h, http.MethodGet, "cancel/start?id="+id, nil).Code)
			})
		})
		t.Run(mode+", client stays", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := selftest.New(selftest.Options{})
				go start(h, t.Context(), mode)
				synctest.Wait()
				from := time.Now()
				require.False(t, ask(h, "ended").Left)
				require.Equal(t, selftest.MaxWait, time.Since(from))
			})
		})
	}
	t.Run("never started", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			require.Equal(t, "none", ask(selftest.New(selftest.Options{}), "started").State)
		})
	})
}

func TestHeadersShowNoSecrets(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, selftest.Prefix+"headers", nil)
	r.Header.Set(api.TicketHeader, "a secret of another route")
	r.Header.Set("X-Mine", "shown")
	w := httptest.NewRecorder()
	selftest.New(selftest.Options{}).ServeHTTP(w, r)
	require.NotContains(t, w.Body.String(), "secret")
	require.Contains(t, w.Body.String(), "X-Mine")
}

func TestEchoDigests(t *testing.T) {
	const size = 100_000
	w := call(selftest.New(selftest.Options{}), http.MethodPost, "echo", selftest.NewContent(size))
	var u selftest.Upload
	require.NoError(t, api.DecodeBytes(w.Body.Bytes(), &u))
	require.Equal(t, selftest.Upload{Bytes: size, Digest: selftest.Digest(size), Length: -1}, u)
	// The one value that b3sum prints for no bytes.
	require.Equal(t, "b3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262", selftest.Digest(0))
}

func TestRangeTakesOne(t *testing.T) {
	h := selftest.New(selftest.Options{})
	get := func(header string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, selftest.Prefix+"range", nil)
		r.Header.Set("Range", header)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	w := get("bytes=1000-1003")
	require.Equal(t, http.StatusPartialContent, w.Code)
	require.Equal(t, []byte{selftest.Byte(1000), selftest.Byte(1001), selftest.Byte(1002), selftest.Byte(1003)}, w.Body.Bytes())
	require.Equal(t, http.StatusRequestedRangeNotSatisfiable, get("bytes=0-1,5-6").Code)
}

func TestContentReadsAndSeeks(t *testing.T) {
	c := selftest.NewContent(10)
	all, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Len(t, all, 10)
	at, err := c.Seek(-3, io.SeekEnd)
	require.NoError(t, err)
	require.EqualValues(t, 7, at)
	rest, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Equal(t, all[7:], rest)
	_, err = c.Seek(-11, io.SeekCurrent)
	require.Error(t, err)
	require.False(t, strings.Contains(string(all[:5]), string(all[5:])))
}

// A front that reads slowly is told from one that takes everything.
func TestFlowCountsWhatIsTaken(t *testing.T) {
	h := selftest.New(selftest.Options{})
	const id = "0123456789abcdef0123456789abcdef"
	require.Equal(t, http.StatusBadRequest, call(h, http.MethodGet, "flow?id=x", nil).Code)
	ask := func() (f selftest.Flow) {
		require.NoError(t, api.DecodeBytes(call(h, http.MethodGet, "flow/ask?id="+id, nil).Body.Bytes(), &f))
		return f
	}
	require.Zero(t, ask().Taken)
	require.Equal(t, selftest.FlowSize, call(h, http.MethodGet, "flow?id="+id, nil).Body.Len())
	require.EqualValues(t, selftest.FlowSize, ask().Taken)
	for i := range 100 { // the oldest are forgotten
		call(h, http.MethodGet, fmt.Sprintf("flow/ask?id=%032x", i), nil)
	}
	require.Zero(t, ask().Taken)
}

func TestShortBreaksItsPromise(t *testing.T) {
	w := call(selftest.New(selftest.Options{}), http.MethodGet, "short?n=1000", nil)
	require.Equal(t, "1000", w.Header().Get("Content-Length"))
	require.Equal(t, 500, w.Body.Len())
}
