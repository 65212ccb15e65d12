package cluster_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"gantry/api"
	"gantry/client"
	"gantry/feedback"
	"gantry/front"
	"gantry/internal/cluster"
	"gantry/job"
	"gantry/master"
	"gantry/queue"

	"github.com/stretchr/testify/require"
)

// masterSize and masterRate make a copy last a second or more.
const (
	masterSize = 96 << 20
	masterRate = 64 << 20
)

// masters is a master in this process, with a store on disk and real nodes.
type masters struct {
	t     *testing.T
	c     *cluster.Cluster
	path  string
	nodes map[string]*client.Client
	store *queue.Store
	m     *master.Master
}

func (k *masters) open() {
	k.t.Helper()
	var err error
	k.store, err = queue.Open(k.path, queue.Options{})
	require.NoError(k.t, err)
	k.m, err = master.New(k.t.Context(), master.Options{
		Store: k.store, DefaultSlots: 2,
		Node: func(name string) (job.Node, error) {
			if k.nodes[name] == nil {
				return nil, api.NotFound.Err("there is no node " + name)
			}
			return k.nodes[name], nil
		},
		Client: func(name string) (*client.Client, error) { return k.nodes[name], nil },
		Lean:   func(name string) (*client.Client, error) { return k.c.Client(name), nil },
	})
	require.NoError(k.t, err)
}

func (k *masters) close() {
	k.t.Helper()
	require.NoError(k.t, k.m.Close())
	require.NoError(k.t, k.store.Close())
}

// until waits until the job is in one of the states.
func (k *masters) until(id string, states ...queue.State) queue.Job {
	k.t.Helper()
	var j queue.Job
	require.Eventually(k.t, func() bool {
		var err error
		j, err = k.store.Job(k.t.Context(), id)
		require.NoError(k.t, err)
		for _, s := range states {
			if j.State == s {
				return true
			}
		}
		return false
	}, time.Minute, 10*time.Millisecond)
	return j
}

// fetching waits until a job's import has fetched something.
func (k *masters) fetching(id string) {
	k.t.Helper()
	require.Eventually(k.t, func() bool {
		for _, p := range k.m.Progress(id) {
			if p.Phase == "fetch" && p.Done > 0 && p.Done < p.Total {
				return true
			}
		}
		return false
	}, time.Minute, time.Millisecond)
}

// TestMasterGoesOn copies through a master, on real fronts and nodes: a responder
// is killed in the middle, then the master is opened afresh in the middle, and
// each job is done in its first attempt.
func TestMasterGoesOn(t *testing.T) {
	t.Parallel()
	kind := front.Nginx
	needFront(t, kind)
	const jobs = 4
	c := newCluster(t, cluster.Options{Front: kind, Proxied: true}, func(c *cluster.Cluster) {
		for n := range jobs {
			random(t, c, fmt.Sprint("src", n), uint64(n), masterSize)
		}
	})
	c.Proxy("alpha").Limit(masterRate)
	k := &masters{t: t, c: c, path: filepath.Join(t.TempDir(), "queue.db"), nodes: map[string]*client.Client{}}
	for _, name := range []string{"alpha", "beta"} {
		k.nodes[name] = c.Client(name)
		t.Cleanup(k.nodes[name].Close)
	}
	k.open()
	place := func(node, path string) job.Place {
		return job.Place{Node: node, File: api.File{Resource: cluster.Resource, Path: path}}
	}
	var ids []string
	for n := range jobs {
		spec := job.Spec{
			Kind: job.Copy, Cluster: cluster.Name, Mode: api.ModeCreate,
			From: place("alpha", fmt.Sprint("src", n)), To: place("beta", fmt.Sprint("dst", n)),
		}
		j, existed, err := k.m.Submit(t.Context(), queue.Job{Spec: api.Encode(spec), Owner: "ann", Key: fmt.Sprint(n)})
		require.NoError(t, err)
		require.False(t, existed)
		ids = append(ids, j.ID)
	}
	k.fetching(ids[0])
	require.Equal(t, queue.Queued, k.until(ids[2], queue.Queued).State, "two slots, four jobs")
	require.NoError(t, c.Kill("beta/node"))
	k.until(ids[0], queue.Done)

	k.fetching(ids[2])
	k.close()
	k.open()
	for n, id := range ids {
		j := k.until(id, queue.Done, queue.Failed, queue.Refused, queue.Cancelled)
		require.Equal(t, queue.Done, j.State, "%s", j.Final)
		require.Equal(t, 1, j.Attempt)
		require.True(t, same(t, c.Path("alpha", fmt.Sprint("src", n)), c.Path("beta", fmt.Sprint("dst", n))))
		k.whole(id)
	}

	// What moves nothing goes the same way.
	for _, spec := range []job.Spec{
		{Kind: job.Verify, Cluster: cluster.Name, From: place("alpha", "src1"), To: place("beta", "dst1")},
		{Kind: job.Digest, Cluster: cluster.Name, From: place("beta", "dst1")},
		{Kind: job.Call, Cluster: cluster.Name, Call: &api.CallSpec{Nodes: []string{"alpha", "beta"}, Op: api.CallStatus}},
	} {
		j, _, err := k.m.Submit(t.Context(), queue.Job{Spec: api.Encode(spec), Owner: "ann"})
		require.NoError(t, err)
		j = k.until(j.ID, queue.Done, queue.Failed, queue.Refused)
		require.Equal(t, queue.Done, j.State, "%s: %s", spec.Kind, j.Final)
	}

	// Cancelled is what the node has said.
	spec := api.Encode(job.Spec{
		Kind: job.Copy, Cluster: cluster.Name, Mode: api.ModeReplace,
		From: place("alpha", "src0"), To: place("beta", "never"),
	})
	j, _, err := k.m.Submit(t.Context(), queue.Job{Spec: spec, Owner: "ann"})
	require.NoError(t, err)
	k.fetching(j.ID)
	require.NoError(t, k.m.Cancel(t.Context(), j.ID, "ann"))
	k.until(j.ID, queue.Cancelled)
	require.NoFileExists(t, c.Path("beta", "never"))
	attempts, err := k.store.Attempts(t.Context(), j.ID)
	require.NoError(t, err)
	var info job.Info
	require.NoError(t, api.DecodeBytes(attempts[0].Info, &info))
	task, err := k.nodes["beta"].Task(t.Context(), info.Main().Request.ID)
	require.NoError(t, err)
	require.Equal(t, api.Cancelled, task.Outcome)
	k.close()
}

// whole checks a feed: every number once, each task's too, one final, and no ticket.
func (k *masters) whole(id string) {
	k.t.Helper()
	feed, release, err := k.m.Feed(id)
	require.NoError(k.t, err)
	defer release()
	last, tasks, finals := int64(0), map[string]int64{}, 0
	for rec, err := range feed.Records(0) {
		require.NoError(k.t, err)
		require.Equal(k.t, last+1, rec.Seq)
		require.NotContains(k.t, string(rec.Line), `"ticket"`)
		last = rec.Seq
		if rec.Kind.Final() {
			finals++
		}
		if t, ok := rec.Body.(*feedback.Task); ok {
			inner, err := feedback.Decode(t.Record)
			require.NoError(k.t, err)
			require.Equal(k.t, tasks[t.Task]+1, inner.Seq)
			tasks[t.Task] = inner.Seq
		}
	}
	require.Equal(k.t, 1, finals)
	require.Len(k.t, tasks, 2)
}
