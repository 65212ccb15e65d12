package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"gantry/api"
	"gantry/config"
	"gantry/feedback"
)

// A Master makes requests to a master. Its methods may be called from several
// goroutines.
type Master struct{ c *Client }

// NewMaster returns a client of a master behind its front; c.Node is the master,
// as cluster.toml has it.
func NewMaster(c Config) *Master { return &Master{newClient(c, api.MasterPrefix)} }

// NewLocalMaster returns a client of the master whose local socket is at path:
// the kernel tells it who asks.
func NewLocalMaster(path string, log *slog.Logger) *Master {
	return NewMaster(Config{
		Node: config.ClusterNode{Name: "master", URL: "http://local"}, Log: log,
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: DialTimeout}).DialContext(ctx, "unix", path)
		},
	})
}

// Close closes idle connections.
func (m *Master) Close() { m.c.Close() }

func jobPath(id, rest string) string { return "/jobs/" + url.PathEscape(id) + rest }

func keyed(k call, key string) call {
	if key != "" {
		k.header = http.Header{api.IdempotencyHeader: {key}}
	}
	return k
}

// Submit has a job done. The same key (1 to api.MaxKey printable characters)
// with the same request is the same job, so a request whose answer was lost can
// be sent again; "" makes a job each time.
func (m *Master) Submit(ctx context.Context, req *api.JobRequest, key string) (*api.Job, error) {
	var out api.Job
	err := m.c.short(ctx, keyed(post("/jobs", req), key), &out)
	return &out, err
}

// Retry tries an ended job again, as a new job of the caller; key as in Submit.
func (m *Master) Retry(ctx context.Context, id string, req api.RetryRequest, key string) (*api.Job, error) {
	var out api.Job
	err := m.c.short(ctx, keyed(post(jobPath(id, "/retry"), req), key), &out)
	return &out, err
}

// Jobs lists one page of jobs, newest first. filter has state, node, owner, kind,
// limit, and as cursor the Next of the page before; nil: everything.
func (m *Master) Jobs(ctx context.Context, filter url.Values) (*api.JobList, error) {
	var out api.JobList
	err := m.c.short(ctx, call{method: http.MethodGet, path: "/jobs", query: filter}, &out)
	return &out, err
}

// Job shows a job with its attempts.
func (m *Master) Job(ctx context.Context, id string) (*api.Job, error) {
	var out api.Job
	err := m.c.short(ctx, call{method: http.MethodGet, path: jobPath(id, "")}, &out)
	return &out, err
}

// Cancel asks for a job's end; its final record says how it ended.
func (m *Master) Cancel(ctx context.Context, id string) (*api.Job, error) {
	var out api.Job
	err := m.c.short(ctx, call{method: http.MethodDelete, path: jobPath(id, "")}, &out)
	return &out, err
}

// Abandon ends a job that is unknown without its node, which is gone for good:
// the outcome stays unknown. It returns the job as it ended.
func (m *Master) Abandon(ctx context.Context, id string) (*api.Job, error) {
	var out api.Job
	query := url.Values{"abandon": {"true"}}
	err := m.c.short(ctx, call{method: http.MethodDelete, path: jobPath(id, ""), query: query}, &out)
	return &out, err
}

// Records adds stored records to a job with a local side, which the caller
// drives, and shows what moves there to who watches. It may be sent again.
func (m *Master) Records(ctx context.Context, id string, records, progress []api.Raw) (*api.RecordsReply, error) {
	var out api.RecordsReply
	req := api.RecordsRequest{Records: slices.Concat([]api.Raw{}, records), Progress: progress}
	err := m.c.short(ctx, post(jobPath(id, "/records"), req), &out)
	return &out, err
}

// Nodes lists the nodes as the master sees them.
func (m *Master) Nodes(ctx context.Context) (*api.NodeList, error) {
	var out api.NodeList
	err := m.c.short(ctx, call{method: http.MethodGet, path: "/nodes"}, &out)
	return &out, err
}

// Status asks how the master is and what the caller may do there.
func (m *Master) Status(ctx context.Context) (*api.MasterStatus, error) {
	var out api.MasterStatus
	err := m.c.short(ctx, call{method: http.MethodGet, path: "/status"}, &out)
	return &out, err
}

// Audit reads a page of the audit log: at most limit entries after a number; 0:
// as many as the master likes.
func (m *Master) Audit(ctx context.Context, after int64, limit int) (*api.AuditList, error) {
	q := url.Values{"after": {strconv.FormatInt(after, 10)}}
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	var out api.AuditList
	err := m.c.short(ctx, call{method: http.MethodGet, path: "/audit", query: q}, &out)
	return &out, err
}

// PutCRL sends a revocation list, DER or PEM as at a node.
func (m *Master) PutCRL(ctx context.Context, der []byte) error {
	return m.c.PutCRL(ctx, der)
}

// Attach reads a job's feed from the record after `after`, once.
func (m *Master) Attach(ctx context.Context, id string, after int64) (*Feed, error) {
	k := call{method: http.MethodGet, path: jobPath(id, "/feed"), line: feedback.MaxJobLine}
	if after > 0 {
		k.query = url.Values{"after": {strconv.FormatInt(after, 10)}}
	}
	return m.c.feed(ctx, k, id, after)
}

// Watch hands a job's records after `after` to fn, in order and each stored one
// once, attaches again after cuts, and returns the final record. lost is told
// each time before it waits; it may be nil. Without a record for the client's
// RetryFor the error is an *UnknownError: the job goes on all the same.
func (m *Master) Watch(ctx context.Context, id string, after int64, lost func(err error, wait time.Duration), fn func(feedback.Record) error) (feedback.Record, error) {
	wait, since := firstWait, time.Now()
	for {
		before := after
		final, done, err := m.watch(ctx, id, &after, fn)
		switch {
		case done:
			return final, err
		case ctx.Err() != nil:
			return final, context.Cause(ctx)
		}
		if p, ok := errors.AsType[*problem](err); ok && !transient(p) {
			return final, p.wire
		}
		if after > before {
			wait, since = firstWait, time.Now()
		}
		if time.Since(since) > m.c.config.RetryFor {
			return final, &UnknownError{m.c.Node(), id, err}
		}
		pause := time.Duration(float64(wait) * (0.8 + 0.4*rand.Float64()))
		wait = min(2*wait, maxWait)
		if lost != nil {
			lost(err, pause)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return final, context.Cause(ctx)
		}
	}
}

// watch reads one reply; done says that there is nothing to attach for again.
func (m *Master) watch(ctx context.Context, id string, after *int64, fn func(feedback.Record) error) (_ feedback.Record, done bool, _ error) {
	feed, err := m.Attach(ctx, id, *after)
	if err != nil {
		return feedback.Record{}, false, err
	}
	defer feed.Close()
	for {
		rec, err := feed.Read()
		if err != nil {
			return rec, false, fmt.Errorf("watching job %s: %w", id, err)
		}
		if err := fn(rec); err != nil {
			return rec, true, err
		}
		*after = max(*after, feed.Last())
		if rec.Kind.Final() {
			return rec, true, nil
		}
	}
}
