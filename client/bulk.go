package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"gantry/api"
)

// Manifest returns the lines of a manifest window of an export: n pieces from
// piece from; the pieces before done are durable here. The source may hash for
// long meanwhile; it sends heartbeat lines, and silence ends the read with an
// error. ticket is "" for the creator.
func (c *Client) Manifest(ctx context.Context, task string, from, n, done int64, ticket string) (io.ReadCloser, error) {
	q := url.Values{"from": {strconv.FormatInt(from, 10)}, "n": {strconv.FormatInt(n, 10)}}
	if done > 0 {
		q.Set("done", strconv.FormatInt(done, 10))
	}
	return c.manifest(ctx, task, ticket, q)
}

// Rehash returns manifest lines of pieces that the source reads again.
func (c *Client) Rehash(ctx context.Context, task string, pieces []int64, ticket string) (io.ReadCloser, error) {
	return c.manifest(ctx, task, ticket, url.Values{"piece": {numbers(pieces)}, "rehash": {"1"}})
}

func (c *Client) manifest(ctx context.Context, task, ticket string, q url.Values) (io.ReadCloser, error) {
	return c.stream(ctx, call{
		method: http.MethodGet, path: taskPath(task, "/manifest"), query: q, ticket: ticket,
		accept: api.TypeFeed, bulk: true,
	})
}

// Content returns length bytes of an export from off. A reply that is not
// exactly that range is refused; one that breaks off ends with
// io.ErrUnexpectedEOF or another error, never with io.EOF.
func (c *Client) Content(ctx context.Context, task, ticket string, off, length int64) (io.ReadCloser, error) {
	if off < 0 || length <= 0 {
		return nil, fmt.Errorf("asking %s for content: no range of %d bytes from %d", c.Node(), length, off)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	k := call{
		method: http.MethodGet, path: taskPath(task, "/content"), ticket: ticket, accept: api.TypeBytes, bulk: true,
		header: http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", off, off+length-1)}},
	}
	resp, err := c.do(ctx, k)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	want := fmt.Sprintf("bytes %d-%d/", off, off+length-1)
	got := resp.Header.Get("Content-Range")
	if resp.StatusCode != http.StatusPartialContent || !strings.HasPrefix(got, want) || resp.ContentLength >= 0 && resp.ContentLength != length {
		resp.Body.Close()
		cancel(nil)
		return nil, c.notOurs(resp, k, []byte("Content-Range "+got))
	}
	return c.watch(ctx, cancel, &exactly{resp.Body, length}), nil
}

// exactly reads n bytes and no more: fewer are an unexpected end.
type exactly struct {
	io.ReadCloser
	left int64
}

func (e *exactly) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > e.left {
		p = p[:e.left]
	}
	n, err := e.ReadCloser.Read(p)
	e.left -= int64(n)
	if err == io.EOF && e.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// stream makes a call whose reply may last long and ends when it is silent.
func (c *Client) stream(ctx context.Context, k call) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	resp, err := c.do(ctx, k)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	return c.watch(ctx, cancel, resp.Body), nil
}

// watched ends a body that brings nothing for too long.
type watched struct {
	body   io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	limit  time.Duration
}

func (c *Client) watch(ctx context.Context, cancel context.CancelCauseFunc, body io.ReadCloser) *watched {
	limit := c.silence(api.HeartbeatInterval)
	return &watched{body, ctx, cancel, time.AfterFunc(limit, func() { cancel(errSilence) }), limit}
}

func (c *Client) silence(interval time.Duration) time.Duration {
	if c.config.Silence > 0 {
		return c.config.Silence
	}
	return api.SilentIntervals * interval
}

func (w *watched) Read(p []byte) (int, error) {
	// The time that the reader itself takes between two reads is not silence.
	w.timer.Reset(w.limit)
	n, err := w.body.Read(p)
	w.timer.Stop()
	if err != nil && err != io.EOF && w.ctx.Err() != nil {
		err = context.Cause(w.ctx)
	}
	return n, err
}

// Close ends the request.
func (w *watched) Close() error {
	w.timer.Stop()
	w.cancel(errClosed)
	return w.body.Close()
}

var errClosed = errors.New("closed by its reader")
