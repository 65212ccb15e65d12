package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"gantry/access"
	"gantry/api"
	"gantry/client"
	"gantry/feedback"
	"gantry/internal/serve"
	"gantry/pki"
	"gantry/transfer"

	"github.com/gorilla/mux"
)

// A push is a pull turned round: the import asks for the same windows and ranges,
// but they are wants that somebody answers (transfer.Pushed, transfer.Push).

// checkPush judges who may push.
func checkPush(p *api.Pusher) error {
	if *p == (api.Pusher{}) {
		return nil // the creator alone
	}
	if _, err := pki.ParseURI(p.ID); err != nil {
		return api.BadRequest.Err("args.push.id: it is not spiffe://CLUSTER/ROLE/NAME")
	}
	if !isHex(p.TicketSHA256) {
		return api.BadRequest.Err("args.push.ticket_sha256: 64 lower-case hex digits are needed")
	}
	return nil
}

// checkTo judges where an export pushes to.
func checkTo(args *api.ExportArgs) error {
	to := args.To
	switch {
	case to == nil:
		return nil
	case args.Reader != nil:
		return api.BadRequest.Err("args.to and args.reader: an export is pushed or read, name one of them")
	case !api.ValidID(to.Task):
		return api.BadRequest.Err("args.to.task: it is not a task id")
	case to.Node == "" || len(to.Node) > api.MaxName:
		return api.BadRequest.Err("args.to.node: it is not a node's name")
	case !isHex(to.Ticket):
		return api.BadRequest.Err("args.to.ticket: 64 hex digits are needed")
	}
	return nil
}

// startBits leaves room for 2^32 wants in one start of a task, and 2^20 starts
// below what JSON numbers hold.
const startBits = 32

// pushed is the task's source of what is pushed. Numbers of wants begin anew with
// each start.
func (t *task) pushed() *transfer.Pushed {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.push == nil {
		t.push = transfer.NewPushed(int64(t.file.Start)<<startBits + 1)
	}
	return t.push
}

// pushable finds an import that the caller may push: his own, or one that names
// him, with its ticket. All else looks like a task that is not there.
func (n *Node) pushable(r *http.Request) (*task, error) {
	t, ok := n.lookup(mux.Vars(r)["id"])
	if !ok || !t.mayPush(serve.Caller(r.Context()), r.Header.Get(api.TicketHeader)) {
		return nil, api.UnknownTask.Err(unknownTask)
	}
	if n.isDraining() {
		return nil, draining()
	}
	return t, nil
}

func (t *task) mayPush(caller access.Caller, ticket string) bool {
	p := t.snapshot().Pusher
	if p == nil {
		return false
	}
	who := caller.ID.String()
	return t.who == who || p.ID == who && ticketMatches(ticket, p.TicketSHA256)
}

func (n *Node) serveMissing(w http.ResponseWriter, r *http.Request) error {
	t, err := n.pushable(r)
	if err != nil {
		return err
	}
	from, err := number(r, "from", 0, 0, maxNumber)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), api.MissingWait)
	defer cancel()
	reply := api.Wants{Wants: []api.Want{}}
	if t.snapshot().Ended == nil {
		p := t.pushed()
		reply.Wants, reply.Rate = p.Missing(ctx, from), p.Rate()
		if p.Closed() { // its final is being written
			select {
			case <-t.done:
			case <-ctx.Done():
			}
		}
	}
	if n.isDraining() {
		return draining()
	}
	if err := t.tellEnd(&reply); err != nil {
		return err
	}
	return serve.JSON(w, http.StatusOK, reply)
}

// tellEnd says how an import ended.
func (t *task) tellEnd(reply *api.Wants) error {
	if t.snapshot().Ended == nil {
		return nil
	}
	f, release, err := t.useFeed()
	if err != nil {
		return err
	}
	defer release()
	final, ok := f.Final()
	if !ok {
		return errors.New("an ended task has no final record")
	}
	reply.Outcome, reply.Digest = api.OutcomeOf(&final), digestOf(final)
	if body, ok := final.Body.(*feedback.Error); ok {
		reply.Code, reply.Message = body.Code, body.Message
	}
	return nil
}

// servePutPart takes lines, or frames.
func (n *Node) servePutPart(w http.ResponseWriter, r *http.Request) error {
	t, err := n.pushable(r)
	if err != nil {
		return err
	}
	var seq, from, at, last int64
	for _, q := range []struct {
		name string
		into *int64
		most int64
	}{{"want", &seq, maxNumber}, {"from", &from, maxNumber}, {"at", &at, maxNumber}, {"last", &last, 1}} {
		if *q.into, err = number(r, q.name, 0, 0, q.most); err != nil {
			return err
		}
	}
	if r.ContentLength > api.MaxPart {
		return api.TooLarge.Err(fmt.Sprintf("a part has at most %d bytes", api.MaxPart))
	}
	if strings.HasSuffix(r.URL.Path, "/pieces") {
		err = t.pushed().PutFrames(r.Context(), seq, at, r.ContentLength, last == 1, r.Body)
	} else {
		err = t.pushed().PutLines(r.Context(), seq, from, at, r.ContentLength, last == 1, r.Body)
	}
	if err != nil {
		return cmpCause(r.Context(), err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (n *Node) servePutBytes(w http.ResponseWriter, r *http.Request) error {
	t, err := n.pushable(r)
	if err != nil {
		return err
	}
	seq, err := number(r, "want", 0, 0, maxNumber)
	if err != nil {
		return err
	}
	if len(r.Header.Values("Content-Range")) != 1 {
		return api.BadRequest.Err("one Content-Range header is needed")
	}
	off, length, total, err := parseContentRange(r.Header.Get("Content-Range"))
	if err != nil {
		return err
	}
	switch {
	case length > api.MaxRange:
		return api.TooLarge.Err(fmt.Sprintf("at most %d bytes are pushed at once", api.MaxRange))
	case length != r.ContentLength:
		return api.BadRequest.Err("Content-Range and Content-Length name different numbers of bytes")
	}
	if err := t.pushed().PutContent(r.Context(), seq, off, length, total, r.Body); err != nil {
		return cmpCause(r.Context(), err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// pushes brings the export to the import that args.to names, until ctx ends or the
// import has ended.
func (e *exporter) pushes(ctx context.Context, t *task) {
	to := e.op.To
	c, err := t.node.peer(to.Node)
	if err != nil {
		e.giveUp(err)
		return
	}
	p := transfer.Push{
		From: e.x, To: client.Demand{Client: c, Task: to.Task, Ticket: to.Ticket}, Name: e.op.Path, Report: reporter{t},
		Limits: e.limits, RetryFor: t.node.cfg.Limits.RetryFor,
	}
	end, err := p.Run(ctx)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		e.giveUp(err)
	case end.Digest != "": // done, or all of it that could be had
		if err := e.agrees(end.Digest); err != nil {
			e.giveUp(err)
			return
		}
		select {
		case e.finish <- end.Digest:
		default:
		}
	default:
		e.giveUp(api.ReaderGone.Err("the import at " + to.Node + " ended: " + feedback.Printable(end.Message)))
	}
}

// giveUp ends the export.
func (e *exporter) giveUp(err error) {
	select {
	case e.fail <- err:
	default:
	}
}
