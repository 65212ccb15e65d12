package master

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gantry/api"
	"gantry/client"
	"gantry/feedback"
	"gantry/internal/failpoint"
	"gantry/internal/serve"
	"gantry/job"
	"gantry/queue"
)

// driving is one job while a goroutine drives it.
type driving struct {
	m    *Master
	e    *entry
	feed *feedback.Feed
	info job.Info // of the attempt
	row  queue.Attempt
}

// drive takes a job as far as it can: to its end, to the pause before another
// attempt (again), or to the end of the master.
func (m *Master) drive(e *entry) (again bool) {
	again, err := m.tryDrive(e)
	if err != nil && m.ctx.Err() == nil {
		m.fail(fmt.Errorf("driving job %s: %w", e.id, err))
	}
	return again && err == nil
}

// tryDrive is drive; its errors are the store's, or the cause of the master's end.
func (m *Master) tryDrive(e *entry) (again bool, err error) {
	feed, release, err := m.feeds.use(e.id)
	if err != nil {
		return false, err
	}
	defer release()
	d := &driving{m: m, e: e, feed: feed}
	if _, over := feed.Final(); over { // a crash came before its row was written
		return false, d.settle()
	}
	m.mu.Lock()
	open, cancelled, j := e.open, e.cancelled, e.job
	m.mu.Unlock()
	switch {
	case !open && cancelled && j.Attempt == 0:
		return false, d.finish(nil, api.CancelledBy.Err("cancelled before it began"))
	case !open && cancelled:
		return false, d.finish(nil, api.CancelledBy.Err(fmt.Sprintf("cancelled after attempt %d had ended", j.Attempt)))
	}
	if m.o.Permit != nil && !open {
		if err := m.o.Permit(j.Owner, e.spec); err != nil {
			return false, d.finish(nil, serve.Wire(err))
		}
	}
	if err := failpoint.Hit("master.start"); err != nil {
		return false, err
	}
	if err := d.begin(j, open); err != nil {
		return false, err
	}
	value, wire, err := d.attempt()
	if err != nil {
		return false, err
	}
	if pause, ok := d.retries(wire); ok {
		return true, d.wait(pause, wire)
	}
	return false, d.finish(value, wire)
}

// begin makes an attempt durable, or takes up the one that was going on.
func (d *driving) begin(j queue.Job, open bool) error {
	attempts, err := d.m.o.Store.Attempts(context.Background(), j.ID)
	if err != nil {
		return err
	}
	if open {
		return d.resume(j, attempts)
	}
	spec := d.e.spec
	if n := len(attempts); n > 0 && spec.Resume == "" && spec.Kind == job.Copy {
		spec.Resume = resumable(&attempts[n-1])
	}
	info, err := job.NewInfo(spec)
	if err != nil {
		return err
	}
	d.info = info
	d.row = queue.Attempt{Job: j.ID, N: j.Attempt + 1, Started: time.Now().UTC()}
	if err := d.Save(&d.info); err != nil {
		return err
	}
	if err := failpoint.Hit("master.attempt"); err != nil {
		return err
	}
	if err := d.state(queue.Running, "", func(j *queue.Job) {
		j.Attempt = d.row.N
		if j.Started.IsZero() {
			j.Started = d.row.Started
		}
	}); err != nil {
		return err
	}
	d.m.mu.Lock()
	d.e.open = true
	d.m.mu.Unlock()
	return nil
}

// resume takes up the attempt that an earlier master began.
func (d *driving) resume(j queue.Job, attempts []queue.Attempt) error {
	for _, a := range attempts {
		if a.N != j.Attempt {
			continue
		}
		d.row = a
		if err := api.DecodeBytes(a.Info, &d.info); err != nil {
			return fmt.Errorf("reading attempt %d: %w", a.N, err)
		}
		d.feed.Log("info", "", fmt.Sprintf("the master was started again: attempt %d goes on", a.N))
		return nil
	}
	return fmt.Errorf("attempt %d is not in the store", j.Attempt)
}

// resumable is the import whose stage the attempt after a may take over; "":
// none. What was found wrong with the content is not built upon.
func resumable(a *queue.Attempt) string {
	var info job.Info
	switch {
	case api.DecodeBytes(a.Info, &info) != nil:
		return ""
	case a.Outcome == api.NotTried && notNow(a.Why):
		return info.Spec.Resume
	case a.Outcome != api.Failed || info.Main().Refused != nil:
		return ""
	}
	for _, code := range []*api.Code{api.SourceChanged, api.CorruptPiece} {
		if a.Why == code.Name {
			return ""
		}
	}
	return info.Stage()
}

// Save implements job.Keeper.
func (d *driving) Save(info *job.Info) error {
	d.row.Info = api.Encode(info)
	return d.m.o.Store.SaveAttempt(context.Background(), d.row)
}

// Close implements job.Keeper.
func (d *driving) Close() error { return nil }

// attempt drives the tasks of one attempt until its outcome is known and, where
// another may follow, proved for every task. As long as no node can say, the job
// is unknown and they are asked again.
func (d *driving) attempt() (api.Raw, *feedback.Error, error) {
	m, e := d.m, d.e
	j := job.New(d.info, d.feed, d)
	w := m.watch(d, j)
	defer w.stop()
	driver := &job.Driver{Node: m.o.Node, Client: m.o.Client, Lean: m.o.Lean, Cancel: e.cancel, Heard: w.hear}
	var value api.Raw
	var wire *feedback.Error
	decided := false
	for wait := time.Duration(askAfter); ; wait = min(2*wait, maxAskAfter) {
		var err error
		if !decided {
			value, wire, err = driver.Attempt(e.ctx, j)
			decided, d.info = err == nil, j.Info
		}
		if decided {
			if wire == nil || !d.mayRetry(wire) || m.o.planted == plantedNoProof {
				return value, wire, nil
			}
			if err = driver.Settle(e.ctx, j); err == nil {
				return nil, wire, nil
			}
		}
		switch {
		case m.ctx.Err() != nil:
			return nil, nil, context.Cause(m.ctx)
		case e.ctx.Err() != nil:
			wire, err = e.abandoned(j)
			return nil, wire, err
		case d.feed.Err() != nil:
			return nil, nil, d.feed.Err()
		case errors.Is(err, queue.ErrBroken):
			return nil, nil, err
		case !j.Begun() && !isUnknown(err):
			return nil, api.Internal.Err("the job cannot be driven: " + err.Error()), nil
		}
		if time.Since(w.lastHeard()) < wait {
			wait = askAfter // it was there meanwhile
		}
		w.lost(err)
		m.log.Debug("outcome unknown", "job", e.id, "err", err, "again", wait)
		timer := time.NewTimer(m.jitter(wait))
		select {
		case <-timer.C:
		case <-e.ctx.Done():
			timer.Stop()
		}
	}
}

// plantedNoProof is a bug that the simulation must find: another attempt begins
// although a task of the one before may run.
const plantedNoProof = "no proof"

func isUnknown(err error) bool {
	_, ok := errors.AsType[*client.UnknownError](err)
	return ok
}

// mayRetry reports whether another attempt may follow one that ended with wire.
// A call has an outcome for each node: which of them are called again is its
// user's choice.
func (d *driving) mayRetry(wire *feedback.Error) bool {
	if d.e.spec.Kind == job.Call {
		return false
	}
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	return !d.e.cancelled && (d.uncounted(wire) || wire.Retryable && d.row.N < d.e.job.MaxAttempts)
}

// uncounted reports whether an attempt that ended with wire was none: the node
// said that it takes nothing now, or the stage that was to be taken over is not
// there. The next attempt has the same number.
func (d *driving) uncounted(wire *feedback.Error) bool {
	main := d.info.Main()
	if main.Refused == nil || main.Refused.Code != wire.Code {
		return false
	}
	switch wire.Code {
	case api.BadRequest.Name, api.UnknownTask.Name, api.Conflict.Name:
		return d.info.Spec.Resume != d.e.spec.Resume
	}
	return notNow(wire.Code)
}

// notNow reports whether a node says with a code that it takes nothing now.
func notNow(code string) bool {
	return code == api.Draining.Name || code == api.TooMany.Name || code == api.NotReady.Name
}

// retries returns the pause before another attempt, if there will be one.
func (d *driving) retries(wire *feedback.Error) (pause time.Duration, ok bool) {
	if wire == nil || !d.mayRetry(wire) {
		return 0, false
	}
	o := &d.m.o
	n := d.row.N - 1 + d.e.retries
	if d.uncounted(wire) {
		d.e.retries++
		if !wire.Retryable {
			return 0, true // at once, without the stage
		}
	} else {
		d.e.retries = 0
	}
	pause = o.RetryAfter
	for ; n > 0 && pause < o.MaxRetryAfter; n-- {
		pause *= 2
	}
	return d.m.jitter(min(pause, o.MaxRetryAfter)), true
}

// jitter keeps what failed together from coming back together.
func (m *Master) jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.8 + 0.4*m.o.random()))
}

// wait ends the attempt and lets the job wait for the next one.
func (d *driving) wait(pause time.Duration, wire *feedback.Error) error {
	next := time.Now().Add(pause).UTC().Truncate(time.Millisecond)
	n, outcome := d.row.N, outcomeOf(&feedback.Record{Kind: feedback.KindError, Body: wire})
	if d.uncounted(wire) {
		n, outcome = n-1, api.NotTried
	}
	if err := d.ended(outcome, wire); err != nil {
		return err
	}
	if err := failpoint.Hit("master.wait"); err != nil {
		return err
	}
	if err := d.state(queue.Waiting, wire.Error(), func(j *queue.Job) { j.Attempt, j.NextAt = n, next }); err != nil {
		return err
	}
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	d.e.open, d.e.due = false, next
	return nil
}

// state writes the job's state down: in its row, then in its feed.
func (d *driving) state(to queue.State, why string, change func(*queue.Job)) error {
	j, err := d.m.o.Store.Update(context.Background(), d.e.id, func(j *queue.Job) error {
		if d.m.givenUp(d.e) {
			return errGivenUp
		}
		j.State, j.Why, j.NextAt = to, why, time.Time{}
		if change != nil {
			change(j)
		}
		return nil
	})
	if errors.Is(err, errGivenUp) {
		return nil
	}
	if err != nil {
		return err
	}
	d.m.mu.Lock()
	d.e.job = j
	d.m.mu.Unlock()
	if err := failpoint.Hit("master.state"); err != nil {
		return err
	}
	return d.feed.State(string(to), api.JobDetail{Attempt: d.row.N, NextAt: j.NextAt, Why: why})
}
