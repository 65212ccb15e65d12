package master

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"gantry/api"
	"gantry/client"
	"gantry/feedback"
)

// Times of a simulated node and of the client of it.
const (
	simPatience = 10 * time.Second // for a first contact
	simRetryFor = time.Minute
	simLate     = 90 * time.Second // that a start may arrive late
	simReader   = 20 * time.Minute // that an export waits for its reader
)

// simNode keeps tasks by the rules of a node: an id is one task for ever, a
// task has one final, a cancelled one says when it has ended.
type simNode struct {
	s    *sim
	name string

	mu    sync.Mutex
	tasks map[string]*simTask
	seen  map[string][]string // ids by op and path, in the order of their first request
}

type simTask struct {
	n      *simNode
	req    api.TaskRequest
	path   string
	peer   string // of an import that pulls: its export; of an export that pushes: its import
	number int    // among those of this op and path

	// guarded by simNode.mu
	lines      [][]byte
	live       []feedback.Record // progress
	final      *feedback.Record
	publishing bool
	changed    chan struct{}
	cancelled  chan struct{}
	finish     chan struct{} // of an export: its reader is done
	asked      bool
	finished   bool
}

func newSimNode(s *sim, name string) *simNode {
	return &simNode{s: s, name: name, tasks: map[string]*simTask{}, seen: map[string][]string{}}
}

// number tells which of the requests for an op and path has this id.
func (n *simNode) number(op, path, id string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	key := op + " " + path
	for k, other := range n.seen[key] {
		if other == id {
			return k
		}
	}
	n.seen[key] = append(n.seen[key], id)
	return len(n.seen[key]) - 1
}

// post starts a task, or finds the one that has its id.
func (n *simNode) post(req *api.TaskRequest) *simTask {
	var args struct {
		Path   string     `json:"path"`
		Source api.Source `json:"source"`
		To     api.PushTo `json:"to"`
	}
	decodeLoosely(req.Args, &args)
	number := n.number(req.Op, args.Path, req.ID)
	n.mu.Lock()
	t := n.tasks[req.ID]
	if t != nil {
		n.mu.Unlock()
		return t
	}
	t = &simTask{
		n: n, req: *req, path: args.Path, peer: args.Source.Task + args.To.Task, number: number,
		changed: make(chan struct{}), cancelled: make(chan struct{}), finish: make(chan struct{}),
	}
	n.tasks[req.ID] = t
	n.mu.Unlock()
	n.s.started(t)
	n.s.work.Go(t.run)
	return t
}

// add stores a record of the task.
func (t *simTask) add(kind feedback.Kind, body any) {
	t.n.mu.Lock()
	defer t.n.mu.Unlock()
	rec := feedback.Record{Kind: kind, Seq: int64(len(t.lines)) + 1, Time: time.Now().UTC().Truncate(time.Millisecond), Body: body}
	line, err := feedback.Encode(rec)
	if err != nil {
		panic(err)
	}
	rec.Line = line
	t.lines = append(t.lines, line)
	if kind.Final() {
		t.final = &rec
	}
	close(t.changed)
	t.changed = make(chan struct{})
}

// progress shows a live record.
func (t *simTask) progress(p feedback.Progress) {
	t.n.mu.Lock()
	defer t.n.mu.Unlock()
	t.live = append(t.live, feedback.Record{Kind: feedback.KindProgress, Body: &p})
	close(t.changed)
	t.changed = make(chan struct{})
}

// pause is work of the task; false: it was cancelled meanwhile.
func (t *simTask) pause(d time.Duration, what string) bool {
	timer := time.NewTimer(t.n.s.duration(d, what, t.path, t.req.Op, t.number))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-t.cancelled:
		return false
	}
}

func (t *simTask) run() {
	work := t.work
	if script := t.n.s.script; script != nil {
		work = func() any { return script(t) }
	}
	final := work()
	if final == nil { // cancelled: it takes a while until all is at rest
		t.n.s.sleep(30*time.Second, "unwind", t.path, t.req.Op, t.number)
		final = api.CancelledBy.Err("cancelled")
	}
	if e, ok := final.(*feedback.Error); ok {
		t.n.s.ended(t, api.CodeOf(e.Code).Outcome)
		t.add(feedback.KindError, e)
		return
	}
	t.n.s.ended(t, api.Done)
	t.add(feedback.KindResult, &feedback.Result{Value: api.Encode(final)})
}

// work is what the task does; nil: it was cancelled.
func (t *simTask) work() any {
	s := t.n.s
	t.add(feedback.KindState, &feedback.State{State: api.StateRunning})
	if t.req.Op == api.OpExport {
		timer := time.NewTimer(simReader)
		defer timer.Stop()
		select {
		case <-t.finish:
			return api.ExportResult{Digest: "b3:1"}
		case <-t.cancelled:
			return nil
		case <-timer.C:
			return api.ReaderGone.Err("nobody reads")
		}
	}
	for step := range 1 + s.roll("steps", t.path, t.req.Op, t.number)%4 {
		if !t.pause(40*time.Second, fmt.Sprint("step", step)) {
			return nil
		}
		t.add(feedback.KindLog, &feedback.Log{Level: "info", Text: fmt.Sprint("step ", step)})
	}
	switch s.roll("ends", t.path, t.req.Op, t.number) % 10 {
	case 0, 1, 2:
		return api.IO.Err("simulated") // may be tried again
	case 3:
		return api.Denied.Err("simulated")
	}
	if t.req.Op == api.OpImport {
		t.n.mu.Lock()
		if t.asked {
			t.n.mu.Unlock()
			return nil
		}
		t.publishing = true
		t.n.mu.Unlock()
		s.sleep(time.Second, "publish", t.path, t.number)
		s.finishExport(t)
	}
	return api.ImportResult{Digest: "b3:1"}
}

// simClient is a master's way to a node. It keeps the promises of client.Client:
// what it returns says whether a task may have started.
type simClient struct {
	n    *simNode
	life *simLife
}

func (c *simClient) broken(sent bool) error {
	return &client.Broken{Node: c.n.name, What: "simulated", Sent: sent, Err: errors.New("cut")}
}

// wait is the way to the node or back; an error is the end of ctx or of the master.
func (c *simClient) wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-c.life.ctx.Done():
		return context.Cause(c.life.ctx)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Follow implements job.Node as client.Follow does.
func (c *simClient) Follow(ctx context.Context, run client.Run, fn func(feedback.Record) error) (feedback.Record, error) {
	s, n, id := c.n.s, c.n, run.Request.ID
	var args struct {
		Path string `json:"path"`
	}
	decodeLoosely(run.Request.Args, &args)
	number := n.number(run.Request.Op, args.Path, id)
	call := c.life.calls(id)
	key := func(what string, try int) []any {
		return []any{what, args.Path, run.Request.Op, number, c.life.number, call, try}
	}
	sent := run.Sent || run.After > 0
	since := time.Now()
	for try := 0; ; try++ {
		if try > 0 {
			if err := c.wait(ctx, s.duration(4*time.Second, key("pause", try)...)); err != nil {
				return feedback.Record{}, err
			}
		}
		limit := simRetryFor
		if !sent {
			limit = simPatience
		}
		over := time.Since(since) > limit
		if err := c.wait(ctx, s.duration(50*time.Millisecond, key("way", try)...)); err != nil {
			return feedback.Record{}, err
		}
		if s.down(n.name) || s.faults(key("lost", try)...)%5 == 1 {
			switch {
			case over && sent:
				return feedback.Record{}, &client.UnknownError{Node: n.name, Task: id, Err: c.broken(true)}
			case over:
				return feedback.Record{}, c.broken(false)
			}
			continue
		}
		n.mu.Lock()
		t := n.tasks[id]
		n.mu.Unlock()
		if t == nil {
			if run.After > 0 {
				return feedback.Record{}, &client.UnknownError{Node: n.name, Task: id, Err: errors.New("forgotten")}
			}
			if !sent && run.Starting != nil {
				if err := run.Starting("d"); err != nil {
					return feedback.Record{}, err
				}
			}
			if c.life.ctx.Err() != nil {
				return feedback.Record{}, context.Cause(c.life.ctx)
			}
			switch s.faults(key("post", try)...) % 12 {
			case 1, 2: // the reply is lost
				n.post(run.Request)
				sent = true
				continue
			case 3: // the request is
				sent = true
				continue
			case 4: // the request is under way for long
				sent = true
				req := *run.Request
				late := s.duration(simLate, key("late", try)...)
				s.work.Go(func() {
					time.Sleep(late)
					n.post(&req)
				})
				continue
			case 5, 6:
				refusal := []*api.Code{api.Draining, api.Busy, api.Denied}[s.roll(key("refusal", try)...)%3]
				if sent {
					return feedback.Record{}, &client.UnknownError{Node: n.name, Task: id, Err: refusal.Err("simulated")}
				}
				return feedback.Record{}, refusal.Err("simulated")
			}
			if s.refuse != nil && !sent {
				if code := s.refuse(n.name, run.Request.Op); code != nil {
					return feedback.Record{}, code.Err("simulated")
				}
			}
			t = n.post(run.Request)
		}
		sent = true
		final, err := c.stream(ctx, t, &run.After, s.cut(key("cut", try)...), fn)
		if err != errSimCut {
			return final, err
		}
		since = time.Now()
	}
}

var errSimCut = errors.New("the feed was cut")

// stream hands the task's records to fn until the final, or the cut.
func (c *simClient) stream(ctx context.Context, t *simTask, after *int64, cut time.Duration, fn func(feedback.Record) error) (feedback.Record, error) {
	if err := fn(feedback.Record{Kind: feedback.KindHello, Body: &feedback.Hello{V: 1, ID: t.req.ID, DirID: "d"}}); err != nil {
		return feedback.Record{}, err
	}
	shown := 0
	timer, heartbeat := time.NewTimer(cut), time.NewTicker(api.HeartbeatInterval)
	defer timer.Stop()
	defer heartbeat.Stop()
	for {
		t.n.mu.Lock()
		lines, changed := t.lines[*after:len(t.lines):len(t.lines)], t.changed
		live := t.live[shown:len(t.live):len(t.live)]
		t.n.mu.Unlock()
		shown += len(live)
		for _, rec := range live {
			if err := fn(rec); err != nil {
				return rec, err
			}
		}
		for _, line := range lines {
			rec, err := feedback.Decode(line)
			if err == nil {
				err = fn(rec)
			}
			if err != nil {
				return rec, err
			}
			*after = rec.Seq
			if rec.Kind.Final() {
				return rec, nil
			}
		}
		select {
		case <-changed:
		case <-heartbeat.C:
			if err := fn(feedback.Record{Kind: feedback.KindHeartbeat, Body: &feedback.Heartbeat{}}); err != nil {
				return feedback.Record{}, err
			}
		case <-timer.C:
			return feedback.Record{}, errSimCut
		case <-c.n.s.cuts():
			return feedback.Record{}, errSimCut
		case <-c.life.ctx.Done():
			return feedback.Record{}, context.Cause(c.life.ctx)
		case <-ctx.Done():
			return feedback.Record{}, context.Cause(ctx)
		}
	}
}

// Cancel implements job.Node.
func (c *simClient) Cancel(ctx context.Context, id string) error {
	s := c.n.s
	call := c.life.calls(id)
	c.n.mu.Lock()
	t := c.n.tasks[id]
	c.n.mu.Unlock()
	path := ""
	if t != nil {
		path = t.path + t.req.Op + fmt.Sprint(t.number)
	}
	if err := c.wait(ctx, s.duration(50*time.Millisecond, "cancel way", path, call, c.life.number)); err != nil {
		return err
	}
	fault := s.faults("cancel", path, call, c.life.number) % 6
	if s.down(c.n.name) || fault == 1 {
		return c.broken(true)
	}
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	switch t = c.n.tasks[id]; {
	case t == nil:
		return api.UnknownTask.Err("unknown")
	case t.publishing:
		return api.TooLate.Err("it is being published")
	case !t.asked:
		t.asked = true
		close(t.cancelled)
	}
	if fault == 2 {
		return c.broken(true)
	}
	return nil
}

// Ack implements job.Node.
func (c *simClient) Ack(context.Context, string, int64) error { return nil }

// Reach implements job.Node.
func (c *simClient) Reach(context.Context, string) (*api.Reach, error) {
	return &api.Reach{Outcome: api.ReachOK}, nil
}
