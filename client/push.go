package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"gantry/api"
	"gantry/transfer"
)

// Demand is a pushed import as transfer.Push wants it. Like what an import
// fetches, all of it goes to the node's address for data.
type Demand struct {
	Client *Client
	Task   string // the import's id
	Ticket string // "" for the import's creator
}

var _ transfer.Demand = Demand{}

// Missing implements transfer.Demand.
func (d Demand) Missing(ctx context.Context, from int64) (api.Wants, error) {
	var out api.Wants
	err := d.Client.short(ctx, call{
		method: http.MethodGet, path: taskPath(d.Task, "/missing"), query: url.Values{"from": {strconv.FormatInt(from, 10)}},
		ticket: d.Ticket, bulk: true,
	}, &out)
	return out, err
}

// PutLines implements transfer.Demand.
func (d Demand) PutLines(ctx context.Context, w api.Want, at int64, lines []byte, last bool) error {
	return d.put(ctx, "/manifest", api.TypeFeed, w, at, lines, last)
}

// PutFrames implements transfer.Demand.
func (d Demand) PutFrames(ctx context.Context, w api.Want, at int64, frames []byte, last bool) error {
	return d.put(ctx, "/pieces", api.TypeFrames, w, at, frames, last)
}

func (d Demand) put(ctx context.Context, where, media string, w api.Want, at int64, part []byte, last bool) error {
	q := url.Values{"want": {strconv.FormatInt(w.Seq, 10)}, "at": {strconv.FormatInt(at, 10)}}
	if w.From > 0 {
		q.Set("from", strconv.FormatInt(w.From, 10))
	}
	if last {
		q.Set("last", "1")
	}
	return d.Client.short(ctx, call{
		method: http.MethodPut, path: taskPath(d.Task, where), query: q, ticket: d.Ticket, media: media, body: part, bulk: true,
	}, nil)
}

// PutContent implements transfer.Demand. body is read to its end, or until it
// fails, before PutContent returns.
func (d Demand) PutContent(ctx context.Context, w api.Want, total int64, body io.Reader) error {
	whole := "*"
	if total >= 0 {
		whole = strconv.FormatInt(total, 10)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	up := &upload{r: body, limit: d.Client.silence(uploadSilence), closed: make(chan struct{})}
	up.timer = time.AfterFunc(up.limit, func() { cancel(errSilence) })
	defer func() { // who made the request has let go of body then
		up.timer.Stop()
		cancel(nil)
		<-up.closed
	}()
	resp, err := d.Client.do(ctx, call{
		method: http.MethodPut, path: taskPath(d.Task, "/content"), query: url.Values{"want": {strconv.FormatInt(w.Seq, 10)}}, ticket: d.Ticket,
		media: api.TypeBytes, stream: up, length: w.Length, accept: api.TypeJSON, bulk: true,
		header: http.Header{"Content-Range": {fmt.Sprintf("bytes %d-%d/%s", w.Off, w.Off+w.Length-1, whole)}},
	})
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// uploadSilence, three times over, is how long a node may take nothing of a body
// or leave it without an answer: fronts give up after two minutes.
const uploadSilence = 30 * time.Second

// upload puts the end of a request off while its body is taken.
type upload struct {
	r      io.Reader
	timer  *time.Timer
	limit  time.Duration
	once   sync.Once
	closed chan struct{}
}

func (u *upload) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	u.timer.Reset(u.limit)
	return n, err
}

func (u *upload) Close() error {
	u.once.Do(func() { close(u.closed) })
	return nil
}

// Reach asks the node whether a neighbour of its cluster file answers it.
func (c *Client) Reach(ctx context.Context, node string) (*api.Reach, error) {
	var out api.Reach
	err := c.short(ctx, call{method: http.MethodGet, path: "/reach/" + url.PathEscape(node)}, &out)
	return &out, err
}

// Greet asks for the node's status at its address for data and, when that is
// another one, at that of its API. A caller who is known and may not see the
// status was answered too.
func (c *Client) Greet(ctx context.Context) error {
	for _, bulk := range []bool{true, false} {
		var out api.Status
		err := c.short(ctx, call{method: http.MethodGet, path: "/status", bulk: bulk}, &out)
		if err != nil && !isForbidden(err) {
			return err
		}
		if c.data == c.api {
			break
		}
	}
	return nil
}
