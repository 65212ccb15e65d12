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
	ticket string
	header http.Header
	bulk   bool
	accept string // media type that the reply must have
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
	what := k.method + " " + api.Prefix + k.path
	sent := false
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		// from here on some of it may be on the line
		GotConn: func(httptrace.GotConnInfo) { sent = true },
	})
	var body io.Reader
	if k.body != nil {
		body = bytes.NewReader(k.body)
	}
	req, err := http.NewRequestWithContext(ctx, k.method, target, body)
	if err != nil {
		return nil, fmt.Errorf("making a request to %s: %w", c.Node(), err)
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
			sent = false
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
		body, err := io.ReadAll(io.LimitReader(resp.Body, api.MaxBody))
		var p api.Problem
		if err == nil && json.Unmarshal(body, &p) == nil && p.Code != "" {
			return &problem{node: c.Node(), wire: p.Err(), status: resp.StatusCode, dirID: p.DirID, task: p.Task}
		}
		return c.notOurs(resp, k, body)
	}
	if ours && resp.StatusCode/100 == 2 && (media == k.accept || resp.StatusCode == http.StatusNoContent) {
		return nil
	}
	head, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
	return c.notOurs(resp, k, head)
}

func (c *Client) notOurs(resp *http.Response, k call, head []byte) error {
	return &NotOurs{
		Node: c.Node(), Method: k.method, Path: api.Prefix + k.path, Status: resp.StatusCode,
		Type: feedback.Printable(resp.Header.Get("Content-Type")), Text: feedback.Printable(string(head[:min(len(head), 200)])),
	}
}

// short makes a call that answers within seconds and decodes its reply into
// out, unless that is nil. Unknown fields are those of a newer node: ignored.
func (c *Client) short(ctx context.Context, k call, out any) error {
	late := &Broken{Node: c.Node(), What: k.method + " " + api.Prefix + k.path, Sent: true, Err: errLate}
	ctx, cancel := context.WithTimeoutCause(ctx, CallTimeout, late)
	defer cancel()
	k.accept = api.TypeJSON
	resp, err := c.do(ctx, k)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxReply+1))
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return &Broken{Node: c.Node(), What: "reading the reply to " + k.method + " " + k.path, Sent: true, Err: err}
	}
	if len(body) > maxReply {
		return fmt.Errorf("%s: the reply to %s %s is larger than %d bytes", c.Node(), k.method, k.path, maxReply)
	}
	if out == nil || resp.StatusCode == http.StatusNoContent {
		return nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		return c.notOurs(resp, k, body)
	}
	return nil
}
