package fastcgi_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"gantry/fastcgi"

	"github.com/stretchr/testify/require"
	"github.com/yookoala/gofast"
)

// TestGofast runs the whole way with a client that somebody else wrote.
func TestGofast(t *testing.T) {
	causes := make(chan error, 1)
	started := make(chan struct{}, 1)
	s := handle(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/echo":
			w.Header().Set("X-Method", r.Method)
			w.Header().Set("X-Length", strconv.FormatInt(r.ContentLength, 10))
			w.Header()["X-Two"] = []string{r.Header.Get("X-One"), r.URL.RawQuery}
			body, _ := io.ReadAll(r.Body) // net/http before gofast stops the upload when the reply begins
			w.WriteHeader(http.StatusAccepted)
			_, _ = w.Write(body)
		case "/early":
			http.Error(w, "no", http.StatusForbidden)
		case "/panic":
			panic("oops")
		case "/wait":
			_, _ = io.Copy(io.Discard, r.Body)
			started <- struct{}{}
			<-r.Context().Done()
			causes <- context.Cause(r.Context())
		}
	})
	front := httptest.NewServer(gofast.NewHandler(
		gofast.Chain(gofast.BasicParamsMap, gofast.MapHeader)(gofast.BasicSession),
		gofast.SimpleClientFactory(gofast.SimpleConnFactory("unix", s.path))))
	defer front.Close()

	t.Run("echo", func(t *testing.T) {
		for _, size := range []int{0, 1, 5000, 65535, 65536, 3 << 20} {
			body := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
			req, err := http.NewRequest("PUT", front.URL+"/echo?q=%2f", bytes.NewReader(body))
			require.NoError(t, err)
			req.Header.Set("X-One", "1")
			resp, err := front.Client().Do(req)
			require.NoError(t, err)
			got, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			resp.Body.Close()
			require.Equal(t, http.StatusAccepted, resp.StatusCode)
			require.True(t, bytes.Equal(body, got), "%d bytes", size)
			require.Equal(t, "PUT", resp.Header.Get("X-Method"))
			require.Equal(t, strconv.Itoa(size), resp.Header.Get("X-Length"))
			require.Equal(t, []string{"1", "q=%2f"}, resp.Header["X-Two"])
		}
	})
	t.Run("early answer", func(t *testing.T) {
		resp, err := front.Client().Post(front.URL+"/early", "text/plain", strings.NewReader(strings.Repeat("x", 3<<20)))
		require.NoError(t, err)
		defer resp.Body.Close()
		require.Equal(t, http.StatusForbidden, resp.StatusCode)
	})
	t.Run("panic", func(t *testing.T) {
		resp, err := front.Client().Get(front.URL + "/panic")
		require.NoError(t, err)
		defer resp.Body.Close()
		require.Equal(t, http.StatusInternalServerError, resp.StatusCode)
	})
	t.Run("client leaves", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		req, err := http.NewRequestWithContext(ctx, "GET", front.URL+"/wait", nil)
		require.NoError(t, err)
		failed := make(chan error, 1)
		go func() {
			resp, err := front.Client().Do(req)
			if err == nil {
				resp.Body.Close()
			}
			failed <- err
		}()
		receive(t, started)
		cancel()
		require.ErrorIs(t, receive(t, failed), context.Canceled)
		cause := receive(t, causes)
		if cause != fastcgi.ErrAborted { // it closes the socket, or sends FCGI_ABORT_REQUEST before
			require.ErrorIs(t, cause, fastcgi.ErrClientGone)
		}
	})
}
