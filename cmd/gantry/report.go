package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gantry/api"
	"gantry/feedback"
	"gantry/job"

	"github.com/spf13/cobra"
)

// Times of a reporter.
const (
	// reportPause is the greatest pause between two tries to reach a master.
	reportPause = 30 * time.Second
	// lastReport bounds how long a command waits for the master to take the end
	// of its job.
	lastReport = 5 * time.Second
)

// reportBytes is what the records of one report have at most: with quotes and
// progress it stays below api.MaxBody.
const reportBytes = api.MaxBody / 2

// A reporter tells a master what this command does to a job with a local side,
// under the job's own id. The transfer never waits for it.
type reporter struct {
	h      *hub
	j      *job.Job
	cancel func()                   // somebody at the master wants the job's end
	note   func(level, text string) // tells the user

	records chan feedback.Record
	over    chan struct{} // closed when the command is done with the job
	done    chan struct{} // closed when the reporter is

	// owned by the goroutine
	known   bool // the master knows the job
	told    bool // the user was told that it does not
	refused bool // it never will
	asked   bool // cancel was called
	batch   []api.Raw
	bytes   int
	full    bool // the batch is, or it has the final
	pause   time.Duration
	next    time.Time // not before
}

// hubOf is the master at which a job with a local side is recorded; nil: none.
// It must be closed.
func (e *env) hubOf(cmd *cobra.Command, o *operator, spec job.Spec) (*hub, error) {
	if spec.Local == "" {
		return nil, nil
	}
	return e.hub(cmd, o)
}

// report begins to report j to h; end waits for the rest of it. A nil h wants
// nothing.
func report(ctx context.Context, h *hub, j *job.Job, cancel func(), note func(level, text string)) (end func()) {
	if h == nil {
		return func() {}
	}
	r := &reporter{
		h: h, j: j, cancel: cancel, note: note, records: make(chan feedback.Record), over: make(chan struct{}), done: make(chan struct{}),
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		defer close(r.records)
		_ = j.Watch(ctx, 0, func(rec feedback.Record) error {
			if !rec.Kind.Stored() {
				return nil
			}
			select {
			case r.records <- rec:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
	}()
	go func() {
		defer close(r.done)
		r.run(ctx)
	}()
	return func() {
		close(r.over)
		if _, ended := j.FinalRecord(); !ended {
			stop() // the next command with this job sends what is missing
		}
		timer := time.AfterFunc(lastReport, stop)
		<-r.done
		timer.Stop()
		stop()
		<-watched
	}
}

// run sends a report every api.ReportEvery, and what is left at the end.
func (r *reporter) run(ctx context.Context) {
	tick := time.NewTicker(api.ReportEvery)
	defer tick.Stop()
	over := r.over
	for {
		records := r.records
		if r.full {
			records = nil // until the master has these
		}
		var send bool
		select {
		case rec, more := <-records:
			if !more { // everything is sent, or nothing more is wanted
				return
			}
			r.add(rec)
			send = r.full
		case <-tick.C:
			send = true
		case <-over:
			over, send = nil, true
			r.next = time.Time{} // one more try, whatever was before
		case <-ctx.Done():
			r.gone()
			return
		}
		if !send || r.refused || time.Now().Before(r.next) {
			continue
		}
		if err := r.send(ctx); err != nil {
			r.failed(err)
			if over == nil { // nothing waits for a master that is away
				r.gone()
				return
			}
		}
	}
}

func (r *reporter) add(rec feedback.Record) {
	if r.refused {
		return
	}
	r.batch = append(r.batch, api.Raw(rec.Line))
	r.bytes += len(rec.Line)
	r.full = len(r.batch) == api.MaxRecords || r.bytes+feedback.MaxJobLine > reportBytes || rec.Kind.Final()
}

// send tells the master of the job, what has come since, and what moves now.
func (r *reporter) send(ctx context.Context) error {
	if !r.known {
		req := &api.JobRequest{ID: r.j.ID, Spec: api.Encode(r.j.Spec)}
		if _, err := r.h.Submit(ctx, req, r.j.ID); err != nil {
			return err
		}
		r.known = true
		r.note("info", fmt.Sprintf("job %s is recorded at master %s", r.j.Short(), r.h.name))
	}
	var moving []api.Raw
	for _, p := range r.j.Progress() {
		line, err := feedback.Encode(feedback.Record{Kind: feedback.KindProgress, Body: &p})
		if err == nil && len(moving) < api.MaxDriverItems {
			moving = append(moving, api.Raw(line))
		}
	}
	reply, err := r.h.Records(ctx, r.j.ID, r.batch, moving)
	if err != nil {
		return err
	}
	r.batch, r.bytes, r.full = nil, 0, false
	r.pause, r.next = 0, time.Time{}
	if reply.CancelBy != "" && !r.asked {
		r.asked = true
		r.j.Log("info", "", fmt.Sprintf("%s asked master %s to cancel the job", reply.CancelBy, r.h.name))
		r.cancel()
	}
	return nil
}

// failed puts the next try off, or gives up where the master refuses, and says so
// once.
func (r *reporter) failed(err error) {
	again, _ := lostAnswer(err)
	if wire, ok := errors.AsType[*feedback.Error](err); ok && !wire.Retryable {
		again = false
	}
	r.refused = !again
	r.pause = min(max(2*r.pause, api.ReportEvery), reportPause)
	r.next = time.Now().Add(r.pause)
	if r.told {
		return
	}
	r.told = true
	if r.refused {
		r.batch, r.full = nil, false
		r.note("warn", fmt.Sprintf("master %s does not record job %s, which goes on: %v", r.h.name, r.j.Short(), err))
		return
	}
	r.note("warn", fmt.Sprintf("master %s cannot be reached, and job %s goes on without: %v", r.h.name, r.j.Short(), err))
}

// gone says what the master does not know in the end.
func (r *reporter) gone() {
	if _, ended := r.j.FinalRecord(); ended && !r.refused {
		r.note("warn", fmt.Sprintf("master %s does not know that job %s has ended; gantry watch %s tells it", r.h.name, r.j.Short(), r.j.Short()))
	}
}
