package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"gantry/api"
	"gantry/feedback"
)

// Backoff of Follow: from firstWait, doubled up to maxWait, each between 80 and
// 120% so that many readers of one node do not come back together.
const (
	firstWait = 500 * time.Millisecond
	maxWait   = 30 * time.Second
	// patience is how long a first contact is tried while nothing was sent: a
	// responder that restarts is back by then, and a wrong address is told soon.
	patience = 10 * time.Second
	// maxRefusals is how many refused lines in a row end in asking for the task
	// itself: one is a cut in a bad place, three are a habit.
	maxRefusals = 3
)

// A Run is what Follow starts or goes on with.
type Run struct {
	// Request starts the task unless the node has it already. nil: it was
	// started before, ID names it.
	Request *api.TaskRequest
	ID      string

	After int64 // greatest record that the caller has stored
	// DirID is the node's dir_id from before the start, "" if never asked.
	DirID string
	// Sent says that a start may have been sent before this call.
	Sent bool

	// Starting is called once with the node's dir_id, before a start is sent.
	// A caller that wants to survive its own end makes it durable: with it, a
	// later 404 proves that nothing started. Its error ends Follow.
	Starting func(dirID string) error
	// Lost is told each time before Follow waits and tries again.
	Lost func(err error, wait time.Duration)
}

// Follow starts a task or attaches to it, hands each record to fn, in order and
// each stored record once, attaches again after cuts, and returns the final
// record, which fn has seen too.
//
// A *feedback.Error, *NotOurs or *Broken means that the task never started. An
// *UnknownError means that it may have. Otherwise the error is that of fn, of
// run.Starting, or the cause of ctx's end; the task goes on.
func (c *Client) Follow(ctx context.Context, run Run, fn func(feedback.Record) error) (feedback.Record, error) {
	if run.Request != nil {
		run.ID = run.Request.ID
	}
	f := &follower{c: c, run: run, fn: fn, wait: firstWait, since: time.Now()}
	for {
		final, err := f.attempt(ctx)
		switch {
		case err == nil:
			return final, nil
		case f.fatal:
			return final, err
		case ctx.Err() != nil:
			return final, context.Cause(ctx)
		}
		if final, err, ended := f.judge(ctx, err); ended {
			return final, err
		}
		if err := f.pause(ctx, err); err != nil {
			return feedback.Record{}, err
		}
	}
}

type follower struct {
	c   *Client
	run Run
	fn  func(feedback.Record) error

	fatal    bool // the last error is the caller's own
	refusals int  // refused lines in a row
	wait     time.Duration
	since    time.Time // of the last sign of life
}

// started reports whether the task may exist.
func (f *follower) started() bool {
	return f.run.Sent || f.run.After > 0 || f.run.Request == nil
}

// attempt attaches, or starts what was never started, and reads until the final
// or an error.
func (f *follower) attempt(ctx context.Context) (feedback.Record, error) {
	feed, err := f.c.Attach(ctx, f.run.ID, f.run.After)
	if p, ok := errors.AsType[*problem](err); ok && f.mayStart(p) {
		feed, err = f.start(ctx, p.dirID)
	}
	if err != nil {
		return feedback.Record{}, err
	}
	defer feed.Close()
	return f.read(feed)
}

// mayStart reports whether a refusal to attach proves that the task never
// started, so that a start cannot run it twice.
func (f *follower) mayStart(p *problem) bool {
	if f.run.Request == nil || f.run.After > 0 || !unknownTask(p) {
		return false
	}
	return f.run.DirID == p.dirID || f.run.DirID == "" && !f.run.Sent
}

func unknownTask(p *problem) bool {
	return p.status == http.StatusNotFound && p.wire.Code == api.UnknownTask.Name && p.dirID != ""
}

func (f *follower) start(ctx context.Context, dirID string) (*Feed, error) {
	f.run.DirID = dirID
	if !f.run.Sent && f.run.Starting != nil {
		if err := f.run.Starting(dirID); err != nil {
			f.fatal = true
			return nil, err
		}
	}
	feed, err := f.c.Start(ctx, f.run.Request)
	if err == nil {
		f.run.Sent = true
		return feed, nil
	}
	_, refused := errors.AsType[*problem](err)
	if b, ok := errors.AsType[*Broken](err); !refused && (!ok || b.Sent) {
		// From here on a refusal proves nothing: this start may still arrive
		// behind it.
		f.run.Sent = true
	}
	return nil, err
}

// transient reports whether the node says that it will answer better soon.
func transient(p *problem) bool {
	return p.wire.Retryable && p.status == http.StatusServiceUnavailable
}

func (f *follower) read(feed *Feed) (feedback.Record, error) {
	for {
		rec, err := feed.Read()
		if err != nil {
			return rec, err
		}
		if hello, ok := rec.Body.(*feedback.Hello); ok {
			f.run.Sent = true
			if f.run.DirID == "" {
				f.run.DirID = hello.DirID
			} else if hello.DirID != f.run.DirID {
				return rec, errOtherFolder
			}
		} else if !rec.Kind.Final() {
			f.wait, f.since = firstWait, time.Now()
		}
		if rec.Kind.Final() {
			if err := feed.end(); err != nil {
				return rec, err
			}
		}
		if err := f.fn(rec); err != nil {
			f.fatal = true
			return rec, err
		}
		if rec.Kind.Final() {
			return rec, nil
		}
		if last := feed.Last(); last > f.run.After {
			f.run.After, f.refusals = last, 0
		}
	}
}

// judge decides whether err ends the following, and as what.
func (f *follower) judge(ctx context.Context, err error) (final feedback.Record, _ error, ended bool) {
	unknown := func(err error) error { return &UnknownError{f.c.Node(), f.run.ID, err} }
	p, refused := errors.AsType[*problem](err)
	_, badLine := errors.AsType[*feedback.FormatError](err)
	switch {
	case badLine:
		if f.refusals++; f.refusals < maxRefusals {
			return final, nil, false
		}
		final, asked := f.ask(ctx)
		if asked != nil {
			return final, unknown(err), true
		}
		return final, nil, true
	case refused && transient(p) && time.Since(f.since) <= f.limit():
		return final, nil, false
	case refused && !f.started():
		return final, p.wire, true
	case refused && unknownTask(p):
		return f.lost(p)
	case refused:
		return final, unknown(err), true
	case !AnswerTo(err).Retry || time.Since(f.since) > f.limit():
		if f.started() {
			return final, unknown(err), true
		}
		return final, err, true
	}
	return final, nil, false
}

// lost judges "unknown task" about one that may have been started.
func (f *follower) lost(p *problem) (final feedback.Record, _ error, ended bool) {
	switch {
	case f.run.Request == nil && !f.run.Sent && f.run.After == 0:
		return final, p.wire, true // nobody claims that it exists
	case f.run.DirID == p.dirID && f.run.After == 0 && f.run.Request == nil:
		return final, p.wire, true // proved: it never started
	case f.run.DirID == p.dirID:
		return final, &UnknownError{f.c.Node(), f.run.ID, fmt.Errorf("the node has forgotten it: %w", p.wire)}, true
	}
	return final, &UnknownError{f.c.Node(), f.run.ID, errOtherFolder}, true
}

func (f *follower) limit() time.Duration {
	if f.started() {
		return f.c.config.RetryFor
	}
	return min(patience, f.c.config.RetryFor)
}

// ask gets the final from the task itself, when its feed is not to be read.
func (f *follower) ask(ctx context.Context) (feedback.Record, error) {
	info, err := f.c.Task(ctx, f.run.ID)
	if err != nil {
		return feedback.Record{}, err
	}
	if len(info.Final) == 0 {
		return feedback.Record{}, errors.New("the task has not ended")
	}
	final, err := feedback.Decode(info.Final)
	if err != nil {
		return final, err
	}
	if !final.Kind.Final() || info.ID != f.run.ID {
		return final, errors.New("what the node calls the final record is none")
	}
	return final, f.fn(final)
}

// pause waits before the next attempt.
func (f *follower) pause(ctx context.Context, err error) error {
	wait := time.Duration(float64(f.wait) * (0.8 + 0.4*rand.Float64()))
	f.wait = min(2*f.wait, maxWait)
	f.c.config.Log.Debug("following again", "node", f.c.Node(), "task", f.run.ID, "err", err, "wait", wait)
	if f.run.Lost != nil {
		f.run.Lost(err, wait)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
