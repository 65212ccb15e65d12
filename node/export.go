package node

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"gantry/access"
	"gantry/api"
	"gantry/config"
	"gantry/feedback"
	"gantry/pki"
	"gantry/transfer"
)

// exportOp holds one file open for its reader, until the reader says that it is
// done.
type exportOp struct{ api.ExportArgs }

func (op *exportOp) name() string     { return api.OpExport }
func (op *exportOp) file() api.File   { return op.File }
func (op *exportOp) right() api.Right { return api.MayExport }

func (op *exportOp) discard(t *task) error {
	if r, err := t.node.resource(op.Resource); err == nil && r.Kind == config.KindCommand {
		return transfer.KillMarked(t.id) // what a killed responder's command left
	}
	return nil
}

func (op *exportOp) check() error {
	if err := checkFile(op.File); err != nil {
		return err
	}
	if err := transfer.CheckBandwidth("args.bwlimit", op.Bandwidth); err != nil {
		return err
	}
	if err := checkTo(&op.ExportArgs); err != nil {
		return err
	}
	if err := op.checkOptions(); err != nil || op.Reader == nil {
		return err
	}
	if _, err := pki.ParseURI(op.Reader.ID); err != nil {
		return api.BadRequest.Err("args.reader.id: it is not spiffe://CLUSTER/ROLE/NAME")
	}
	if !isHex(op.Reader.TicketSHA256) {
		return api.BadRequest.Err("args.reader.ticket_sha256: 64 lower-case hex digits are needed")
	}
	return nil
}

func (op *exportOp) prepare(t *task) error {
	if op.To == nil {
		return nil
	}
	if _, ok := t.node.neighbour(op.To.Node); !ok {
		return api.NotFound.Err("args.to.node: this node's cluster.toml does not name it")
	}
	return nil
}

// An exporter is an export that runs: what its requests share.
type exporter struct {
	// config
	op       *exportOp
	resource config.Resource
	root     *os.Root
	x        transfer.Exporter
	etag     string
	limits   transfer.Limits

	sent   atomic.Int64 // content bytes that passed through the responder
	ctx    context.Context
	finish chan string // buffered: the reader's digest
	fail   chan error  // buffered: why it cannot go on

	mu     sync.Mutex
	closed bool           // guarded by mu
	users  sync.WaitGroup // requests; grows under mu while not closed
}

func (op *exportOp) run(ctx context.Context, t *task) (any, error) {
	e, err := op.open(ctx, t)
	if err != nil {
		return nil, err
	}
	// Requests end with the task, but not with the responder's drain: that
	// waits for them.
	requests, stop := context.WithCancelCause(context.Background())
	defer stop(nil)
	e.ctx = requests
	t.mu.Lock()
	t.export = e
	t.mu.Unlock()
	t.closeOpened()
	defer func() {
		if err := e.close(); err != nil {
			t.node.log.Warn("closing an export", "task", t.id, "err", err)
		}
	}()
	if op.To != nil {
		pushing, stop := context.WithCancel(ctx)
		var push sync.WaitGroup
		push.Go(func() { e.pushes(pushing, t) })
		defer push.Wait()
		defer stop()
	}
	select {
	case digest := <-e.finish:
		return api.ExportResult{Digest: digest, Size: e.x.Size(), Sent: e.sent.Load(), Carried: e.carried()}, nil
	case err := <-e.fail:
		stop(err)
		return nil, err
	case <-e.failed():
		err := e.x.Check()
		stop(err)
		return nil, err
	case <-ctx.Done():
		if cause := context.Cause(ctx); !errors.Is(cause, errDraining) {
			stop(cause)
		}
		return nil, context.Cause(ctx)
	}
}

func (op *exportOp) open(ctx context.Context, t *task) (*exporter, error) {
	r, err := t.node.resource(op.Resource)
	if err != nil {
		return nil, err
	}
	if op, r, err = op.freeze(ctx, t, r); err != nil {
		return nil, err
	}
	var dir *os.Root
	if rooted(r) {
		if dir, err = root(r); err != nil {
			return nil, err
		}
	}
	x, err := op.openSource(t, r, dir)
	if err != nil {
		closeRoot(dir)
		return nil, err
	}
	e := &exporter{op: op, resource: r, limits: t.limits(op), root: dir, x: x, finish: make(chan string, 1), fail: make(chan error, 1)}
	if e.etag, err = e.tag(t.id); err != nil {
		return nil, errors.Join(err, e.close())
	}
	return e, nil
}

// carried is how many bytes were not read because recorded values were believed.
func (e *exporter) carried() int64 {
	x, ok := e.x.(*transfer.Export)
	if !ok {
		return 0
	}
	return x.Carried()
}

// close waits for the requests that use the file.
func (e *exporter) close() error {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.users.Wait()
	return errors.Join(e.x.Close(), closeRoot(e.root))
}

func (e *exporter) enter() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.closed {
		e.users.Add(1)
	}
	return !e.closed
}

// broken ends the export because its file is not what it was.
func (e *exporter) broken(err error) {
	if !isCode(err, api.SourceChanged) {
		return
	}
	if _, tree := e.x.(*transfer.TreeExport); tree && e.x.Check() == nil {
		return // one file of it: its reader goes on without that one
	}
	select {
	case e.fail <- err:
	default:
	}
}

// readable finds an export that the caller may read: his own, or one that names
// him, with its ticket. All else looks like a task that is not there.
func (n *Node) readable(id string, caller access.Caller, ticket string) (*task, error) {
	t, ok := n.lookup(id)
	if !ok || !t.mayRead(caller, ticket) {
		return nil, api.UnknownTask.Err(unknownTask)
	}
	return t, nil
}

func (t *task) mayRead(caller access.Caller, ticket string) bool {
	f := t.snapshot()
	if f.Op != api.OpExport {
		return false
	}
	who := caller.ID.String()
	if t.who == who {
		return true
	}
	return f.Reader != nil && f.Reader.ID == who && ticketMatches(ticket, f.Reader.TicketSHA256)
}

// openWait is how long a request waits for its export to open, which a snapshot
// hook may hold up for minutes: fronts end what is silent for longer.
const openWait = 20 * time.Second

// useExport runs fn on a running export.
func (n *Node) useExport(ctx context.Context, t *task, fn func(context.Context, *exporter) error) error {
	if n.isDraining() {
		return draining()
	}
	slow := time.NewTimer(openWait)
	defer slow.Stop()
	select {
	case <-t.opened:
	case <-slow.C:
		return api.NotReady.Err("the export is still making its snapshot")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	t.mu.Lock()
	e := t.export
	t.mu.Unlock()
	if e == nil || !e.enter() {
		if n.isDraining() {
			return draining()
		}
		return t.over(ctx)
	}
	defer e.users.Done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(e.ctx, func() { cancel(context.Cause(e.ctx)) })()
	t.touch()
	err := fn(ctx, e)
	t.touch()
	e.broken(err)
	return err
}

// over is the refusal of an export that has ended; one that failed says why.
func (t *task) over(ctx context.Context) error {
	select {
	case <-t.done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if _, err := t.exportResult(); err != nil {
		return err
	}
	return api.TooLate.Err("the export has ended")
}

// agrees compares the digest of the reader's copy with the source's, where that
// is known.
func (e *exporter) agrees(digest string) error {
	if d := e.x.Digest(); d != "" && d != digest {
		return api.DigestMismatch.Err(fmt.Sprintf("the reader has %s, the source %s", digest, d))
	}
	return nil
}

// finished answers finish: idempotent, durable before it is answered.
func (t *task) finished(ctx context.Context, digest string) (api.ExportResult, error) {
	err := t.node.useExport(ctx, t, func(_ context.Context, e *exporter) error {
		if e.x.Size() < 0 {
			return api.Conflict.Err("the command has not ended yet, so nobody has all of its output")
		}
		if err := e.agrees(digest); err != nil {
			return err
		}
		select {
		case e.finish <- digest:
		default:
		}
		return nil
	})
	if err != nil && !isCode(err, api.TooLate) {
		return api.ExportResult{}, err
	}
	select {
	case <-t.done:
	case <-ctx.Done():
		return api.ExportResult{}, context.Cause(ctx)
	}
	result, err := t.exportResult()
	if err == nil && result.Digest != digest {
		err = api.Conflict.Err("the export was finished with another digest")
	}
	return result, err
}

func (t *task) exportResult() (api.ExportResult, error) {
	f, release, err := t.useFeed()
	if err != nil {
		return api.ExportResult{}, err
	}
	defer release()
	final, ok := f.Final()
	if !ok {
		return api.ExportResult{}, draining() // it goes on at the next start
	}
	switch body := final.Body.(type) {
	case *feedback.Result:
		var result api.ExportResult
		err := api.DecodeBytes(body.Value, &result)
		return result, err
	case *feedback.Error:
		return api.ExportResult{}, api.TooLate.Err("the export has ended: " + body.Message)
	}
	return api.ExportResult{}, fmt.Errorf("final record of kind %s", final.Kind)
}

// ticketMatches compares in constant time.
func ticketMatches(ticket, want string) bool {
	return subtle.ConstantTimeCompare([]byte(api.TicketSHA256(ticket)), []byte(want)) == 1
}

func isCode(err error, code *api.Code) bool {
	wire, ok := errors.AsType[*feedback.Error](err)
	return ok && wire.Code == code.Name
}
