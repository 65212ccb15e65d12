package job

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"gantry/api"
	"gantry/client"
	"gantry/feedback"
)

// ErrLeft is the cause with which a driver is told to leave: the tasks go on.
var ErrLeft = errors.New("left while still running")

// Times of a driver.
const (
	// courtesy bounds what is done for others after the outcome is known:
	// acknowledging, ending an export that nobody reads.
	courtesy = 10 * time.Second
	// lastWords is how long the export's last records are waited for once the
	// outcome is known: they are worth a moment, but not the user's time.
	lastWords = 2 * time.Second
	// cancelTries and cancelPause bound how long a node is asked to cancel.
	cancelTries = 10
	cancelPause = time.Second
)

// A Driver runs jobs.
type Driver struct {
	// Client returns a client of a node; the driver does not close it.
	Client func(node string) (*client.Client, error)
	// Cancel ends the job's tasks when it is closed; nil: never.
	Cancel <-chan struct{}
	// Stdout receives the bytes of an export to Stdout.
	Stdout io.Writer
}

// Run drives j until it has ended and returns its final record. Other errors
// leave it unfinished: *client.UnknownError, the cause of ctx's end (ErrLeft),
// or that of a local disk. A job that has ended is not run again.
func (d *Driver) Run(ctx context.Context, j *Job) (feedback.Record, error) {
	if final, ok := j.FinalRecord(); ok {
		return final, nil
	}
	after, finals, err := j.known()
	if err != nil {
		return feedback.Record{}, err
	}
	r := &run{d: d, j: j, after: after, finals: finals, items: map[string]*item{}}
	defer r.work.Wait()
	if err := r.steps(ctx); err != nil {
		if _, ok := errors.AsType[*client.UnknownError](err); ok {
			j.Log("error", "", err.Error())
		}
		return feedback.Record{}, err
	}
	final, _ := j.FinalRecord()
	return final, nil
}

// run is one run of one job.
type run struct {
	d      *Driver
	j      *Job
	after  map[string]int64           // by task id, from earlier runs
	finals map[string]feedback.Record // likewise
	work   sync.WaitGroup

	mu    sync.Mutex
	items map[string]*item // guarded by mu
}

// steps runs the steps and ends the job with what came out.
func (r *run) steps(ctx context.Context) error {
	var value api.Raw
	var err error
	switch kind := r.j.Spec.Kind; {
	case r.cancelled() && !r.begun():
		err = api.CancelledBy.Err("cancelled before it began")
	case kind == Copy:
		value, err = r.copy(ctx)
	case kind == Export:
		value, err = r.export(ctx)
	case kind == Digest:
		value, err = r.single(ctx, roleDigest)
	default:
		err = fmt.Errorf("there is no job of kind %q", kind)
	}
	if err == nil {
		return r.j.finish(value, nil)
	}
	if ctx.Err() != nil && r.j.Spec.resumable() {
		return context.Cause(ctx) // what was going on is found again by the next run
	}
	if wire := wireError(err); wire != nil {
		return r.j.finish(nil, wire)
	}
	return err
}

// begun reports whether a start may have been sent.
func (r *run) begun() bool {
	for _, t := range r.j.Tasks {
		if t.Sent {
			return true
		}
	}
	return false
}

// wireError is the final error that err means, or nil when err decides nothing
// about the job.
func wireError(err error) *feedback.Error {
	if _, ok := errors.AsType[*client.UnknownError](err); ok {
		return nil
	}
	if e, ok := errors.AsType[*feedback.Error](err); ok {
		return e
	}
	_, broken := errors.AsType[*client.Broken](err)
	_, notOurs := errors.AsType[*client.NotOurs](err)
	if !broken && !notOurs {
		return nil
	}
	// Nothing was started, so nothing can be unknown.
	code := api.PeerLost
	switch answer := client.AnswerTo(err); {
	case answer == &client.WrongServer:
		code = api.WrongServer
	case answer == &client.WrongPin:
		code = api.WrongPin
	case answer.Unsent == api.Refused:
		code = api.NotVerified
	}
	return &feedback.Error{Code: code.Name, Message: err.Error(), Retryable: code.Retryable}
}

// follow runs the task of role to its final record and keeps every record in
// the job's feed. begun is closed when the task is known to exist; it may be
// nil. The task's own error is returned with its node's name.
func (r *run) follow(ctx context.Context, role string, begun func()) (api.Raw, error) {
	t := r.j.Tasks[role]
	id := t.Request.ID
	if final, ok := r.finals[id]; ok {
		if begun != nil {
			begun()
		}
		return valueOf(t.Node, final)
	}
	c, err := r.d.Client(t.Node)
	if err != nil {
		return nil, err
	}
	req := t.Request
	final, err := c.Follow(ctx, client.Run{
		Request: &req, After: r.after[id], Sent: t.Sent, DirID: t.DirID,
		Starting: func(dirID string) error { return r.j.starting(role, dirID) },
		Lost: func(err error, wait time.Duration) {
			r.j.Log("warn", t.Node, fmt.Sprintf("%v; trying again in %.1f s", err, wait.Seconds()))
		},
	}, func(rec feedback.Record) error {
		if begun != nil {
			begun()
		}
		return r.keep(t, rec)
	})
	r.endItems(t.Node)
	if refused, ok := err.(*feedback.Error); ok {
		return nil, at(t.Node, refused)
	}
	if err != nil {
		return nil, err
	}
	r.work.Go(func() {
		// The node may forget what is stored here. It would in time anyway.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), courtesy)
		defer cancel()
		_ = c.Ack(ctx, id, final.Seq)
	})
	return valueOf(t.Node, final)
}

// keep puts a task's record into the job's feed.
func (r *run) keep(t *Task, rec feedback.Record) error {
	if rec.Kind.Stored() {
		if err := r.j.feed.Task(t.Node, t.Request.ID, rec.Line); err != nil {
			return fmt.Errorf("keeping a record of the job: %w", err)
		}
		return nil
	}
	switch body := rec.Body.(type) {
	case *feedback.Gap:
		r.j.Log("warn", t.Node, fmt.Sprintf("records %d to %d of its task are gone (%s)", body.From, body.To, body.Why))
	case *feedback.Progress:
		r.progress(t.Node, body)
	}
	return nil
}

// progress passes a task's progress on. The name says where it comes from.
func (r *run) progress(node string, p *feedback.Progress) {
	r.mu.Lock()
	defer r.mu.Unlock()
	name := node + ":" + p.Item
	it := r.items[name]
	if it == nil {
		it = &item{r.j.feed.Item(name, p.Phase, p.Unit, p.Total), p.Phase}
		it.Carry(p.Done) // what is there when it is first seen has cost no time here
		r.items[name] = it
	}
	it.SetTotal(p.Total)
	it.Set(p.Done)
	if it.phase != p.Phase {
		it.phase = p.Phase
		it.SetPhase(p.Phase)
	}
}

// item is one item of a task in the job's feed.
type item struct {
	*feedback.Item
	phase string
}

func (r *run) endItems(node string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, it := range r.items {
		if strings.HasPrefix(name, node+":") {
			it.End()
			delete(r.items, name)
		}
	}
}

// valueOf is the result of a final record, or its error.
func valueOf(node string, final feedback.Record) (api.Raw, error) {
	switch body := final.Body.(type) {
	case *feedback.Result:
		return api.Raw(body.Value), nil
	case *feedback.Error:
		return nil, at(node, body)
	}
	return nil, fmt.Errorf("%s: the final record is of kind %q", node, final.Kind)
}

// at is an error of a node with its name.
func at(node string, wire *feedback.Error) *feedback.Error {
	named := *wire
	named.Message = node + ": " + wire.Message
	return &named
}

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
	t := r.j.Tasks[role]
	for range cancelTries {
		c, err := r.d.Client(t.Node)
		if err == nil {
			err = c.Cancel(ctx, t.Request.ID)
		}
		if err == nil || ctx.Err() != nil {
			return
		}
		if _, refused := errors.AsType[*feedback.Error](err); refused {
			r.j.Log("warn", t.Node, "cannot cancel: "+err.Error())
			return
		}
		select {
		case <-time.After(cancelPause):
		case <-ctx.Done():
			return
		}
	}
	r.j.Log("warn", t.Node, "cannot cancel: the node does not answer")
}

// drop ends a task that nobody needs any more.
func (r *run) drop(ctx context.Context, role string) {
	t := r.j.Tasks[role]
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), courtesy)
	defer cancel()
	c, err := r.d.Client(t.Node)
	if err == nil {
		err = c.Cancel(ctx, t.Request.ID)
	}
	if err != nil {
		if e, ok := errors.AsType[*feedback.Error](err); ok && (e.Code == api.UnknownTask.Name || e.Code == api.TooLate.Name) {
			return // it never began, or it has ended
		}
		r.j.Log("warn", t.Node, "cannot end the task that is no longer needed: "+err.Error())
	}
}

// single runs a job of one task.
func (r *run) single(ctx context.Context, role string) (api.Raw, error) {
	stop := r.background(ctx, func(ctx context.Context) { r.onCancel(ctx, role) })
	defer stop()
	return r.follow(ctx, role, nil)
}

// background runs fn until stop is called, which waits for it.
func (r *run) background(ctx context.Context, fn func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { fn(ctx) })
	return func() { cancel(); wg.Wait() }
}
