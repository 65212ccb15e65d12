package client

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"gantry/api"
)

// Status asks how the node is and what the caller may do there.
func (c *Client) Status(ctx context.Context) (*api.Status, error) {
	var out api.Status
	err := c.short(ctx, call{method: http.MethodGet, path: "/status"}, &out)
	return &out, err
}

// Resources lists the resources visible to the caller.
func (c *Client) Resources(ctx context.Context) (*api.Resources, error) {
	var out api.Resources
	err := c.short(ctx, call{method: http.MethodGet, path: "/resources"}, &out)
	return &out, err
}

// Files lists one page of a folder of a resource; cursor is Next of the page
// before, "" for the first.
func (c *Client) Files(ctx context.Context, resource, path, cursor string) (*api.Files, error) {
	return c.FilesPage(ctx, resource, path, cursor, 0)
}

// FilesPage is Files with at most n entries, 1 to api.MaxPageSize; 0: as many as
// the node likes.
func (c *Client) FilesPage(ctx context.Context, resource, path, cursor string, n int) (*api.Files, error) {
	q := url.Values{}
	if n > 0 {
		q.Set("n", strconv.Itoa(n))
	}
	if path != "" {
		q.Set("path", path)
	}
	if cursor != "" {
		q.Set("cursor", cursor)
	}
	var out api.Files
	err := c.short(ctx, call{method: http.MethodGet, path: "/resources/" + url.PathEscape(resource) + "/files", query: q}, &out)
	return &out, err
}

// Check asks whether the node's user can really read and write a resource, and
// path in it, which may be empty.
func (c *Client) Check(ctx context.Context, resource, path string) (*api.Check, error) {
	q := url.Values{}
	if path != "" {
		q.Set("path", path)
	}
	var out api.Check
	err := c.short(ctx, call{method: http.MethodGet, path: "/resources/" + url.PathEscape(resource) + "/check", query: q}, &out)
	return &out, err
}

// Tasks lists one page of the caller's tasks, newest first.
func (c *Client) Tasks(ctx context.Context, cursor string) (*api.TaskList, error) {
	q := url.Values{}
	if cursor != "" {
		q.Set("cursor", cursor)
	}
	var out api.TaskList
	err := c.short(ctx, call{method: http.MethodGet, path: "/tasks", query: q}, &out)
	return &out, err
}

// Task asks for one task.
func (c *Client) Task(ctx context.Context, id string) (*api.TaskInfo, error) {
	var out api.TaskInfo
	err := c.short(ctx, call{method: http.MethodGet, path: taskPath(id, "")}, &out)
	return &out, err
}

// Cancel asks the node to end a task. nil means that it was asked; the task's
// final record says how it ended. The code too_late means that it is publishing.
func (c *Client) Cancel(ctx context.Context, id string) error {
	return c.short(ctx, call{method: http.MethodDelete, path: taskPath(id, "")}, nil)
}

// Limit changes how many content bytes a task sends or receives per second, from
// now on; 0 means no limit.
func (c *Client) Limit(ctx context.Context, id string, perSec int64) error {
	return c.short(ctx, call{method: http.MethodPut, path: taskPath(id, "/limit"), media: api.TypeJSON, body: api.Encode(api.Limit{Bandwidth: perSec})}, nil)
}

// Ack tells the node that the creator has stored the records up to seq.
func (c *Client) Ack(ctx context.Context, id string, seq int64) error {
	return c.short(ctx, post(taskPath(id, "/ack"), api.Ack{Seq: seq}), nil)
}

// Finish tells the source that the reader is done with an export and computed
// digest. It may be repeated. ticket is "" for the export's creator.
func (c *Client) Finish(ctx context.Context, id, ticket, digest string) error {
	k := post(taskPath(id, "/finish"), api.Finish{Digest: digest})
	k.ticket = ticket
	return c.short(ctx, k, nil)
}

// PutCRL sends a revocation list, DER.
func (c *Client) PutCRL(ctx context.Context, der []byte) error {
	return c.short(ctx, call{method: http.MethodPut, path: "/crl", media: api.TypeCRL, body: bytes.Clone(der)}, nil)
}

// Selftest makes one request of the self-test; body nil means GET. The caller
// closes the reply's body.
func (c *Client) Selftest(ctx context.Context, check string, query url.Values, body io.Reader, accept string) (*http.Response, error) {
	k := call{method: http.MethodGet, path: "/selftest/" + check, query: query, accept: accept}
	if body != nil {
		b, err := io.ReadAll(io.LimitReader(body, api.MaxBody))
		if err != nil {
			return nil, fmt.Errorf("reading the body for the self-test: %w", err)
		}
		k.method, k.media, k.body = http.MethodPost, api.TypeBytes, b
	}
	return c.do(ctx, k)
}

func taskPath(id, rest string) string { return "/tasks/" + url.PathEscape(id) + rest }

func post(path string, body any) call {
	return call{method: http.MethodPost, path: path, media: api.TypeJSON, body: api.Encode(body)}
}
