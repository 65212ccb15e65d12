package client_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"

	"gantry/api"
	"gantry/client"

	"github.com/stretchr/testify/require"
)

// TestSentBeforeADial: net/http sends a request with a key a second time when the
// connection breaks. That nobody can be dialled then does not mean that nobody got
// the first one.
func TestSentBeforeADial(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	var served sync.WaitGroup
	t.Cleanup(served.Wait)
	t.Cleanup(func() { l.Close() })
	served.Go(func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		br := bufio.NewReader(conn)
		for n := range 2 {
			r, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, r.Body)
			if n == 0 {
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
			}
		}
		l.Close() // it has all of the second request, and dies
	})
	m := client.NewLocalMaster(path, nil)
	defer m.Close()
	_, err = m.Nodes(context.Background())
	require.NoError(t, err)
	_, err = m.Submit(context.Background(), &api.JobRequest{Spec: api.Raw(`{}`)}, "key")
	var broken *client.Broken
	require.ErrorAs(t, err, &broken)
	require.True(t, broken.Sent, "%v", err)
}

// TestNotSentOverADeadConnection: a kept connection that takes nothing is no sending.
func TestNotSentOverADeadConnection(t *testing.T) {
	m := client.NewLocalMaster(filepath.Join(t.TempDir(), "nobody"), nil)
	defer m.Close()
	_, err := m.Submit(context.Background(), &api.JobRequest{Spec: api.Raw(`{}`)}, "key")
	var broken *client.Broken
	require.ErrorAs(t, err, &broken)
	require.False(t, broken.Sent)
}
