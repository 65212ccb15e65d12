package master

import (
	"cmp"
	"context"
	"errors"
	"time"

	"gantry/api"
	"gantry/feedback"
	"gantry/internal/failpoint"
	"gantry/queue"
)

// ended notes how the attempt ended.
func (d *driving) ended(outcome api.Outcome, wire *feedback.Error) error {
	if d.row.N == 0 {
		return nil // it was cancelled before the first
	}
	d.row.Info, d.row.Ended, d.row.Outcome = api.Encode(&d.info), time.Now().UTC(), outcome
	if wire != nil {
		d.row.Why = wire.Code
	}
	return d.m.o.Store.SaveAttempt(context.Background(), d.row)
}

// finish gives the job its one final record. The feed is first: what it says is
// copied to the row, now or by the next master.
func (d *driving) finish(value api.Raw, wire *feedback.Error) error {
	var err error
	if wire != nil {
		err = d.feed.Finish(nil, wire)
	} else if err = d.feed.Finish(value, nil); errors.Is(err, feedback.ErrResultTooLarge) {
		err = d.feed.Finish(nil, api.Internal.Err("the job is done, but its result is too large for a record"))
	}
	if err != nil && !errors.Is(err, feedback.ErrFinished) {
		return err
	}
	if err := failpoint.Hit("master.final"); err != nil {
		return err
	}
	return d.settle()
}

// outcomeOf is how a job ends with a final record: a wrong pin refuses it, and
// only who gives it up leaves it unknown.
func outcomeOf(final *feedback.Record) api.Outcome {
	if wire, _ := final.Body.(*feedback.Error); wire != nil && wire.Code == api.Abandoned.Name {
		return api.Unknown
	}
	switch o := api.OutcomeOf(final); o {
	case api.Done, api.Failed, api.Cancelled:
		return o
	case api.Unknown:
		return api.Failed
	}
	return api.Refused
}

// settle copies the final record of the feed to the rows of attempt and job.
func (d *driving) settle() error {
	final, _ := d.feed.Final()
	outcome := outcomeOf(&final)
	wire, _ := final.Body.(*feedback.Error)
	if err := d.ended(outcome, wire); err != nil {
		return err
	}
	state := queue.State(outcome)
	if outcome == api.Unknown {
		state = queue.Abandoned
	}
	j, err := d.m.o.Store.Update(context.Background(), d.e.id, func(j *queue.Job) error {
		if j.State.Final() {
			return queue.ErrEnded // two drivers reported the end
		}
		j.State, j.Outcome, j.Final = state, outcome, api.Raw(final.Line)
		j.Why, j.NextAt = "", time.Time{}
		if wire != nil {
			j.Why = wire.Error()
		}
		j.Ended = time.Now().UTC()
		return nil
	})
	if err != nil && !errors.Is(err, queue.ErrEnded) {
		return err
	}
	if err == nil && d.m.o.OnEnd != nil {
		d.m.o.OnEnd(j)
	}
	d.m.log.Info("job ended", "job", d.e.id, "outcome", outcome, "code", cmp.Or(d.row.Why, "-"))
	d.m.forget(d.e)
	return nil
}
