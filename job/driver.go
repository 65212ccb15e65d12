package job

import (
	"cmp"
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
	"gantry/internal/failpoint"
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
)

// A Driver runs jobs.
type Driver struct {
	// Client returns a client of a node; the driver does not close it.
	Client func(node string) (*client.Client, error)
	// Node returns what a job without local side asks a node through; nil: Client.
	Node func(name string) (Node, error)
	// Lean returns a lean client of a node, which the driver closes: calls go to
	// very many nodes. nil: calls are refused.
	Lean func(node string) (*client.Client, error)
	// Heard is told of each record of a task, as it comes; nil: nobody. It
	// must not wait.
	Heard func(node string, rec feedback.Record)
	// Cancel ends the job's tasks when it is closed; nil: never.
	Cancel <-chan struct{}
	// Stdout receives the bytes of an export to Stdout.
	Stdout io.Writer
	// Stdin is read by an import from Stdin.
	Stdin io.Reader
}

// Run drives j until it has ended and returns its final record. Other errors
// leave it unfinished: *client.UnknownError, the cause of ctx's end (ErrLeft),
// or that of a local disk. A job that has ended is not run again.
func (d *Driver) Run(ctx context.Context, j *Job) (feedback.Record, error) {
	if final, ok := j.FinalRecord(); ok {
		return final, nil
	}
	value, wire, err := d.Attempt(ctx, j)
	if err != nil {
		if _, ok := errors.AsType[*client.UnknownError](err); ok {
			j.Log("error", "", err.Error())
		}
		return feedback.Record{}, err
	}
	if err := j.finish(value, wire); err != nil {
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

// steps runs the steps of the job's kind.
func (r *run) steps(ctx context.Context) (value api.Raw, wire *feedback.Error, err error) {
	switch kind := r.j.Spec.Kind; {
	case r.cancelled() && !r.begun():
		err = api.CancelledBy.Err("cancelled before it began")
	case kind == Copy:
		if err = r.choose(ctx); err == nil && r.j.Way == Push {
			value, err = r.pushCopy(ctx)
		} else if err == nil {
			value, err = r.copy(ctx)
		}
	case kind == Import:
		value, err = r.importLocal(ctx)
	case kind == Export:
		value, err = r.export(ctx)
	case kind == Verify:
		value, err = r.verify(ctx)
	case kind == Call:
		value, err = r.call(ctx)
	case kind == Digest:
		value, err = r.single(ctx, roleDigest)
	default:
		err = fmt.Errorf("there is no job of kind %q", kind)
	}
	if err == nil {
		return value, nil, nil
	}
	if ctx.Err() != nil && r.j.Spec.resumable() {
		return nil, nil, context.Cause(ctx) // what was going on is found again by the next run
	}
	if wire := wireError(err); wire != nil {
		return nil, wire, nil
	}
	return nil, nil, err
}

func (r *run) node(name string) (Node, error) {
	if r.d.Node != nil {
		return r.d.Node(name)
	}
	return r.d.Client(name)
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
	if t.Refused != nil {
		return nil, t.Refused
	}
	c, err := r.node(t.Node)
	if err != nil && t.Sent {
		return nil, &client.UnknownError{Node: t.Node, Task: id, Err: err}
	}
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
		if r.d.Heard != nil {
			r.d.Heard(t.Node, rec)
		}
		return r.keep(t, rec)
	})
	r.endItems(t.Node)
	if err != nil {
		if refused, ok := err.(*feedback.Error); ok {
			err = at(t.Node, refused)
		}
		// Follow says with these, and with nothing else, that it never began.
		if wire := wireError(err); wire != nil && ctx.Err() == nil {
			if err := r.j.never(role, wire); err != nil {
				return nil, err
			}
		}
		return nil, err
	}
	r.work.Go(func() {
		// The node may forget what is stored here. It would in time anyway.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), courtesy)
		defer cancel()
		if failpoint.Hit("job.ack") == nil {
			_ = c.Ack(ctx, id, final.Seq)
		}
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
	name := node + ":" + cmp.Or(p.Item, r.j.Spec.resourceAt(node))
	it := r.items[name]
	if it == nil {
		it = &item{Item: r.j.feed.Item(name, p.Phase, p.Unit, p.Total), node: node}
		it.Carry(p.Done) // what is there when it is first seen has cost no time here
		it.Explain(func() string { return r.why(it) })
		r.items[name] = it
	} else if it.last.Phase != p.Phase {
		it.SetPhase(p.Phase)
	}
	it.last, it.heard = *p, time.Now()
	it.Mirror(p)
}

// item is one item of a task in the job's feed.
type item struct {
	*feedback.Item
	node  string
	last  feedback.Progress // guarded by run.mu
	heard time.Time         // guarded by run.mu; when last came
}

// why says why it is stalled, as both ends see it: what the other node says is
// often the cause of what this one waits for.
func (r *run) why(it *item) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	text := it.said()
	for _, other := range r.items {
		if other.node != it.node {
			text += "; " + other.node + ": " + other.said()
		}
	}
	return it.node + ": " + text
}

// said is what the item's node says about it; run.mu is held. Whoever is stalled
// says so again every few seconds, so long silence is the line to the node.
func (it *item) said() string {
	switch {
	case it.last.Total >= 0 && it.last.Done == it.last.Total:
		return feedback.WhyReader // all is ready at its end
	case time.Since(it.heard) >= feedback.StalledAfter:
		return feedback.WhyNode
	case it.last.Stalled == 0:
		return "moving"
	}
	return cmp.Or(it.last.Why, "stalled")
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
