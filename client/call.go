package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"

	"gantry/api"
	"gantry/feedback"

	"github.com/go-json-experiment/json"
)

// A call is one request.
type call struct {
	method string
	path   string // below the API's prefix
	query  url.Values
	media  string // of the body
	body   []byte
	stream io.ReadCloser // the body instead: length bytes; closed in the end
	length int64
	ticket string
	header http.Header
	bulk   bool
	accept string // media type that the reply must have
	line   int    // longest line of a feed, in bytes; 0: a task's
}

// do sends the request and returns a reply of the node with status 2xx and the
// media type asked for. Everything else is an error.
func (c *Client) do(ctx context.Context, k call) (*http.Response, error) {
	base, doer := c.api, c.control
	if k.bulk {
		base, doer = c.data, c.bulk
	}
	target := base + k.path
	if len(k.query) > 0 {
		target += "?" + k.query.Encode()
	}
	what := k.method + " " + c.prefix + k.path
	sent := false
	var wrote atomic.Bool // all of it, to some connection: net/http may try another
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		// from here on some of it may be on the line
		GotConn: func(httptrace.GotConnInfo) { sent = true },
		WroteRequest: func(i httptrace.WroteRequestInfo) {
			if i.Err == nil {
				wrote.Store(true)
			}
		},
	})
	var body io.Reader
	if k.body != nil {
		body = bytes.NewReader(k.body)
	}
	if k.stream != nil {
		body = k.stream
	}
	req, err := http.NewRequestWithContext(ctx, k.method, target, body)
	if err != nil {
		if k.stream != nil {
			k.stream.Close()
		}
		return nil, fmt.Errorf("making a request to %s: %w", c.Node(), err)
	}
	if k.stream != nil {
		req.ContentLength = k.length
	}
	for name, values := range k.header {
		req.Header[name] = values
	}
	if k.media != "" {
		req.Header.Set("Content-Type", k.media)
	}
	if k.ticket != "" {
		req.Header.Set(api.TicketHeader, k.ticket)
	}
	req.Header.Set("Accept", k.accept+", "+api.TypeProblem)
	req.Header.Set("User-Agent", "gantry")
	resp, err := doer.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		// url.Error repeats method and address
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err
		}
		if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "dial" {
			sent = wrote.Load() // a request with a key is repeated when its answer is lost
		}
		return nil, &Broken{Node: c.Node(), What: what, Sent: sent, Err: err}
	}
	if err := c.judge(resp, k); err != nil {
		resp.Body.Close()
		return nil, err
	}
	return resp, nil
}

var errLate = fmt.Errorf("no answer within %v", CallTimeout)

// judge tells a node's reply from everybody else's.
func (c *Client) judge(resp *http.Response, k call) error {
	media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	ours := resp.Header.Get("Content-Encoding") == ""
	if ours && media == api.TypeProblem && resp.StatusCode >= 400 {
		body, err := io.ReadAll(io.LimitReader(resp.Body, c.mostProblem()))
		var p api.Problem
		if err == nil && json.Unmarshal(body, &p) == nil && p.Code != "" {
			return &problem{node: c.Node(), wire: p.Err(), status: resp.StatusCode, dirID: p.DirID, task: p.Task}
		}
		return c.notOurs(resp, k, body)
	}
	if ours && resp.StatusCode/100 == 2 && (media == k.accept || k.accept == api.TypeJSON && resp.StatusCode == http.StatusNoContent) {
		return nil
	}
	head, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
	return c.notOurs(resp, k, head)
}

func (c *Client) mostProblem() int64 {
	if c.config.Lean {
		return MaxLean
	}
	return api.MaxBody
}

func (c *Client) notOurs(resp *http.Response, k call, head []byte) error {
	return &NotOurs{
		Node: c.Node(), Method: k.method, Path: c.prefix + k.path, Status: resp.StatusCode,
		Type: feedback.Printable(resp.Header.Get("Content-Type")), Text: feedback.Printable(string(head[:min(len(head), 200)])),
	}
}

// short makes a call that answers within seconds and decodes its reply into
// out, unless that is nil. Unknown fields are those of a newer node: ignored.
func (c *Client) short(ctx context.Context, k call, out any) error {
	late := &Broken{Node: c.Node(), What: k.method + " " + c.prefix + k.path, Sent: true, Err: errLate}
	if !c.config.Lean {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, CallTimeout, late)
		defer cancel()
	}
	k.accept = api.TypeJSON
	resp, err := c.do(ctx, k)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	most := int64(maxReply)
	if c.config.Lean {
		most = MaxLean
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return &Broken{Node: c.Node(), What: "reading the reply to " + k.method + " " + k.path, Sent: true, reply: true, Err: err}
	}
	if int64(len(body)) > most {
		return api.TooLarge.Err(fmt.Sprintf("%s: the reply to %s %s is larger than %d bytes", c.Node(), k.method, k.path, most))
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		return c.notOurs(resp, k, body)
	}
	return nil
}
