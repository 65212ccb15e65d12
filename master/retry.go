package master

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"gantry/api"
	"gantry/job"
	"gantry/queue"
)

// Settled waits for the row of a job whose final record is in its feed already:
// who was shown the end may ask for what comes after it. Of any other job it
// returns at once.
func (m *Master) Settled(ctx context.Context, id string) error {
	m.mu.Lock()
	e := m.entries[id]
	m.mu.Unlock()
	if e == nil {
		return nil
	}
	feed, release, err := m.feeds.use(id)
	if err != nil {
		return err
	}
	_, over := feed.Final()
	release()
	if !over {
		return nil
	}
	select {
	case <-e.ended:
		return nil
	case <-m.ctx.Done():
		return ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// SettledAll waits, as Settled does, for those of the jobs whose end somebody may
// have been shown, and says whether there were any.
func (m *Master) SettledAll(ctx context.Context, ids []string) (waited bool, err error) {
	for _, id := range ids {
		if !m.feeds.over(id) {
			continue // who was shown the end has its feed open, or it is in the row
		}
		waited = true
		if err := m.Settled(ctx, id); err != nil {
			return true, err
		}
	}
	return waited, nil
}

// Again makes, but does not submit, a job that tries an ended one again for by.
// from is "" or api.FromPublish, which takes over the stage that the last
// import left.
func (m *Master) Again(ctx context.Context, id, by, from string) (queue.Job, error) {
	if err := m.Settled(ctx, id); err != nil {
		return queue.Job{}, err
	}
	old, err := m.o.Store.Job(ctx, id)
	if err != nil {
		return queue.Job{}, err
	}
	if !old.State.Final() {
		return queue.Job{}, ErrUnfinished
	}
	again := queue.Job{
		Spec: slices.Clone(old.Spec), Owner: by, Priority: old.Priority, Limits: old.Limits, MaxAttempts: old.MaxAttempts, RetryOf: old.ID,
	}
	if from == "" {
		return again, nil
	}
	if from != api.FromPublish {
		return queue.Job{}, api.BadRequest.Err(fmt.Sprintf("from: %q is not known, %q is", from, api.FromPublish))
	}
	attempts, err := m.o.Store.Attempts(ctx, id)
	if err != nil {
		return queue.Job{}, err
	}
	stage := ""
	for _, a := range attempts {
		var info job.Info
		if err := api.DecodeBytes(a.Info, &info); err != nil {
			return queue.Job{}, fmt.Errorf("reading attempt %d of job %s: %w", a.N, id, err)
		}
		stage = cmp.Or(info.Stage(), stage)
	}
	var spec job.Spec
	if err := api.DecodeBytes(old.Spec, &spec); err != nil {
		return queue.Job{}, fmt.Errorf("reading job %s: %w", id, err)
	}
	if stage == "" {
		return queue.Job{}, api.BadRequest.Err("from: the job has left no stage that could be published; try it again without")
	}
	spec.Resume = stage
	again.Spec = api.Encode(spec)
	return again, nil
}

// Retry tries an ended job again, as a new job of by.
func (m *Master) Retry(ctx context.Context, id, by, from string) (queue.Job, error) {
	j, err := m.Again(ctx, id, by, from)
	if err != nil {
		return queue.Job{}, err
	}
	j, _, err = m.Submit(ctx, j)
	return j, err
}
