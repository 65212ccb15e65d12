package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"gantry/access"
	"gantry/api"
	"gantry/feedback"
	"gantry/internal/atomicfile"
	"gantry/transfer"
)

// start accepts a task, or attaches to the one that has its id.
func (n *Node) start(ctx context.Context, caller access.Caller, req *api.TaskRequest) (*task, error) {
	if err := checkRequest(req, caller); err != nil {
		return nil, err
	}
	hash, err := bodyHash(req)
	if err != nil {
		return nil, err
	}
	t, mine, err := n.claim(req.ID, hash, caller.ID.String())
	if err != nil {
		return nil, err
	}
	if mine {
		n.settle(t, n.accept(t, caller, req))
	}
	select {
	case <-t.ready:
		return t, t.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// claim finds the task of an id or makes its entry; mine says that the caller
// must settle it. Of any number of requests at once exactly one makes it.
func (n *Node) claim(id, hash, who string) (t *task, mine bool, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.draining {
		return nil, false, draining()
	}
	if t, ok := n.tasks[id]; ok {
		if t.who != who || t.hash != hash {
			return nil, false, api.Conflict.Err("the id was used for another request")
		}
		return t, false, nil
	}
	if err := checkTime(id, time.Now(), n.floor); err != nil {
		return nil, false, err
	}
	if n.running >= n.cfg.Limits.Tasks {
		return nil, false, api.TooMany.Err(fmt.Sprintf("%d tasks are running, the most that this node takes", n.running))
	}
	t = n.newTask(id, hash, who)
	n.tasks[id] = t
	n.running++
	n.runners.Add(1) // until settle, so that Close waits for launch
	return t, true, nil
}

func draining() error { return api.Draining.Err("the node is stopping") }

// settle ends a claim: with an error the id was never used.
func (n *Node) settle(t *task, err error) {
	defer n.runners.Done()
	if err != nil {
		n.mu.Lock()
		delete(n.tasks, t.id)
		n.running--
		n.freeTarget(t)
		n.mu.Unlock()
	}
	t.err = err
	close(t.ready)
}

// accept makes the task durable and runs it.
func (n *Node) accept(t *task, caller access.Caller, req *api.TaskRequest) error {
	op, err := decodeOperation(req.Op, req.Args)
	if err != nil {
		return err
	}
	if err := n.permit(caller, op); err != nil {
		return err
	}
	if err := op.prepare(t); err != nil {
		return err
	}
	f := taskFile{
		V: formatVersion, ID: req.ID, Op: req.Op, Args: req.Args, Hash: t.hash, Caller: t.who, By: req.By,
		RunFor: req.RunFor, StallAfter: req.StallAfter, File: op.file(), Created: time.Now().UTC().Truncate(time.Millisecond), Start: 1,
	}
	if export, ok := op.(*exportOp); ok {
		f.Reader = export.Reader
	}
	if im, ok := op.(*importOp); ok {
		f.Pusher = im.Push
	}
	if err := n.store(t, f); err != nil {
		return errors.Join(err, os.RemoveAll(t.dir))
	}
	n.log.Info("task accepted", "task", t.id, "op", f.Op, "caller", f.Caller, "by", f.By, "resource", f.File.Resource)
	n.launch(t, op)
	return nil
}

// store writes folder and journal, then, last, task.json: with it the task
// exists.
func (n *Node) store(t *task, f taskFile) error {
	if err := os.MkdirAll(t.work(), 0o700); err != nil {
		return fmt.Errorf("making the task's folder: %w", err)
	}
	if err := atomicfile.SyncDir(n.folder.tasks(), "node.accept.dirsync"); err != nil {
		return err
	}
	feed, err := n.createFeed(t)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.feed, t.users = feed, 1
	if err := t.changeLocked("node.accept.task", func(old *taskFile) { *old = f }); err != nil {
		t.feed, t.users = nil, 0
		return errors.Join(err, feed.Close())
	}
	return nil
}

// createFeed makes room by giving up what is left of the feeds of ended tasks,
// the oldest first.
func (n *Node) createFeed(t *task) (*feedback.Feed, error) {
	for {
		f, err := feedback.Create(filepath.Join(t.dir, feedName), n.feedOptions(t.id))
		if !errors.Is(err, feedback.ErrNoRoom) {
			return f, err
		}
		old := n.oldest(func(f *taskFile) bool { return !f.Reduced })
		if old == nil {
			return nil, err
		}
		if err := old.reduce(); err != nil {
			return nil, err
		}
	}
}

// oldest is the ended task that matches and ended first, nil if there is none.
func (n *Node) oldest(match func(*taskFile) bool) *task {
	var found *task
	var at time.Time
	for _, t := range n.all() {
		f := t.snapshot()
		if f.Ended != nil && match(&f) && (found == nil || f.Ended.Time.Before(at)) {
			found, at = t, f.Ended.Time
		}
	}
	return found
}

// all returns the tasks that are on disk, in no order.
func (n *Node) all() []*task {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make([]*task, 0, len(n.tasks))
	for _, t := range n.tasks {
		if t.isReady() {
			out = append(out, t)
		}
	}
	return out
}

func (t *task) isReady() bool {
	select {
	case <-t.ready:
		return t.err == nil
	default:
		return false
	}
}

// find returns a task of the caller's own. One that belongs to somebody else
// looks like one that is not there.
func (n *Node) find(id string, caller access.Caller) (*task, error) {
	t, ok := n.lookup(id)
	if !ok || t.who != caller.ID.String() {
		return nil, api.UnknownTask.Err(unknownTask)
	}
	return t, nil
}

func (n *Node) lookup(id string) (*task, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	t, ok := n.tasks[id]
	return t, ok && t.isReady()
}

// claimTarget makes t the one writer of the target. A writer whose final was
// shown already is waited for: it only tidies up.
func (n *Node) claimTarget(t *task, claim transfer.Claim) error {
	var waited *task
	for {
		other := n.tryTarget(t, claim)
		if other == nil {
			return nil
		}
		if other != waited && other.isReady() && other.hasFinal() {
			<-other.done
			waited = other // not freed even now: its records could not be written
			continue
		}
		err := api.Busy.Err("another task writes this target")
		if other.who == t.who {
			err.Detail = api.Encode(map[string]string{"task": other.id})
			err.Message = "task " + other.id + " writes this target; wait for it or cancel it"
		}
		return err
	}
}

// tryTarget returns nil, or the task that has the target, something in it, or
// what it lies in.
func (n *Node) tryTarget(t *task, claim transfer.Claim) *task {
	n.mu.Lock()
	defer n.mu.Unlock()
	for id, has := range n.targets {
		if other := n.tasks[id]; other != nil && other != t && has.Overlaps(claim) {
			return other
		}
	}
	n.targets[t.id] = claim
	return nil
}

func (t *task) hasFinal() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.feed == nil {
		return t.file.Ended != nil
	}
	_, ok := t.feed.Final()
	return ok
}

// freeTarget needs n.mu.
func (n *Node) freeTarget(t *task) { delete(n.targets, t.id) }
