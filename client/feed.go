package client

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"gantry/api"
	"gantry/feedback"
)

// The interval that a hello names is believed within these bounds: below, a
// breath of the network would look like silence; above, fronts would have cut
// the reply long before.
const (
	minInterval = time.Second
	maxInterval = 60 * time.Second
)

// A Feed is one reply that streams a task's records. It is for one goroutine.
type Feed struct {
	client *Client
	reader *feedback.Reader
	body   io.Closer
	ctx    context.Context
	cancel context.CancelCauseFunc
	silent *time.Timer
	limit  time.Duration
}

// Start sends POST tasks: the reply is the feed from its first record. The same
// request sent again attaches to the same task.
func (c *Client) Start(ctx context.Context, req *api.TaskRequest) (*Feed, error) {
	return c.feed(ctx, post("/tasks", req), req.ID, 0)
}

// Attach reads a task's feed from the record after `after`.
func (c *Client) Attach(ctx context.Context, id string, after int64) (*Feed, error) {
	k := call{method: http.MethodGet, path: taskPath(id, "/feed")}
	if after > 0 {
		k.query = url.Values{"after": {strconv.FormatInt(after, 10)}}
	}
	return c.feed(ctx, k, id, after)
}

func (c *Client) feed(ctx context.Context, k call, id string, after int64) (*Feed, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	k.accept = api.TypeFeed
	resp, err := c.do(ctx, k)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	line := k.line
	if line == 0 {
		line = feedback.MaxTaskLine
	}
	f := &Feed{
		client: c, body: resp.Body, ctx: ctx, cancel: cancel,
		reader: feedback.NewReader(resp.Body, feedback.ReaderOptions{ID: id, After: after, MaxLine: line}),
		limit:  c.silence(api.HeartbeatInterval),
	}
	f.silent = time.AfterFunc(f.limit, func() { cancel(errSilence) })
	f.silent.Stop()
	return f, nil
}

// Read returns the next record; the first is the hello. A refused line is a
// *feedback.FormatError; an end without a final, a cut and silence are *Broken.
func (f *Feed) Read() (feedback.Record, error) {
	// Only waiting counts: what the caller does between two reads is not
	// silence of the node.
	f.silent.Reset(f.limit)
	rec, err := f.reader.Read()
	f.silent.Stop()
	if err == nil {
		if hello, ok := rec.Body.(*feedback.Hello); ok {
			interval := time.Duration(hello.Interval) * time.Second
			f.limit = f.client.silence(min(max(interval, minInterval), maxInterval))
		}
		return rec, nil
	}
	if _, ok := errors.AsType[*feedback.FormatError](err); ok || err == io.EOF {
		return rec, err
	}
	if f.ctx.Err() != nil {
		if cause := context.Cause(f.ctx); cause != errSilence {
			return rec, cause
		}
		err = errSilence
	}
	return rec, &Broken{Node: f.client.Node(), What: "reading the feed", Sent: true, reply: true, Err: err}
}

// endWait is how long a feed is read on after its final: long enough to see
// what a liar appends, short enough for a front that keeps the reply open.
const endWait = time.Second

// end reads on after a final and refuses what follows.
func (f *Feed) end() error {
	f.limit = endWait
	_, err := f.Read()
	if _, ok := errors.AsType[*feedback.FormatError](err); ok {
		return err
	}
	return nil
}

// Last is the greatest record number read: what to attach after.
func (f *Feed) Last() int64 { return f.reader.Last() }

// Close ends the request, not the task.
func (f *Feed) Close() {
	f.silent.Stop()
	f.cancel(errClosed)
	f.body.Close()
}
