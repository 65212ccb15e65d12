package master_test

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gantry/api"
	"gantry/client"
	"gantry/config"
	"gantry/feedback"
	"gantry/job"
	"gantry/pki"

	"github.com/stretchr/testify/require"
)

// A copy between two real nodes, asked for over TLS and FastCGI, watched to its
// end, and found in history, metrics and on disk.
func TestACopyThroughTheMaster(t *testing.T) {
	w := newWorld(t, "")
	alpha, beta := w.node("alpha"), w.node("beta")
	require.NoError(t, os.WriteFile(filepath.Join(alpha, "a"), []byte(strings.Repeat("gantry ", 100_000)), 0o644))
	w.start()
	place := func(node, path string) job.Place {
		return job.Place{Node: node, File: api.File{Resource: "disks", Path: path}}
	}
	r := w.ask("ann", "POST", "/jobs", jsonType, request(job.Spec{Kind: job.Copy, From: place("alpha", "a"), To: place("beta", "b")}))
	require.Equal(t, 201, r.status, r.body)
	j := into[api.Job](t, r)
	feed := w.ask("ann", "GET", "/jobs/"+j.ID+"/feed", nil, "")
	require.Equal(t, 200, feed.status)
	require.Contains(t, feed.body, `"kind":"result"`)
	require.True(t, strings.HasPrefix(feed.body, `{"kind":"hello","v":1,"id":"`+j.ID), feed.body)
	got, err := os.ReadFile(filepath.Join(beta, "b"))
	require.NoError(t, err)
	require.Len(t, got, 700_000)
	require.Eventually(t, func() bool {
		j = into[api.Job](t, w.ask("ann", "GET", "/jobs/"+j.ID, nil, ""))
		return j.State == api.JobDone
	}, 5*time.Second, 10*time.Millisecond)
	require.Len(t, j.Attempts, 1)
	require.Len(t, j.Attempts[0].Tasks, 2)
	require.NotContains(t, w.ask("ann", "GET", "/jobs/"+j.ID, nil, "").body+feed.body, "ticket", "what reads an export is in no reply")
	metrics := w.ask("root", "GET", "/metrics", nil, "").body
	require.Contains(t, metrics, `gantry_content_bytes_total{origin="fetched"}`)
	require.Contains(t, metrics, `gantry_node_jobs_ended_total{node="beta",outcome="done"} 1`)
	require.Eventually(t, func() bool {
		nodes := into[api.NodeList](t, w.ask("ann", "GET", "/nodes", nil, "")).Nodes
		return nodes[0].Outcome == api.Done && nodes[1].Outcome == api.Done && !nodes[0].Expires.IsZero() && nodes[0].CRL != nil
	}, 10*time.Second, 20*time.Millisecond)
}

// The client of a master: over TLS and on the local socket, with a master that
// restarts while somebody watches.
func TestClientOfAMaster(t *testing.T) {
	w := newWorld(t, "").start()
	remote := client.NewMaster(client.Config{Node: config.ClusterNode{Name: "hub", URL: "https://" + w.addr}, TLS: pki.ClientTLS(w.ids["root"], "hub", nil)})
	local := client.NewLocalMaster(filepath.Join(w.dir, "local"), nil)
	t.Cleanup(remote.Close)
	t.Cleanup(local.Close)
	ctx := t.Context()
	req := &api.JobRequest{Spec: api.Encode(digestSpec("a")), NotBefore: time.Now().Add(time.Hour).Truncate(time.Second)}
	j, err := remote.Submit(ctx, req, "k")
	require.NoError(t, err)
	same, err := remote.Submit(ctx, req, "k")
	require.NoError(t, err)
	require.Equal(t, j.ID, same.ID)

	seen := make(chan feedback.Record, 100)
	ended := make(chan error, 1)
	lost := make(chan struct{}, 100)
	go func() {
		_, err := local.Watch(ctx, j.ID, 0, func(error, time.Duration) { lost <- struct{}{} }, func(rec feedback.Record) error {
			seen <- rec
			return nil
		})
		ended <- err
	}()
	require.Equal(t, feedback.KindHello, (<-seen).Kind)
	w.halt()
	<-lost
	w.start()
	_, err = remote.Cancel(ctx, j.ID)
	require.NoError(t, err)
	require.NoError(t, <-ended)
	finals := 0
	close(seen)
	for rec := range seen {
		if rec.Kind.Final() {
			finals++
		}
	}
	require.Equal(t, 1, finals)
	over, err := remote.Job(ctx, j.ID)
	require.NoError(t, err)
	require.Equal(t, api.JobCancelled, over.State, "whoever was shown the end asks afterwards")

	again, err := local.Retry(ctx, j.ID, api.RetryRequest{}, "")
	require.NoError(t, err)
	require.Equal(t, j.ID, again.RetryOf)
	shown, err := remote.Job(ctx, again.ID)
	require.NoError(t, err)
	require.Equal(t, again.Owner, shown.Owner)
	list, err := local.Jobs(ctx, url.Values{"limit": {"1"}})
	require.NoError(t, err)
	require.Len(t, list.Jobs, 1)
	require.NotEmpty(t, list.Next)
	nodes, err := remote.Nodes(ctx)
	require.NoError(t, err)
	require.Len(t, nodes.Nodes, 2)
	audit, err := remote.Audit(ctx, 0, 2)
	require.NoError(t, err)
	require.Len(t, audit.Entries, 2)
	status, err := local.Status(ctx)
	require.NoError(t, err)
	require.Equal(t, "hub", status.Master)
	_, err = remote.Records(ctx, again.ID, nil, nil)
	require.ErrorContains(t, err, "unknown_job", "the job is another's")
}
