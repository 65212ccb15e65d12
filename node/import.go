package node

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"gantry/api"
	"gantry/client"
	"gantry/config"
	"gantry/feedback"
	"gantry/internal/serve"
	"gantry/transfer"
)

// importOp pulls one file from an export on another node of the cluster file.
type importOp struct{ api.ImportArgs }

func (op *importOp) name() string     { return api.OpImport }
func (op *importOp) file() api.File   { return op.File }
func (op *importOp) right() api.Right { return api.ImportRight(op.Mode, op.Extraneous) }

func (op *importOp) check() error {
	if err := checkFile(op.File); err != nil {
		return err
	}
	s := op.Source
	switch {
	case op.Push != nil && s != (api.Source{}):
		return api.BadRequest.Err("args.push and args.source: an import is pushed or pulls, name one of them")
	case !oneOf(op.Mode, "", api.ModeCreate, api.ModeReplace, api.ModeUpdate):
		return api.BadRequest.Err("args.mode: allowed are create, replace and update")
	case op.Verify != "" && op.Verify != transfer.VerifyWire && op.Verify != transfer.VerifyDisk:
		return api.BadRequest.Err("args.verify: allowed are wire and disk")
	case op.Push == nil && !api.ValidID(s.Task):
		return api.BadRequest.Err("args.source.task: it is not a task id")
	case op.Push == nil && (s.Node == "" || len(s.Node) > api.MaxName):
		return api.BadRequest.Err("args.source.node: it is not a node's name")
	case op.Push == nil && !isHex(s.Ticket):
		return api.BadRequest.Err("args.source.ticket: 64 hex digits are needed")
	case op.Expect != "" && !isDigest(op.Expect):
		return api.BadRequest.Err("args.expect: b3: and 64 lower-case hex digits are needed")
	case op.Resume != "" && !api.ValidID(op.Resume):
		return api.BadRequest.Err("args.resume: it is not a task id")
	case transfer.CheckBandwidth("args.bwlimit", op.Bandwidth) != nil:
		return transfer.CheckBandwidth("args.bwlimit", op.Bandwidth)
	case op.RetryFor < 0 || op.RetryFor > maxSeconds:
		return api.BadRequest.Err(fmt.Sprintf("args.retry_for: allowed are 0 to %d seconds", maxSeconds))
	}
	if op.Push != nil {
		if err := checkPush(op.Push); err != nil {
			return err
		}
	}
	return op.checkOptions()
}

// isHex accepts 32 bytes as lower-case hex digits: a ticket, or a SHA-256.
func isHex(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 32 && strings.ToLower(s) == s
}

func isDigest(s string) bool {
	digits, ok := strings.CutPrefix(s, "b3:")
	return ok && isHex(digits)
}

// prepare claims the target: a second writer is refused before anything moves.
func (op *importOp) prepare(t *task) error {
	if _, ok := t.node.neighbour(op.Source.Node); !ok && op.Push == nil {
		return api.NotFound.Err("args.source.node: this node's cluster.toml does not name it")
	}
	if op.Resume != "" {
		if _, err := op.predecessor(t); err != nil {
			return err
		}
	}
	r, err := t.node.resource(op.Resource)
	if err != nil {
		return err
	}
	target, err := claim(r, op.Path)
	if err != nil {
		return err
	}
	return t.node.claimTarget(t, target)
}

// predecessor is the ended task whose stage is taken over: of the same caller
// and for the same target.
func (op *importOp) predecessor(t *task) (*task, error) {
	old, ok := t.node.lookup(op.Resume)
	if !ok || old.who != t.who {
		return nil, api.UnknownTask.Err("args.resume: " + unknownTask)
	}
	f := old.snapshot()
	if f.Op != api.OpImport || f.File != op.File || f.Ended == nil {
		return nil, api.Conflict.Err("args.resume: it is not an ended import of the same target")
	}
	return old, nil
}

// inherit takes the predecessor's stage over, once.
func (op *importOp) inherit(t *task) error {
	old, err := op.predecessor(t)
	if err != nil {
		return nil // it was dropped since: start afresh
	}
	old.mu.Lock() // against the sweep, which removes old stages
	defer old.mu.Unlock()
	_, err = transfer.TakeOver(old.work(), t.work())
	return err
}

// transfer makes the import; it holds dir open until close.
func (op *importOp) transfer(t *task) (m *transfer.Import, done func(), err error) {
	r, err := t.node.resource(op.Resource)
	if err != nil {
		return nil, nil, err
	}
	var dir *os.Root
	if rooted(r) {
		if dir, err = root(r); err != nil {
			return nil, nil, err
		}
	}
	m = &transfer.Import{
		Root: dir, Name: op.Path, Mode: op.Mode, Perm: r.Mode, Task: t.id, Dir: t.work(),
		Cache: t.node.cache, TrustMTime: op.TrustMTime,
		KeepOld: op.KeepOld, DryRun: op.DryRun, Compress: op.Compress, Parallel: op.Parallel,
		Checksum: op.Checksum, Tree: t.node.treeTarget(r, &op.ImportArgs),
		Expect: op.Expect, Verify: op.Verify, Cached: r.Direct == config.DirectOff, Report: reporter{t}, RetryFor: seconds(op.RetryFor, t.node.cfg.Limits.RetryFor),
	}
	if !rooted(r) {
		return m, func() {}, op.into(m, t, r)
	}
	return m, func() { dir.Close() }, nil
}

func (op *importOp) run(ctx context.Context, t *task) (any, error) {
	p := t.snapshot().Publishing
	if p == nil {
		return op.pull(ctx, t)
	}
	// A crash may have come before the record: readers are owed it.
	if err := (reporter{t}).State(api.StatePublishing, *p); err != nil {
		return nil, err
	}
	return op.complete(ctx, t)
}

// pull brings the bytes and publishes them.
func (op *importOp) pull(ctx context.Context, t *task) (any, error) {
	if op.Resume != "" {
		if err := op.inherit(t); err != nil {
			return nil, fmt.Errorf("taking over the stage of %s: %w", op.Resume, err)
		}
	}
	m, done, err := op.transfer(t)
	if err != nil {
		return nil, err
	}
	defer done()
	if op.Push != nil {
		p := t.pushed()
		defer p.Close()
		m.Source = p.Under(t.limits(op))
	} else {
		source, err := op.source(t.node)
		if err != nil {
			return nil, err
		}
		source.Limits = t.limits(op)
		m.Source = source
	}
	m.Commit = func() error { return t.commit(ctx) }
	return m.Run(ctx)
}

// completeEvery is the pause between two attempts to complete a publication.
const completeEvery = 30 * time.Second

// complete ends a publication that was begun. Until it is known how it ended
// the task goes on: what may be published is never called failed.
func (op *importOp) complete(ctx context.Context, t *task) (any, error) {
	for {
		result, err := op.recover(t)
		if err == nil || errors.Is(err, transfer.ErrUnsettled) || isCode(err, api.Exists) || isCode(err, api.TargetChanged) {
			return result, err
		}
		t.node.log.Error("completing a publication", "task", t.id, "err", err)
		t.feed.Log("error", op.Path, "the publication cannot be completed yet: "+serve.Wire(err).Message)
		pause := time.NewTimer(completeEvery)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return nil, context.Cause(ctx)
		}
	}
}

func (op *importOp) recover(t *task) (api.ImportResult, error) {
	m, done, err := op.transfer(t)
	if err != nil {
		return api.ImportResult{}, err
	}
	defer done()
	return m.Recover(*t.snapshot().Publishing)
}

func (op *importOp) source(n *Node) (client.Source, error) {
	c, err := n.peer(op.Source.Node)
	return client.Source{Client: c, Task: op.Source.Task, Ticket: op.Source.Ticket}, err
}

func (op *importOp) discard(t *task) error {
	if r, err := t.node.resource(op.Resource); err == nil && !rooted(r) {
		return transfer.KillMarked(t.id) // what a killed responder's command left
	}
	m, done, err := op.transfer(t)
	if err != nil {
		return err
	}
	defer done()
	return m.Discard()
}

// Times of telling the source.
const (
	tellFirst = 500 * time.Millisecond
	tellMost  = 30 * time.Second
)

// tell says to the source that the import is done, until it is confirmed, is
// refused for good, or the node stops; the next start goes on with it.
func (n *Node) tell(t *task) {
	f := t.snapshot()
	decoded, err := decodeOperation(f.Op, f.Args)
	op, ok := decoded.(*importOp)
	if err != nil || !ok {
		n.log.Error("telling the source", "task", t.id, "err", err)
		return
	}
	source, err := op.source(n)
	if err == nil {
		err = n.tellUntil(source, f.Tell, time.Now().Add(api.RetryFor))
	}
	if errors.Is(err, errDraining) {
		return
	}
	if err != nil {
		n.log.Warn("the source did not confirm the end", "task", t.id, "node", op.Source.Node, "source", op.Source.Task, "err", err)
	}
	if err := t.change("node.told", func(f *taskFile) { f.Tell, f.Args = "", nil }); err != nil {
		n.broken(err)
	}
}

func (n *Node) tellUntil(source client.Source, digest string, until time.Time) error {
	for pause := tellFirst; ; pause = min(2*pause, tellMost) {
		err := source.Finish(n.work, digest)
		if err == nil {
			return nil
		}
		if wire, ok := errors.AsType[*feedback.Error](err); ok && !wire.Retryable || time.Now().After(until) {
			return err
		}
		wait := time.NewTimer(pause)
		select {
		case <-wait.C:
		case <-n.work.Done():
			wait.Stop()
			return errDraining
		}
	}
}
