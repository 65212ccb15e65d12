package node

import (
	"context"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"gantry/api"
	"gantry/feedback"
	"gantry/internal/atomicfile"
	"gantry/transfer"
)

// taskFile is task.json. It holds the ticket of an import's source, so it is
// 0600 and never shown.
type taskFile struct {
	V          int      `json:"v"`
	ID         string   `json:"id"`
	Op         string   `json:"op"`
	Args       api.Raw  `json:"args,omitzero"` // dropped when nothing can need them any more
	Hash       string   `json:"hash"`          // of the body
	Caller     string   `json:"caller"`
	By         string   `json:"by,omitzero"`
	RunFor     int64    `json:"run_for,omitzero"`
	StallAfter int64    `json:"stall_after,omitzero"`
	File       api.File `json:"file"`
	// Reader of an export.
	Reader *api.Reader `json:"reader,omitzero"`
	// Pusher of an import that is pushed.
	Pusher *api.Pusher `json:"pusher,omitzero"`

	Created time.Time `json:"created"`
	Start   int       `json:"start"`
	// Cancelled: a DELETE was answered, so a restart must not undo it.
	Cancelled bool `json:"cancelled,omitzero"`
	// Publishing: the import's point of no return was passed.
	Publishing *api.Publishing `json:"publishing,omitzero"`
	Ended      *ended          `json:"ended,omitzero"`
	// Tell is the digest that the source has not confirmed yet.
	Tell string `json:"tell,omitzero"`
	// Limit of a PUT in bytes per second, which replaces the one of Args.
	Limit *int64 `json:"limit,omitzero"`
	// Frozen: what an export made to read from and has not released yet.
	Frozen *frozen `json:"frozen,omitzero"`
	// Reduced: of the feed only the final is left.
	Reduced bool `json:"reduced,omitzero"`
}

type ended struct {
	Time    time.Time   `json:"time"`
	Outcome api.Outcome `json:"outcome"`
	Last    int64       `json:"last"`
	// Incomplete: the import failed with that code, so it published.
	Incomplete bool `json:"incomplete,omitzero"`
}

// A task is one entry of the table.
type task struct {
	// config
	node *Node
	id   string
	dir  string
	hash string
	who  string // caller

	ready  chan struct{} // closed when err is set, or the task is on disk
	err    error         // why it was not accepted; read after ready
	done   chan struct{} // closed when its runner has returned
	opened chan struct{} // of an export: closed when export is set, or will never be

	openOnce sync.Once      // closes opened
	limit    transfer.Limit // bandwidth of the task alone
	last     atomic.Int64   // when something moved last, Unix nanoseconds

	// guarded by mu
	mu        sync.Mutex
	file      taskFile
	feed      *feedback.Feed
	users     int // of feed
	cancel    context.CancelCauseFunc
	committed bool
	export    *exporter
	push      *transfer.Pushed
}

func (n *Node) newTask(id, hash, who string) *task {
	return &task{
		node: n, id: id, hash: hash, who: who, dir: filepath.Join(n.folder.tasks(), id),
		ready: make(chan struct{}), done: make(chan struct{}), opened: make(chan struct{}),
	}
}

// work is the folder that package transfer may use.
func (t *task) work() string { return filepath.Join(t.dir, "work") }

// snapshot returns a copy of the task's file.
func (t *task) snapshot() taskFile {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.file
}

// closeOpened says that export will not change from nil any more, or is set.
func (t *task) closeOpened() { t.openOnce.Do(func() { close(t.opened) }) }

// change makes a change of the task's file durable. On an error the old state
// stays in memory; which of both is on disk is unknown.
func (t *task) change(point string, edit func(*taskFile)) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changeLocked(point, edit)
}

func (t *task) changeLocked(point string, edit func(*taskFile)) error {
	next := t.file
	edit(&next)
	if err := atomicfile.WriteFile(filepath.Join(t.dir, taskName), api.Encode(next), 0o600, point); err != nil {
		return err
	}
	t.file = next
	return nil
}

// touch says that the task moved.
func (t *task) touch() { t.last.Store(time.Now().UnixNano()) }

func (n *Node) feedOptions(id string) feedback.Options {
	return feedback.Options{
		ID: id, Interval: n.cfg.Limits.Heartbeat, Max: n.cfg.Limits.JournalPerTask, Budget: n.budget, OnBroken: n.broken,
	}
}

// useFeed returns the task's feed, opened if need be, until release is called.
// The feed of a running task, and of an ended one that is not reduced, stays
// open by a use of its own.
func (t *task) useFeed() (_ *feedback.Feed, release func(), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.feed == nil {
		f, err := feedback.Open(filepath.Join(t.dir, feedName), t.node.feedOptions(t.id))
		if err != nil {
			return nil, nil, err
		}
		t.feed = f
	}
	t.users++
	var once sync.Once
	return t.feed, func() { once.Do(t.releaseFeed) }, nil
}

func (t *task) releaseFeed() {
	t.mu.Lock()
	t.users--
	var f *feedback.Feed
	if t.users == 0 {
		f, t.feed = t.feed, nil
	}
	t.mu.Unlock()
	if f != nil {
		if err := f.Close(); err != nil {
			t.node.log.Error("closing a feed", "task", t.id, "err", err)
		}
	}
}

// reduce leaves only the final of an ended task's feed.
func (t *task) reduce() error {
	f, release, err := t.useFeed()
	if err != nil {
		return err
	}
	defer release()
	if err := f.Reduce(); err != nil {
		return err
	}
	t.mu.Lock()
	already := t.file.Reduced
	err = t.changeLocked("node.reduce", func(f *taskFile) { f.Reduced = true })
	t.mu.Unlock()
	if err == nil && !already {
		t.releaseFeed() // the use that kept it open
	}
	return err
}

// info describes the task; final also reads its last record.
func (t *task) info(final bool) (api.TaskInfo, error) {
	f := t.snapshot()
	info := api.TaskInfo{
		ID: f.ID, Op: f.Op, File: &f.File, Caller: f.Caller, By: f.By, Created: f.Created, Start: f.Start, State: api.StateRunning,
	}
	switch {
	case f.Ended != nil:
		info.State, info.Outcome, info.Last = api.StateEnded, f.Ended.Outcome, f.Ended.Last
	case f.Publishing != nil:
		info.State = api.StatePublishing
	}
	if f.Ended != nil && !final {
		return info, nil
	}
	feed, release, err := t.useFeed()
	if err != nil {
		return info, err
	}
	defer release()
	info.Last = feed.Last()
	if rec, ok := feed.Final(); ok && final {
		info.Final = api.Raw(rec.Line)
	}
	return info, nil
}

func (t *task) hello() feedback.Hello {
	f := t.snapshot()
	return feedback.Hello{ID: f.ID, Op: f.Op, Node: t.node.cfg.Name, Start: f.Start, DirID: t.node.folder.id}
}
