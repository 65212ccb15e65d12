package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"gantry/api"
	"gantry/client"
	"gantry/internal/testkit"

	"github.com/stretchr/testify/require"
)

// TestLostAnswer: a request whose answer was lost is sent again with its key,
// and what is refused after a loss is unknown, for the first one may have been
// obeyed.
func TestLostAnswer(t *testing.T) {
	for name, c := range map[string]struct{ status, exit int }{
		"then done":    {http.StatusCreated, api.ExitDone},
		"then refused": {http.StatusForbidden, api.ExitUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(testkit.Dir(t), "s")
			l, err := net.Listen("unix", path)
			require.NoError(t, err)
			var asked atomic.Int32
			keys := make(chan string, 8)
			server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				keys <- r.Header.Get(api.IdempotencyHeader)
				if asked.Add(1) == 1 {
					panic(http.ErrAbortHandler)
				}
				if c.status == http.StatusCreated {
					w.Header().Set("Content-Type", api.TypeJSON)
					w.WriteHeader(c.status)
					_, _ = w.Write(api.Encode(api.Job{ID: "the job"}))
					return
				}
				w.Header().Set("Content-Type", api.TypeProblem)
				w.WriteHeader(c.status)
				_, _ = w.Write(api.Encode(api.Problem{Status: c.status, Title: "no", Code: api.Forbidden.Name}))
			})}
			served := make(chan error, 1)
			go func() { served <- server.Serve(l) }()
			defer func() { require.NoError(t, server.Close()); <-served }()
			h := &hub{"hub", client.NewLocalMaster(path, nil)}
			defer h.Close()
			e := &env{Stderr: io.Discard, Now: time.Now}
			j, err := e.insist(t.Context(), h, func(ctx context.Context, key string) (*api.Job, error) {
				return h.Submit(ctx, &api.JobRequest{Spec: api.Raw(`{}`)}, key)
			})
			require.EqualValues(t, 2, asked.Load(), "%v", err)
			first := <-keys
			require.True(t, api.ValidID(first))
			require.Equal(t, first, <-keys, "another key would be another job")
			if c.exit == api.ExitDone {
				require.NoError(t, err)
				require.Equal(t, "the job", j.ID)
				return
			}
			require.Error(t, err)
			require.Equal(t, c.exit, exitCode(err), "%v", err)
		})
	}
}
