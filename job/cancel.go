package job

import (
	"context"
	"errors"
	"time"

	"gantry/api"
	"gantry/feedback"
)

// Times of cancelling.
const (
	// cancelPause is the first pause between two questions to cancel; it
	// doubles up to maxCancelPause. After cancelTries the feed says so.
	cancelPause    = time.Second
	maxCancelPause = 30 * time.Second
	cancelTries    = 5
)

// cancelled reports whether the user asked to cancel.
func (r *run) cancelled() bool {
	select {
	case <-r.d.Cancel:
		return true
	default:
		return false
	}
}

// onCancel asks the node of role to cancel its task once the user wants that,
// until ctx ends.
func (r *run) onCancel(ctx context.Context, role string) {
	select {
	case <-r.d.Cancel:
	case <-ctx.Done():
		return
	}
	r.ask(ctx, role)
}

// ask asks the node of role to end its task, until it was told or ctx ends.
func (r *run) ask(ctx context.Context, role string) {
	t := r.j.Tasks[role]
	for try, pause := 1, cancelPause; ; try, pause = try+1, min(2*pause, maxCancelPause) {
		c, err := r.node(t.Node)
		if err == nil {
			err = c.Cancel(ctx, t.Request.ID)
		}
		if err == nil || ctx.Err() != nil {
			return
		}
		// A start may be on its way to a node that does not know the task yet.
		if e, refused := errors.AsType[*feedback.Error](err); refused && e.Code != api.UnknownTask.Name {
			r.j.Log("warn", t.Node, "cannot cancel: "+err.Error())
			return
		}
		if try == cancelTries {
			r.j.Log("warn", t.Node, "cannot cancel, trying on: the node does not answer")
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// drop ends a task that nobody needs any more. A node that does not answer is
// asked again for a while: it may only be starting again, and would keep what
// the task holds for an hour.
func (r *run) drop(ctx context.Context, role string) {
	t := r.j.Tasks[role]
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), courtesy)
	defer cancel()
	for {
		c, err := r.node(t.Node)
		if err == nil {
			err = c.Cancel(ctx, t.Request.ID)
		}
		if err == nil {
			return
		}
		e, answered := errors.AsType[*feedback.Error](err)
		if answered && (e.Code == api.UnknownTask.Name || e.Code == api.TooLate.Name) {
			return // it never began, or it has ended
		}
		if !answered {
			select {
			case <-time.After(cancelPause):
				continue
			case <-ctx.Done():
			}
		}
		r.j.Log("warn", t.Node, "cannot end the task that is no longer needed: "+err.Error())
		return
	}
}
