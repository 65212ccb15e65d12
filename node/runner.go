package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"gantry/api"
	"gantry/feedback"
	"gantry/internal/serve"
	"gantry/transfer"
)

// launch runs a task that is on disk, in a goroutine that Close waits for.
func (n *Node) launch(t *task, op operation) {
	ctx, cancel := context.WithCancelCause(n.work)
	t.touch()
	t.bind(op)
	t.mu.Lock()
	t.cancel = cancel
	if t.file.Cancelled && t.file.Publishing == nil {
		cancel(cancelled())
	}
	t.committed = t.file.Publishing != nil
	t.mu.Unlock()
	n.runners.Go(func() {
		defer close(t.done)
		defer cancel(nil)
		stop := t.bound()
		value, err := t.perform(ctx, op)
		stop()
		t.closeOpened()
		if errors.Is(err, transfer.ErrUnsettled) {
			n.suspend(t)
			n.broken(err)
			return
		}
		if cause := context.Cause(ctx); err != nil && cause != nil {
			if errors.Is(cause, errDraining) {
				n.suspend(t)
				return
			}
			err = cause
		}
		n.end(t, op, value, err)
	})
}

func cancelled() error { return api.CancelledBy.Err("the task was cancelled") }

// perform is op.run; a panic fails this task alone.
func (t *task) perform(ctx context.Context, op operation) (value any, err error) {
	defer func() {
		if p := recover(); p != nil {
			t.node.log.Error("task panicked", "task", t.id, "panic", p, "stack", string(debug.Stack()))
			value, err = nil, errors.New("the operation panicked")
		}
	}()
	if err := t.feed.State(api.StateRunning, nil); err != nil {
		return nil, err
	}
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	return op.run(ctx, t)
}

// bound ends the task after run_for, counted from its creation, or after
// stall_after without a move.
func (t *task) bound() (stop func()) {
	f, limits := t.snapshot(), t.node.cfg.Limits
	runFor, stall := seconds(f.RunFor, limits.RunFor), seconds(f.StallAfter, limits.StallAfter)
	if stall == 0 {
		stall = api.StallAfter
	}
	var mu sync.Mutex
	var timers []*time.Timer
	mu.Lock()
	defer mu.Unlock()
	if runFor > 0 {
		timers = append(timers, time.AfterFunc(time.Until(f.Created.Add(runFor)), func() {
			t.interrupt(api.RunFor.Err(fmt.Sprintf("it ran for %v", runFor)))
		}))
	}
	var stalled *time.Timer
	stalled = time.AfterFunc(stall, func() {
		mu.Lock()
		defer mu.Unlock()
		if left := stall - time.Since(time.Unix(0, t.last.Load())); left > 0 {
			stalled.Reset(left)
			return
		}
		t.interrupt(api.Stalled.Err(fmt.Sprintf("nothing moved for %v", stall)))
	})
	timers = append(timers, stalled)
	return func() {
		mu.Lock()
		defer mu.Unlock()
		for _, timer := range timers {
			timer.Stop()
		}
	}
}

func seconds(asked int64, otherwise time.Duration) time.Duration {
	if asked > 0 {
		return time.Duration(asked) * time.Second
	}
	return otherwise
}

// interrupt ends the task with err, unless it is past the point of no return.
func (t *task) interrupt(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.committed {
		t.cancel(err)
	}
}

// commit is the point of no return: from here neither DELETE nor time ends the
// task.
func (t *task) commit(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	t.committed = true
	return nil
}

// remove is DELETE: durable before it is answered, so that a restart does not
// undo it.
func (t *task) remove() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.file.Ended != nil && t.file.Ended.Outcome == api.Cancelled, t.file.Cancelled:
		return nil
	case t.file.Ended != nil:
		return api.TooLate.Err("the task has ended")
	case t.committed:
		return api.TooLate.Err("the task is publishing")
	}
	if err := t.changeLocked("node.cancel", func(f *taskFile) { f.Cancelled = true }); err != nil {
		return err
	}
	t.cancel(cancelled())
	return nil
}

// suspend leaves a task to the next start.
func (n *Node) suspend(t *task) {
	n.log.Info("task suspended", "task", t.id)
	t.releaseFeed()
}

// end writes the final, then the outcome into the task's file.
func (n *Node) end(t *task, op operation, value any, err error) {
	n.mu.Lock()
	n.running-- // before anybody can see that it is over
	n.mu.Unlock()
	wire := serve.Wire(err)
	if wire == nil {
		ferr := t.feed.Finish(value, nil)
		if errors.Is(ferr, feedback.ErrResultTooLarge) {
			wire = api.Internal.Err("the result is too large for a record")
		} else if ferr != nil {
			n.broken(ferr)
			return
		}
	}
	if wire != nil {
		if _, imports := op.(*importOp); imports && wire.Retryable && transfer.CommandBegun(t.work()) {
			// What the command did with its input nobody can take back: whether it is
			// to be done again is for people to say.
			again := *wire
			again.Retryable = false
			wire = &again
		}
		if ferr := t.feed.Finish(nil, wire); ferr != nil {
			n.broken(ferr)
			return
		}
		n.log.Warn("task ended", "task", t.id, "op", op.name(), "code", wire.Code, "err", feedback.Printable(err.Error()))
	} else {
		n.log.Info("task ended", "task", t.id, "op", op.name())
	}
	if err := n.markEnded(t); err != nil {
		n.broken(err)
		return
	}
	if op, ok := op.(*importOp); ok {
		op.clean(t)
	}
	n.tidy(t, op, time.Now())
}

// markEnded brings the task's file in step with the final in its feed. It is
// done again at start when a crash came between the two.
func (n *Node) markEnded(t *task) error {
	final, _ := t.feed.Final()
	outcome := api.OutcomeOf(&final)
	err := t.change("node.end", func(f *taskFile) {
		f.Ended = &ended{Time: final.Time, Outcome: outcome, Last: t.feed.Last(), Incomplete: isIncomplete(final)}
		if f.Op == api.OpImport && (outcome == api.Done || isIncomplete(final)) && f.Pusher == nil {
			f.Tell = digestOf(final)
		}
	})
	if err != nil {
		return err
	}
	n.mu.Lock()
	n.freeTarget(t)
	n.mu.Unlock()
	n.thawEnded(t)
	if t.snapshot().Tell != "" {
		n.runners.Go(func() { n.tell(t) })
	}
	return nil
}

func digestOf(final feedback.Record) string {
	var result api.ImportResult
	var value []byte
	switch body := final.Body.(type) {
	case *feedback.Result:
		value = body.Value
	case *feedback.Error:
		value = body.Detail
	}
	if api.DecodeBytes(value, &result) != nil {
		return ""
	}
	return result.Digest
}

// isIncomplete says that an import failed and published all the same: a tree of
// which parts are missing. Its source is told, and its stage is of no use.
func isIncomplete(final feedback.Record) bool {
	body, ok := final.Body.(*feedback.Error)
	return ok && body.Code == api.Incomplete.Name
}

// keepStage says for which outcomes a stage is kept for a later task's resume.
func keepStage(o api.Outcome) bool { return o == api.Failed }

// tidy removes what an ended task needs no more.
func (n *Node) tidy(t *task, op operation, now time.Time) {
	f := t.snapshot()
	if keepStage(f.Ended.Outcome) && !f.Ended.Incomplete && f.Op == api.OpImport && now.Sub(f.Ended.Time) < keepStages {
		return
	}
	if !n.clear(t, op) || f.Tell != "" {
		return
	}
	if err := t.change("node.tidy", func(f *taskFile) { f.Args = nil }); err != nil {
		n.broken(err)
	}
}

// clear removes an ended task's stage and work folder. It says whether it could.
func (n *Node) clear(t *task, op operation) bool {
	t.mu.Lock() // against a task that takes the stage over
	defer t.mu.Unlock()
	err := op.discard(t)
	if err == nil {
		err = os.RemoveAll(t.work())
	}
	if err != nil {
		n.log.Warn("removing what a task left", "task", t.id, "err", err)
	}
	return err == nil
}

// reporter shows what package transfer does in the task's feed.
type reporter struct{ t *task }

var _ transfer.Reporter = reporter{}

func (r reporter) State(name string, detail any) error {
	// Also in the task's file: a creator's ack may have the record deleted.
	if p, ok := detail.(api.Publishing); ok {
		if err := r.t.change("node.publishing", func(f *taskFile) { f.Publishing = &p }); err != nil {
			return err
		}
	}
	return r.t.feed.State(name, detail)
}

func (r reporter) Log(level, item, text string) { r.t.feed.Log(level, item, text) }

func (r reporter) Progress(item, phase, unit string, total int64) transfer.Counter {
	return counter{r.t.feed.Item(item, phase, unit, total), r.t}
}

// counter is an item whose growth counts as a move of the task.
type counter struct {
	*feedback.Item
	t *task
}

func (c counter) Add(n int64) {
	c.Item.Add(n)
	c.t.touch()
}
