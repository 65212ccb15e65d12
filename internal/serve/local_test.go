package serve

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"gantry/access"
	"gantry/api"
	"gantry/internal/testkit"

	"github.com/stretchr/testify/require"
)

// A local caller who sends half a body, or reads nothing of a reply, holds one
// of the few connections for a bounded time, and what is slow for another reason
// is let alone.
func TestLocalCallersWhoStandStill(t *testing.T) {
	body, write := localBody, localWrite
	localBody, localWrite = 200*time.Millisecond, 200*time.Millisecond
	defer func() { localBody, localWrite = body, write }()
	ended := make(chan error, 1)
	s, err := New(Config{
		Prefix: api.MasterPrefix,
		Routes: []api.Route{{Name: "body", Method: "POST", Path: "/body", Media: api.TypeJSON}, {Name: "flood", Method: "GET", Path: "/flood"}},
		Handlers: map[string]Handler{
			"body": func(w http.ResponseWriter, r *http.Request) error {
				if _, err := ReadBody(w, r, 100); err != nil {
					return err
				}
				select { // longer than a body may take
				case <-time.After(2 * localBody):
				case <-r.Context().Done():
					return r.Context().Err()
				}
				return JSON(w, http.StatusOK, "read")
			},
			"flood": func(w http.ResponseWriter, r *http.Request) error {
				for {
					if _, err := w.Write(make([]byte, 64<<10)); err != nil {
						ended <- err
						return err
					}
				}
			},
		},
		Authorize: func(access.Caller, api.Route, map[string]string) error { return nil },
	})
	require.NoError(t, err)
	path := filepath.Join(testkit.Dir(t), "local")
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	srv := s.LocalServer(func(access.Caller) bool { return true })
	served := make(chan error, 1)
	go func() { served <- srv.Serve(Local(l, 1)) }() // one connection: each must end for the next
	defer func() { require.NoError(t, srv.Close()); require.ErrorIs(t, <-served, http.ErrServerClosed) }()
	send := func(text string) net.Conn {
		c, err := net.Dial("unix", path)
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		_, err = io.WriteString(c, text)
		require.NoError(t, err)
		return c
	}
	post := "POST " + api.MasterPrefix + "/body HTTP/1.1\r\nHost: local\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\n"

	resp, err := http.ReadResponse(bufio.NewReader(send(post+"1")), nil)
	require.NoError(t, err)
	text, _ := io.ReadAll(resp.Body)
	require.Equal(t, 400, resp.StatusCode)
	require.Contains(t, string(text), "the body did not come in time")

	send(fmt.Sprintf("GET %s/flood HTTP/1.1\r\nHost: local\r\n\r\n", api.MasterPrefix))
	require.ErrorContains(t, <-ended, "i/o timeout")

	resp, err = http.ReadResponse(bufio.NewReader(send(post+"1234")), nil)
	require.NoError(t, err)
	require.Equal(t, 200, resp.StatusCode)
}
