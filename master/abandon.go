package master

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"gantry/api"
	"gantry/feedback"
	"gantry/job"
	"gantry/queue"
)

// ErrKnown refuses to abandon a job of which somebody can say what becomes of it.
var ErrKnown = errors.New("the job is not unknown")

// errGivenUp leaves the state of a job alone that is being abandoned.
var errGivenUp = errors.New("the job is being abandoned")

// abandonedBy is the cause with which a job is given up.
type abandonedBy string

func (by abandonedBy) Error() string { return "abandoned by " + string(by) }

// Abandon ends a job that is unknown, and returns when it has ended: its node, or
// its driver, is gone for good, and nobody asks any more. Its outcome stays
// unknown, since its tasks may have run to their end or may still run. Where the
// node has said by then how it ended, the job ends so. ErrKnown if the job is
// not unknown, queue.ErrEnded if it has ended, queue.ErrNotFound if there is none.
func (m *Master) Abandon(ctx context.Context, id, by string) error {
	if err := m.alive(); err != nil {
		return err
	}
	m.mu.Lock()
	e := m.entries[id]
	m.mu.Unlock()
	j, err := m.o.Store.Update(ctx, id, func(j *queue.Job) error {
		switch {
		case j.State.Final():
			return queue.ErrEnded
		case j.State != queue.Unknown || e == nil:
			return ErrKnown
		}
		j.CancelBy = cmp.Or(j.CancelBy, by)
		// In here, so that the node which is back was either before this or is too late.
		m.mu.Lock()
		defer m.mu.Unlock()
		e.givenUp = true
		return nil
	})
	if err != nil {
		return err
	}
	m.mu.Lock()
	e.job.CancelBy = j.CancelBy
	e.end()
	m.mu.Unlock()
	e.giveUp(abandonedBy(by))
	m.wake() // a restarted master may not have begun to drive it
	if !e.spec.Driven() {
		return m.abandonDriven(e)
	}
	select {
	case <-e.ended:
		return nil
	case <-m.ctx.Done():
		return ErrClosed // nothing is written down: ask the next process
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// abandoned ends an attempt that was given up, naming the tasks that nobody can
// answer for.
func (e *entry) abandoned(j *job.Job) (*feedback.Error, error) {
	open, err := j.Open()
	if err != nil {
		return nil, err
	}
	var lost []string
	for _, t := range open {
		lost = append(lost, fmt.Sprintf("task %s at %s", t.Request.ID, t.Node))
	}
	return e.lost(cmp.Or(strings.Join(lost, " and "), "it")), nil
}

func (e *entry) lost(what string) *feedback.Error {
	return api.Abandoned.Err(fmt.Sprintf("%v; nobody says what became of %s", context.Cause(e.ctx), what))
}

// abandonDriven gives up a job whose driver is silent.
func (m *Master) abandonDriven(e *entry) error {
	e.driver.mu.Lock()
	defer e.driver.mu.Unlock()
	e.driver.leave()
	m.mu.Lock()
	owner := e.job.Owner
	m.mu.Unlock()
	feed, release, err := m.feeds.use(e.id)
	if err != nil {
		return err
	}
	defer release()
	return (&driving{m: m, e: e, feed: feed}).finish(nil, e.lost(owner+", who drove it"))
}

func (m *Master) givenUp(e *entry) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return e.givenUp
}
