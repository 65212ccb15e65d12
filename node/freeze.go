package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"gantry/api"
	"gantry/config"
	"gantry/transfer"
)

// frozen is the frozen source of an export, in its task's file: written before
// anything is made, removed when it is proven gone. So whatever was begun is
// released, however task and responder end.
type frozen struct {
	Resource string   `json:"resource"`
	Root     string   `json:"root"`              // of the resource
	Device   bool     `json:"device,omitzero"`   // the resource is one
	Release  []string `json:"release,omitzero"`  // argv; empty: a clone
	Path     string   `json:"path,omitzero"`     // to read from; empty: not known to be whole
	Original bool     `json:"original,omitzero"` // there is no clone: the file itself is read
}

// cloneName is the clone of a task in transfer.StageDir.
func cloneName(task string) string { return task + ".clone" }

// freeze returns the resource and the operation with which a frozen source is
// read; unchanged ones where nothing is frozen. An export that goes on after a
// restart reads the snapshot that it had.
func (op *exportOp) freeze(ctx context.Context, t *task, r config.Resource) (*exportOp, config.Resource, error) {
	f := t.snapshot().Frozen
	if f != nil && f.Path == "" && !f.Original {
		// The responder died while it was made: what there is of it is no source.
		if err := t.thaw(ctx); err != nil {
			return nil, r, err
		}
		f = nil
	}
	var err error
	switch {
	case f == nil && r.Freeze == nil:
		return op, r, nil
	case f == nil && r.Freeze.Reflink:
		f, err = op.clone(t, r)
	case f == nil:
		f, err = op.snapshot(ctx, t, r)
	case !f.Original:
		if gone := isFrozenRoot(f.Path, f.Device); gone != nil {
			err = api.SourceChanged.Err("the snapshot that the export was reading is gone")
		}
	}
	if err != nil || f.Original {
		return op, r, err
	}
	// No front reads it: its configuration names the resource's own path.
	r.Path, r.Send = f.Path, config.SendStream
	if len(f.Release) > 0 {
		return op, r, nil
	}
	clone := *op
	clone.Path = cloneName(t.id)
	return &clone, r, nil
}

// snapshot runs the snapshot hook.
func (op *exportOp) snapshot(ctx context.Context, t *task, r config.Resource) (*frozen, error) {
	f := &frozen{Resource: r.Name, Root: r.Path, Device: r.Kind == config.KindDevice, Release: r.Freeze.Release}
	if err := t.change("node.freeze", func(file *taskFile) { file.Frozen = f }); err != nil {
		return nil, err
	}
	t.feed.Log("info", op.Path, "making a snapshot of "+r.Name)
	h := hook{argv: r.Freeze.Snapshot, env: f.env(t.id), timeout: r.Freeze.Timeout, runaway: true}
	out, started, err := h.run(ctx)
	if !started {
		if cerr := t.change("node.thaw", func(file *taskFile) { file.Frozen = nil }); cerr != nil {
			return nil, errors.Join(err, cerr)
		}
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	whole := *f
	if err == nil {
		whole.Path, err = snapshotPath(out, f.Device)
	}
	if err != nil {
		return nil, api.SnapshotFailed.Err(fmt.Sprintf("the snapshot hook of %s failed: %v", r.Name, err))
	}
	t.touch()
	return &whole, t.change("node.frozen", func(file *taskFile) { file.Frozen = &whole })
}

// clone clones the file where its file system can; where it cannot the file
// itself is read, and the feed says so.
func (op *exportOp) clone(t *task, r config.Resource) (*frozen, error) {
	f := &frozen{Resource: r.Name, Root: r.Path}
	if err := t.change("node.freeze", func(file *taskFile) { file.Frozen = f }); err != nil {
		return nil, err
	}
	dir, err := root(r)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	made := *f
	err = transfer.Clone(dir, op.Path, cloneName(t.id))
	switch {
	case errors.Is(err, transfer.ErrNoClone):
		t.feed.Log("warn", op.Path, err.Error()+"; the file itself is read, and a change of it meanwhile ends the export")
		made.Original = true
	case err != nil:
		return nil, err
	default:
		made.Path = filepath.Join(r.Path, transfer.StageDir)
	}
	return &made, t.change("node.frozen", func(file *taskFile) { file.Frozen = &made })
}

// env is what a hook knows. It is the same for every run of release.
func (f *frozen) env(task string) []string {
	env := []string{"GANTRY_TASK=" + task, "GANTRY_RESOURCE=" + f.Resource, "GANTRY_PATH=" + f.Root}
	if f.Path != "" {
		env = append(env, "GANTRY_SNAPSHOT="+f.Path)
	}
	return env
}

// Pauses between two attempts to release a snapshot.
const (
	thawFirst = time.Second
	thawMost  = 5 * time.Minute
)

// thaw releases what the task froze, until that succeeds or ctx ends.
func (t *task) thaw(ctx context.Context) error {
	f := t.snapshot().Frozen
	if f == nil {
		return nil
	}
	for pause := thawFirst; ; pause = min(2*pause, thawMost) {
		err := t.node.release(ctx, t.id, f)
		if err == nil {
			t.node.log.Info("snapshot released", "task", t.id, "resource", f.Resource)
			return t.change("node.thaw", func(file *taskFile) { file.Frozen = nil })
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		t.node.log.Error("a snapshot is not released, trying again", "task", t.id, "resource", f.Resource, "pause", pause, "err", err)
		wait := time.NewTimer(pause)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return context.Cause(ctx)
		}
	}
}

// thawEnded releases what an ended task froze; the next start goes on with it.
func (n *Node) thawEnded(t *task) {
	if t.snapshot().Frozen == nil {
		return
	}
	n.runners.Go(func() {
		if err := t.thaw(n.work); err != nil && n.work.Err() == nil {
			n.broken(err)
		}
	})
}

// release runs the release hook, or removes the clone. The hook is the one of
// today's configuration, where the resource still has one: a mended script
// counts.
func (n *Node) release(ctx context.Context, task string, f *frozen) error {
	if f.Original {
		return nil
	}
	if len(f.Release) == 0 {
		dir, err := os.OpenRoot(f.Root)
		if err != nil {
			return err
		}
		defer dir.Close()
		return transfer.RemoveClone(dir, cloneName(task))
	}
	h := hook{argv: f.Release, env: f.env(task), timeout: config.DefaultHookTimeout}
	if r, err := n.resource(f.Resource); err == nil && r.Freeze != nil && len(r.Freeze.Release) > 0 {
		h.argv, h.timeout = r.Freeze.Release, r.Freeze.Timeout
	}
	_, _, err := h.run(ctx)
	return err
}

// named shows the file under the name that was asked for, not its clone's.
type named struct {
	reporter
	item string
}

func (n named) Progress(_, phase, unit string, total int64) transfer.Counter {
	return n.reporter.Progress(n.item, phase, unit, total)
}
