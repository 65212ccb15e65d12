package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"gantry/api"
	"gantry/internal/atomicfile"
	"gantry/transfer"
)

// load reads the table from disk and takes up what is not ended.
func (n *Node) load() error {
	entries, err := os.ReadDir(n.folder.tasks())
	if err != nil {
		return fmt.Errorf("reading tasks: %w", err)
	}
	removed := false
	for _, e := range entries {
		if !api.ValidID(e.Name()) {
			return fmt.Errorf("%s is no task; remove it", filepath.Join(n.folder.tasks(), e.Name()))
		}
		t := n.newTask(e.Name(), "", "")
		if err := atomicfile.RemoveTemp(t.dir, taskName, feedName); err != nil {
			return err
		}
		err := readVersioned(filepath.Join(t.dir, taskName), &t.file, func() int { return t.file.V })
		if errors.Is(err, fs.ErrNotExist) {
			// never accepted: nobody was told that it exists
			if err := os.RemoveAll(t.dir); err != nil {
				return fmt.Errorf("removing what was never accepted: %w", err)
			}
			removed = true
			continue
		}
		if err != nil {
			return err
		}
		if t.file.ID != t.id {
			return fmt.Errorf("%s is the file of task %s", filepath.Join(t.dir, taskName), t.file.ID)
		}
		t.hash, t.who = t.file.Hash, t.file.Caller
		close(t.ready)
		n.tasks[t.id] = t
	}
	if removed {
		if err := atomicfile.SyncDir(n.folder.tasks(), "node.load.dirsync"); err != nil {
			return err
		}
	}
	return n.takeUp()
}

// takeUp goes on with the tasks in the order in which they were made.
func (n *Node) takeUp() error {
	tasks := n.all()
	slices.SortFunc(tasks, func(a, b *task) int { return a.file.Created.Compare(b.file.Created) })
	for _, t := range tasks {
		if err := n.resume(t); err != nil {
			return fmt.Errorf("taking up task %s: %w", t.id, err)
		}
	}
	return nil
}

func (n *Node) resume(t *task) error {
	f := t.file
	if f.Ended != nil {
		close(t.done)
		t.closeOpened()
		n.thawEnded(t)
		if f.Tell != "" {
			n.runners.Go(func() { n.tell(t) })
		}
		if f.Reduced {
			return nil
		}
		_, _, err := t.useFeed() // kept, so that its bytes count
		return err
	}
	feed, _, err := t.useFeed()
	if err != nil {
		return err
	}
	if _, ok := feed.Final(); ok {
		close(t.done)
		t.closeOpened()
		return n.markEnded(t)
	}
	n.running++ // nobody else is here yet
	op, err := decodeOperation(f.Op, f.Args)
	if err == nil && f.Publishing == nil {
		err = n.stillPermitted(f.Caller, op)
	}
	if err == nil {
		err = op.prepare(t)
	}
	if err != nil && f.Publishing == nil {
		op = failing{f, err}
	} else if op == nil {
		return err // it may have published: never to be called failed
	}
	if err := t.change("node.start", func(f *taskFile) { f.Start++ }); err != nil {
		return err
	}
	n.log.Info("task taken up", "task", t.id, "op", f.Op, "start", f.Start+1)
	n.launch(t, op)
	return nil
}

// failing ends a task that cannot be taken up: the configuration has changed.
type failing struct {
	of  taskFile
	err error
}

func (op failing) name() string                            { return op.of.Op }
func (op failing) file() api.File                          { return op.of.File }
func (op failing) right() api.Right                        { return api.NoRight }
func (op failing) check() error                            { return nil }
func (op failing) prepare(*task) error                     { return nil }
func (op failing) run(context.Context, *task) (any, error) { return nil, op.err }

// discard leaves the stage to the sweep, which tries again.
func (op failing) discard(*task) error { return op.err }

// Times and bounds of what is kept.
const (
	// keepStages is how long the stage of a failed import waits for a task that
	// resumes it.
	keepStages = 24 * time.Hour
	// keepFeeds is how long an ended task's whole feed is kept for a creator
	// who does not acknowledge it.
	keepFeeds = 24 * time.Hour
	// maxFeeds bounds the feeds of ended tasks that are kept open: descriptors.
	maxFeeds = 512
	// maxEntries bounds the table: some 100 MB of memory, and a start that
	// reads them all within seconds.
	maxEntries = 100_000
	// sweepEvery: the times above are hours.
	sweepEvery = 10 * time.Minute
)

func (n *Node) sweepUntilStopped() {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		if err := n.sweep(time.Now()); err != nil {
			n.broken(err)
			return
		}
		select {
		case <-ticker.C:
		case <-n.work.Done():
			return
		}
	}
}

// sweep gives up what was kept long enough.
func (n *Node) sweep(now time.Time) error {
	if err := transfer.SweepKnown(n.folder.known(), now); err != nil {
		n.log.Warn("removing old records of trees", "err", err)
	}
	var endedTasks []*task
	for _, t := range n.all() {
		if t.snapshot().Ended != nil {
			endedTasks = append(endedTasks, t)
		}
	}
	slices.SortFunc(endedTasks, func(a, b *task) int { return b.snapshot().Ended.Time.Compare(a.snapshot().Ended.Time) })
	whole := 0
	var drop []*task
	for i, t := range endedTasks { // the youngest first
		f := t.snapshot()
		age := now.Sub(f.Ended.Time)
		if (age > n.cfg.Limits.KeepFinal || i >= maxEntries) && f.Frozen == nil {
			drop = append(drop, t)
			continue
		}
		if !f.Reduced {
			if whole++; age > keepFeeds || whole > maxFeeds {
				if err := t.reduce(); err != nil {
					return err
				}
			}
		}
		n.sweepStage(t, now)
	}
	return n.drop(drop)
}

// sweepStage removes the stage of a failed import, and what a crash kept tidy
// from removing.
func (n *Node) sweepStage(t *task, now time.Time) {
	f := t.snapshot()
	if len(f.Args) == 0 || now.Sub(f.Ended.Time) < keepStages && keepStage(f.Ended.Outcome) {
		return
	}
	if op, err := decodeOperation(f.Op, f.Args); err == nil {
		n.tidy(t, op, now)
	}
}

// drop forgets entries. The floor is durable first: an id that is forgotten
// must be refused, not started again.
func (n *Node) drop(tasks []*task) error {
	if len(tasks) == 0 {
		return nil
	}
	n.mu.Lock()
	floor := n.floor
	n.mu.Unlock()
	for _, t := range tasks {
		if at := api.IDTime(t.id); at.After(floor) {
			floor = at
		}
	}
	if err := n.folder.raise(floor); err != nil {
		return err
	}
	n.mu.Lock()
	n.floor = floor
	for _, t := range tasks {
		delete(n.tasks, t.id)
	}
	n.mu.Unlock()
	for _, t := range tasks {
		if f := t.snapshot(); len(f.Args) > 0 {
			if op, err := decodeOperation(f.Op, f.Args); err == nil {
				n.clear(t, op) // nothing will name its stage any more
			}
		}
		if err := t.forget(); err != nil {
			return err
		}
	}
	return nil
}

// forget removes a task's folder. Whoever still reads its feed reads on.
func (t *task) forget() error {
	if !t.snapshot().Reduced {
		t.releaseFeed()
	}
	if err := os.RemoveAll(t.dir); err != nil {
		return fmt.Errorf("removing an old task: %w", err)
	}
	return nil
}
