package master

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gantry/api"
	"gantry/feedback"
	"gantry/job"
	"gantry/queue"

	"github.com/stretchr/testify/require"
)

// quiet is a master on a simulated network where only that goes wrong which a
// test asks for.
type quiet struct {
	*testing.T
	*sim
	m     *Master
	o     Options
	store *simStore
	end   func() // of the master's process
	jobs  int

	mu     sync.Mutex
	ran    []string            // guarded by mu; paths in the order in which their main task began
	ending map[string]chan any // guarded by mu; how a main task ends, by path
}

// inQuiet runs a test in a time of its own.
func inQuiet(t *testing.T, o Options, fn func(q *quiet)) {
	synctest.Test(t, func(t *testing.T) {
		q := &quiet{T: t, sim: newSim(1), o: o, ending: map[string]chan any{}}
		q.script = q.task
		q.open()
		t.Cleanup(func() { // also after a failure, for all must end with the bubble
			err := q.m.Close()
			for _, n := range q.nodes {
				n.endAll()
			}
			q.work.Wait()
			require.NoError(t, err)
			require.Empty(t, q.found)
		})
		fn(q)
	})
}

// open starts a master on what is on disk.
func (q *quiet) open() {
	alive, kill := context.WithCancelCause(context.Background())
	life := &simLife{number: 1, ctx: alive, called: map[string]int{}}
	q.store = &simStore{simDisk: q.disk, s: q.sim, done: map[string]int{}, broke: func(error) {}}
	o := q.o
	o.Store, o.random = q.store, func() float64 { return 0.5 }
	o.Node = func(name string) (job.Node, error) {
		if q.nodes[name] == nil {
			return nil, api.NotFound.Err("no node " + name)
		}
		return &simClient{q.nodes[name], life}, nil
	}
	var err error
	q.m, err = New(q.Context(), o)
	require.NoError(q, err)
	q.end = func() { kill(errSimKilled) }
}

func (q *quiet) close() {
	require.NoError(q, q.m.Close())
	require.Zero(q, len(q.m.feeds.open), "feeds are left open")
}

// task does what the test says by finish. An export waits for its reader.
func (q *quiet) task(t *simTask) any {
	t.add(feedback.KindState, &feedback.State{State: api.StateRunning})
	ending := t.finish
	if t.req.Op != api.OpExport {
		q.mu.Lock()
		q.ran = append(q.ran, t.path)
		q.mu.Unlock()
		select {
		case v := <-q.way(t.path):
			if v == nil {
				t.n.s.finishExport(t)
				return api.ImportResult{Digest: "b3:1"}
			}
			return v
		case <-t.cancelled:
			return nil
		}
	}
	select {
	case <-ending:
		return api.ExportResult{}
	case <-t.cancelled:
		return nil
	}
}

func (q *quiet) way(path string) chan any {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ending[path] == nil {
		q.ending[path] = make(chan any)
	}
	return q.ending[path]
}

// finish ends the main task of a path: nil is success.
func (q *quiet) finish(path string, how any) {
	q.Helper()
	select {
	case q.way(path) <- how:
	case <-time.After(time.Hour):
		require.FailNow(q, "its task does not run", path)
	}
}

// order lists the paths whose main tasks began.
func (q *quiet) order() string {
	synctest.Wait()
	q.mu.Lock()
	defer q.mu.Unlock()
	return strings.Join(q.ran, " ")
}

// submit submits a digest at alpha, or a copy if there are more nodes.
func (q *quiet) submit(path string, change func(*queue.Job), nodes ...string) queue.Job {
	q.Helper()
	place := func(k int) job.Place {
		return job.Place{Node: nodes[k], File: api.File{Resource: "disks", Path: path}}
	}
	if len(nodes) == 0 {
		nodes = []string{"alpha"}
	}
	spec := job.Spec{Kind: job.Digest, Cluster: "demo", From: place(0)}
	if len(nodes) > 1 {
		spec.Kind, spec.Way, spec.Mode, spec.To = job.Copy, job.Pull, api.ModeCreate, place(1)
	}
	q.jobs++
	j := queue.Job{Spec: api.Encode(spec), Owner: "ann", Key: fmt.Sprint(q.jobs)}
	if change != nil {
		change(&j)
	}
	kept, existed, err := q.m.Submit(q.Context(), j)
	require.NoError(q, err)
	require.False(q, existed)
	q.pass(time.Second)
	return kept
}

func (q *quiet) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// until waits for a state of a job.
func (q *quiet) until(id string, state queue.State) {
	q.Helper()
	for begin := time.Now(); q.row(id).State != state; q.pass(time.Second) {
		require.Less(q, time.Since(begin), time.Hour, "it is %s", q.row(id).State)
	}
}

func (q *quiet) row(id string) queue.Job {
	q.Helper()
	j, err := q.store.Job(q.Context(), id)
	require.NoError(q, err)
	return j
}

// said lists the states and logs of a job's feed.
func (q *quiet) said(id string) []string {
	q.disk.mu.Lock()
	defer q.disk.mu.Unlock()
	var all []string
	for _, line := range q.disk.lines[id] {
		rec, err := feedback.Decode(line)
		require.NoError(q, err)
		switch body := rec.Body.(type) {
		case *feedback.State:
			all = append(all, body.State)
		case *feedback.Log:
			all = append(all, body.Text)
		case *feedback.Result:
			all = append(all, "result")
		case *feedback.Error:
			all = append(all, body.Code)
		}
	}
	return all
}
