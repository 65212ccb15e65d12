package master

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gantry/api"
	"gantry/feedback"
	"gantry/job"
	"gantry/queue"

	"github.com/stretchr/testify/require"
)

func TestAttempts(t *testing.T) {
	inQuiet(t, Options{}, func(q *quiet) {
		j := q.submit("a", func(j *queue.Job) { j.MaxAttempts = 3 }, "alpha", "beta")
		for n := range 3 {
			q.until(j.ID, queue.Running)
			require.Equal(q, n+1, q.row(j.ID).Attempt)
			q.finish("a", api.IO.Err("the disk is broken"))
			if n < 2 {
				q.until(j.ID, queue.Waiting)
				require.Contains(q, q.row(j.ID).Why, "the disk is broken")
				require.Empty(q, q.live, "the export of the attempt may still run")
			}
		}
		q.until(j.ID, queue.Failed)
		attempts, err := q.store.Attempts(q.Context(), j.ID)
		require.NoError(q, err)
		require.Len(q, attempts, 3)
		require.Equal(q, api.Failed, attempts[0].Outcome)
		require.Less(q, attempts[1].Started.Sub(attempts[0].Ended), attempts[2].Started.Sub(attempts[1].Ended), "the pause grows")
		// The second attempt takes over what the first has staged.
		var first, second job.Info
		require.NoError(q, api.DecodeBytes(attempts[0].Info, &first))
		require.NoError(q, api.DecodeBytes(attempts[1].Info, &second))
		require.Equal(q, first.Main().Request.ID, second.Spec.Resume)
		require.Equal(q, []string{"running", "waiting_retry", "running", "waiting_retry", "running", "io"}, slices.DeleteFunc(q.said(j.ID), func(s string) bool { return strings.Contains(s, " ") }))

		// A user's retry is a job of its own.
		q.pass(time.Minute) // the last export ends
		_, err = q.m.Again(q.Context(), j.ID, "bob", "nowhere")
		require.ErrorContains(q, err, "publish")
		again, err := q.m.Retry(q.Context(), j.ID, "bob", api.FromPublish)
		require.NoError(q, err)
		require.Equal(q, []string{"bob", j.ID}, []string{again.Owner, again.RetryOf})
		var spec job.Spec
		require.NoError(q, api.DecodeBytes(again.Spec, &spec))
		var third job.Info
		require.NoError(q, api.DecodeBytes(attempts[2].Info, &third))
		require.Equal(q, third.Main().Request.ID, spec.Resume)
		_, err = q.m.Again(q.Context(), again.ID, "bob", "")
		require.ErrorIs(q, err, ErrUnfinished)
		q.finish("a", nil)
		q.pass(time.Second)
		require.Equal(q, queue.Done, q.row(again.ID).State)
	})
}

func TestNoRetryOfWhatCannotSucceed(t *testing.T) {
	inQuiet(t, Options{}, func(q *quiet) {
		j := q.submit("a", nil)
		q.finish("a", api.Denied.Err("no"))
		q.pass(time.Second)
		require.Equal(q, queue.Failed, q.row(j.ID).State)
		lost := q.submit("b", nil, "nowhere")
		require.Equal(q, queue.Refused, q.row(lost.ID).State)
	})
}

// A node that takes nothing now has not been tried: a drain is no attempt.
func TestADrainingNodeIsNoAttempt(t *testing.T) {
	inQuiet(t, Options{}, func(q *quiet) {
		var draining atomic.Bool
		draining.Store(true)
		q.refuse = func(string, string) *api.Code {
			if draining.Load() {
				return api.Draining
			}
			return nil
		}
		j := q.submit("a", func(j *queue.Job) { j.MaxAttempts = 1 })
		q.pass(time.Hour)
		row := q.row(j.ID)
		require.Equal(q, queue.Waiting, row.State)
		require.Zero(q, row.Attempt)
		draining.Store(false)
		q.pass(15 * time.Minute)
		require.Equal(q, queue.Running, q.row(j.ID).State)
		q.finish("a", nil)
		q.pass(time.Second)
		require.Equal(q, queue.Done, q.row(j.ID).State)
		require.Equal(q, 1, q.row(j.ID).Attempt)
	})
}

// A restart and a drain leave tasks alone, and the same attempt goes on.
func TestRestartGoesOnWithTheAttempt(t *testing.T) {
	for _, killed := range []bool{false, true} {
		inQuiet(t, Options{}, func(q *quiet) {
			j := q.submit("a", nil, "alpha", "beta")
			waiting := q.submit("b", func(j *queue.Job) { j.NotBefore = time.Now().Add(time.Minute) })
			if killed {
				q.store.kill()
				q.end()
				_ = q.m.Close() // of a broken one
			} else {
				q.close()
			}
			require.ErrorIs(q, q.m.Cancel(q.Context(), j.ID, "bob"), ErrClosed)
			require.Len(q, q.live, 2, "the tasks go on")
			q.open()
			q.pass(5 * time.Second)
			require.Equal(q, 1, q.row(j.ID).Attempt)
			q.finish("a", nil)
			q.pass(2 * time.Minute)
			require.Equal(q, queue.Done, q.row(j.ID).State)
			require.Equal(q, "a b", q.order())
			require.Contains(q, q.said(j.ID), "the master was started again: attempt 1 goes on")
			q.finish("b", nil)
			q.pass(time.Second)
			require.Equal(q, queue.Done, q.row(waiting.ID).State)
		})
	}
}

func TestCancel(t *testing.T) {
	inQuiet(t, Options{Slots: map[string]int{"alpha": 1}}, func(q *quiet) {
		running, queued := q.submit("a", nil), q.submit("b", nil)
		require.NoError(q, q.m.Cancel(q.Context(), queued.ID, "bob"))
		require.Equal(q, queue.Cancelled, q.row(queued.ID).State, "at once")
		require.Equal(q, "bob", q.row(queued.ID).CancelBy)
		require.ErrorIs(q, q.m.Cancel(q.Context(), queued.ID, "bob"), queue.ErrEnded)
		require.ErrorIs(q, q.m.Cancel(q.Context(), api.NewID(), "bob"), queue.ErrNotFound)

		require.NoError(q, q.m.Cancel(q.Context(), running.ID, "bob"))
		require.Equal(q, queue.Running, q.row(running.ID).State, "its node has not said so yet")
		q.pass(time.Minute)
		require.Equal(q, queue.Cancelled, q.row(running.ID).State)
		require.Equal(q, "a", q.order())
		attempts, err := q.store.Attempts(q.Context(), running.ID)
		require.NoError(q, err)
		require.Equal(q, api.Cancelled, attempts[0].Outcome)
	})
}

// What cannot be asked is unknown, is no second attempt, and is asked again.
func TestUnknownIsAskedAgain(t *testing.T) {
	inQuiet(t, Options{}, func(q *quiet) {
		var gone atomic.Bool
		q.unreachable = func(node string) bool { return gone.Load() && node == "beta" }
		j := q.submit("a", nil, "alpha", "beta")
		gone.Store(true)
		q.cutAll()
		q.pass(3 * time.Minute)
		require.Equal(q, queue.Unknown, q.row(j.ID).State)
		require.Contains(q, q.row(j.ID).Why, "unknown")
		q.close() // a restart changes nothing about it
		q.open()
		q.pass(time.Hour)
		require.Equal(q, queue.Unknown, q.row(j.ID).State)
		gone.Store(false)
		q.pass(10 * time.Minute)
		require.Equal(q, queue.Running, q.row(j.ID).State)
		require.Equal(q, 1, q.row(j.ID).Attempt)
		q.finish("a", nil)
		q.pass(time.Second)
		require.Equal(q, queue.Done, q.row(j.ID).State)
		require.Equal(q, "a", q.order())
	})
}

// A job whose node is gone for good can be given up: it ends, its outcome stays
// unknown, and nothing of a job that somebody can answer for is given up.
func TestAbandon(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		inQuiet(t, Options{}, func(q *quiet) {
			var gone atomic.Bool
			q.unreachable = func(node string) bool { return gone.Load() && node == "beta" }
			j := q.submit("a", nil, "alpha", "beta")
			require.ErrorIs(q, q.m.Abandon(q.Context(), j.ID, "bob"), ErrKnown, "it runs")
			require.Empty(q, q.row(j.ID).CancelBy)
			require.ErrorIs(q, q.m.Abandon(q.Context(), api.NewID(), "bob"), queue.ErrNotFound)
			gone.Store(true)
			q.cutAll()
			q.pass(3 * time.Minute)
			require.Equal(q, queue.Unknown, q.row(j.ID).State)
			if restarted {
				q.close()
				q.open()
			}
			require.NoError(q, q.m.Abandon(q.Context(), j.ID, "bob"))
			row := q.row(j.ID)
			require.Equal(q, queue.Abandoned, row.State)
			require.Equal(q, api.Unknown, row.Outcome)
			require.Equal(q, "bob", row.CancelBy)
			require.Contains(q, row.Why, "abandoned by bob; nobody says what became of task ")
			require.Contains(q, row.Why, " at beta")
			attempts, err := q.store.Attempts(q.Context(), j.ID)
			require.NoError(q, err)
			require.Equal(q, api.Unknown, attempts[0].Outcome)
			said := q.said(j.ID)
			require.Equal(q, "abandoned", said[len(said)-1])
			require.ErrorIs(q, q.m.Abandon(q.Context(), j.ID, "bob"), queue.ErrEnded)
			require.Zero(q, q.m.Unfinished())
			q.close() // and it stays ended, also when its node is back
			gone.Store(false)
			q.open()
			q.pass(time.Hour)
			require.Equal(q, queue.Abandoned, q.row(j.ID).State)
			_, err = q.m.Again(q.Context(), j.ID, "bob", "")
			require.NoError(q, err, "it can be tried again")
		})
	}
}

// What the node says while a job is given up is what counts.
func TestAbandonComesTooLate(t *testing.T) {
	inQuiet(t, Options{}, func(q *quiet) {
		var gone atomic.Bool
		q.unreachable = func(string) bool { return gone.Load() }
		j := q.submit("a", nil)
		gone.Store(true)
		q.cutAll()
		q.pass(3 * time.Minute)
		require.Equal(q, queue.Unknown, q.row(j.ID).State)
		gone.Store(false)
		q.finish("a", nil)
		q.pass(10 * time.Minute)
		require.Equal(q, queue.Done, q.row(j.ID).State)
		require.ErrorIs(q, q.m.Abandon(q.Context(), j.ID, "bob"), queue.ErrEnded)
		require.Equal(q, queue.Done, q.row(j.ID).State)
	})
}

func TestStalled(t *testing.T) {
	inQuiet(t, Options{}, func(q *quiet) {
		j := q.submit("a", nil)
		task := q.tasks[0]
		show := func(done, stalled int64, why string) {
			task.progress(feedback.Progress{Item: "a", Phase: "hash", Unit: "bytes", Done: done, Total: 100, TotalIs: feedback.TotalExact, Stalled: stalled, Why: why, ETA: -1})
		}
		show(10, 0, "")
		q.pass(5 * time.Second)
		require.Equal(q, queue.Running, q.row(j.ID).State)
		show(10, 30, feedback.WhyDisk)
		q.pass(40 * time.Second)
		require.Equal(q, queue.Stalled, q.row(j.ID).State)
		require.Contains(q, q.row(j.ID).Why, "alpha:a: alpha: "+feedback.WhyDisk)
		show(20, 0, "")
		q.pass(6 * time.Second)
		require.Equal(q, queue.Running, q.row(j.ID).State)
		q.finish("a", nil)
		q.pass(time.Second)
		require.Equal(q, []string{"running", "stalled", "running", "result"}, q.said(j.ID))
	})
}

// A store that fails ends the master, which says so once; nothing is lost.
func TestABrokenStoreEndsTheMaster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var broken []error
		q := &quiet{T: t, sim: newSim(1), ending: map[string]chan any{}, o: Options{OnBroken: func(err error) { broken = append(broken, err) }}}
		q.script = q.task
		q.open()
		j := q.submit("a", nil)
		q.store.mu.Lock()
		q.store.failAt = time.Now()
		q.store.mu.Unlock()
		q.finish("a", nil)
		q.pass(time.Minute)
		require.Len(t, broken, 1)
		require.ErrorIs(t, broken[0], queue.ErrBroken)
		_, _, err := q.m.Submit(t.Context(), queue.Job{Spec: j.Spec, Owner: "ann"})
		require.ErrorIs(t, err, ErrClosed)
		require.ErrorIs(t, q.m.Close(), queue.ErrBroken)
		q.open()
		q.pass(time.Minute)
		require.Equal(t, queue.Done, q.row(j.ID).State)
		q.close()
		q.work.Wait()
	})
}

func TestFeedsCloseWithTheirLastUser(t *testing.T) {
	inQuiet(t, Options{}, func(q *quiet) {
		j := q.submit("a", nil)
		q.finish("a", nil)
		q.pass(time.Second)
		require.Empty(q, q.m.feeds.open)
		var all []func()
		for range 3 {
			feed, release, err := q.m.Feed(j.ID)
			require.NoError(q, err)
			_, over := feed.Final()
			require.True(q, over)
			all = append(all, release)
		}
		require.Len(q, q.m.feeds.open, 1)
		for _, release := range all {
			release()
			release() // once more does nothing
		}
		require.Empty(q, q.m.feeds.open)
	})
}

// A job with a local side is its owner's to drive and to end. When he falls
// silent it is unknown, not done and not running, until he is back.
func TestLocalJobs(t *testing.T) {
	inQuiet(t, Options{}, func(q *quiet) {
		spec := job.Spec{Kind: job.Export, Cluster: "demo", From: job.Place{Node: "alpha", File: api.File{Resource: "disks", Path: "a"}}, Local: "/tmp/a"}
		j, _, err := q.m.Submit(q.Context(), queue.Job{Spec: api.Encode(spec), Owner: "ann", Key: "local"})
		require.NoError(q, err)
		require.Equal(q, queue.Running, j.State)
		report := func(records ...feedback.Record) error {
			return q.m.Record(q.Context(), j.ID, records, []feedback.Progress{{Item: "alpha:a", Phase: "fetch", Unit: "bytes", Total: 9, Done: 4, TotalIs: feedback.TotalExact}})
		}
		moving := func() int {
			feed, release, err := q.m.Feed(j.ID)
			require.NoError(q, err)
			defer release()
			return len(feed.Progress())
		}
		for range 10 { // heartbeats alone keep it running
			require.NoError(q, report())
			require.Equal(q, 1, moving())
			q.pass(api.DriverSilence - time.Second)
			require.Equal(q, queue.Running, q.row(j.ID).State)
		}
		q.pass(2*driverEvery + time.Second)
		require.Equal(q, queue.Unknown, q.row(j.ID).State)
		require.Contains(q, q.row(j.ID).Why, "ann, who drives it, has not reported since")
		require.Zero(q, moving())
		require.NoError(q, report())
		require.Equal(q, queue.Running, q.row(j.ID).State, "he is back")
		q.close()
		q.open()
		require.Empty(q, q.order(), "the master drives nothing of it")
		require.Equal(q, queue.Running, q.row(j.ID).State, "a restart of the master is not his silence")
		q.pass(api.DriverSilence + 2*driverEvery)
		require.Equal(q, queue.Unknown, q.row(j.ID).State)
		require.NoError(q, q.m.Cancel(q.Context(), j.ID, "bob"))
		require.Equal(q, queue.Unknown, q.row(j.ID).State, "its driver ends it")
		gone, _, err := q.m.Submit(q.Context(), queue.Job{Spec: api.Encode(spec), Owner: "ann", Key: "gone"})
		require.NoError(q, err)
		require.ErrorIs(q, q.m.Abandon(q.Context(), gone.ID, "bob"), ErrKnown)
		q.pass(api.DriverSilence + 2*driverEvery)
		require.NoError(q, q.m.Abandon(q.Context(), gone.ID, "bob"))
		require.Equal(q, queue.Abandoned, q.row(gone.ID).State)
		require.Contains(q, q.row(gone.ID).Why, "abandoned by bob; nobody says what became of ann, who drove it")
		final := feedback.Record{Kind: feedback.KindError, Seq: 7, Time: time.Now(), Body: api.CancelledBy.Err("cancelled")}
		require.ErrorIs(q, q.m.Record(q.Context(), gone.ID, []feedback.Record{final}, nil), queue.ErrEnded, "he is back, too late")
		require.NoError(q, report(final))
		require.Equal(q, queue.Cancelled, q.row(j.ID).State)
		require.NoError(q, report(final), "a repeat")
		require.Equal(q, []string{"driven by ann, not by this master, which keeps what is reported", "running", "unknown", "running", "unknown", "running", "cancelled"}, q.said(j.ID))
		require.Equal(q, "ann", driverOf(q.row(j.ID)))
	})
}

// lateStore writes the row of an ended job down when it is let.
type lateStore struct {
	*simStore
	let chan struct{}
}

func (s *lateStore) Update(ctx context.Context, id string, fn func(*queue.Job) error) (queue.Job, error) {
	var j queue.Job
	if fn(&j) == nil && j.State.Final() {
		<-s.let
	}
	return s.simStore.Update(ctx, id, fn)
}

// Who was shown a job's end in its feed is not told by a list that it runs.
func TestAListWaitsForWhatWasShown(t *testing.T) {
	inQuiet(t, Options{}, func(q *quiet) {
		late := &lateStore{q.store, make(chan struct{})}
		q.m.o.Store = late
		let := sync.OnceFunc(func() { close(late.let) })
		defer let()
		ended, runs := q.submit("a", nil), q.submit("b", nil)
		q.finish("a", nil)
		q.pass(10 * time.Second)
		require.Contains(q, q.said(ended.ID), "result", "its end is shown")
		waited := make(chan bool, 1)
		go func() {
			w, err := q.m.SettledAll(context.Background(), []string{runs.ID, ended.ID})
			waited <- w && err == nil
		}()
		q.pass(time.Second)
		require.Empty(q, waited, "its row is not written yet")
		let()
		require.True(q, <-waited)
		require.Equal(q, queue.Done, q.row(ended.ID).State)
		w, err := q.m.SettledAll(q.Context(), []string{runs.ID, ended.ID})
		require.NoError(q, err)
		require.False(q, w, "what runs is not waited for")
		q.finish("b", nil)
	})
}

// A spec that no job can have is refused before it is stored.
func TestBadSpecs(t *testing.T) {
	inQuiet(t, Options{}, func(q *quiet) {
		for spec, want := range map[string]string{
			`{"kind":"copy","cluster":"demo","from":{"node":"a","resource":"r","path":"p"}}`: "does not go from",
			`{"kind":"dig"}`:    "no job of kind",
			`{"kindd":"dig"}`:   "kindd",
			`{"kind":"digest"`:  "EOF",
			`{"kind":"digest"}`: "does not go from",
		} {
			_, _, err := q.m.Submit(q.Context(), queue.Job{Spec: api.Raw(spec), Owner: "ann"})
			wire, ok := errors.AsType[*feedback.Error](err)
			require.True(q, ok, spec)
			require.Equal(q, api.BadSpec.Name, wire.Code)
			require.ErrorContains(q, err, want)
		}
		require.Empty(q, q.disk.jobs)
	})
}

// Two reports of one end, at once: it ends once, and nothing of it stays open.
func TestTwoReportsOfTheEnd(t *testing.T) {
	ends := 0
	inQuiet(t, Options{OnEnd: func(queue.Job) { ends++ }}, func(q *quiet) {
		spec := job.Spec{Kind: job.Export, Cluster: "demo", From: job.Place{Node: "alpha", File: api.File{Resource: "disks", Path: "a"}}, Local: "/tmp/a"}
		j, _, err := q.m.Submit(q.Context(), queue.Job{Spec: api.Encode(spec), Owner: "ann"})
		require.NoError(q, err)
		q.m.mu.Lock()
		e := q.m.entries[j.ID]
		q.m.mu.Unlock()
		end := func(code *api.Code) error {
			final := feedback.Record{Kind: feedback.KindError, Seq: 7, Time: time.Now(), Body: code.Err("so")}
			return q.m.recordDriven(q.Context(), e, []feedback.Record{final}, nil)
		}
		require.NoError(q, end(api.CancelledBy))
		row := q.row(j.ID)
		q.pass(time.Second)
		// Each of these has found the job before it ended.
		require.NoError(q, end(api.CancelledBy))
		require.ErrorIs(q, end(api.IO), queue.ErrEnded)
		require.Equal(q, 1, ends)
		require.Equal(q, row.Ended, q.row(j.ID).Ended)
		q.m.feeds.mu.Lock()
		defer q.m.feeds.mu.Unlock()
		require.Empty(q, q.m.feeds.open)
	})
}
