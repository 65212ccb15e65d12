package master

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"gantry/access"
	"gantry/api"
	"gantry/feedback"
	"gantry/front/selftest"
	"gantry/internal/serve"
	"gantry/queue"

	"github.com/gorilla/mux"
)

// jobs is what the API needs of a scheduler.
type jobs interface {
	Submit(ctx context.Context, j queue.Job) (_ queue.Job, existed bool, err error)
	Cancel(ctx context.Context, id, by string) error
	Abandon(ctx context.Context, id, by string) error
	Again(ctx context.Context, id, by, from string) (queue.Job, error)
	Record(ctx context.Context, id string, records []feedback.Record, items []feedback.Progress) error
	Settled(ctx context.Context, id string) error
	SettledAll(ctx context.Context, ids []string) (waited bool, err error)
	Feed(id string) (feed *feedback.Feed, release func(), err error)
	Unfinished() int
	Slots(node string) (n, used int)
	Drain()
	Close() error
}

func (s *Server) newShell() (*serve.Shell, error) {
	s.selftest = selftest.New(selftest.Options{})
	handlers := map[string]serve.Handler{
		api.RouteSubmit:       s.serveSubmit,
		api.RouteJobs:         s.serveJobs,
		api.RouteJob:          s.serveJob,
		api.RouteJobFeed:      s.serveFeed,
		api.RouteJobCancel:    s.serveCancel,
		api.RouteRetry:        s.serveRetry,
		api.RouteRecords:      s.serveRecords,
		api.RouteNodes:        s.serveNodes,
		api.RouteMasterStatus: s.serveStatus,
		api.RouteAudit:        s.serveAudit,
		api.RouteOpenAPI:      s.serveOpenAPI,
		api.RouteMetrics:      s.serveMetrics,
		api.RouteCRL:          s.serveCRL,
		api.RouteSelftest: func(w http.ResponseWriter, r *http.Request) error {
			path, _ := strings.CutPrefix(r.URL.Path, api.MasterPrefix)
			r = r.Clone(r.Context()) // the handlers are at a node's path
			r.URL.Path = api.Prefix + path
			s.selftest.ServeHTTP(w, r)
			return nil
		},
	}
	for name, handler := range handlers {
		handlers[name] = func(w http.ResponseWriter, r *http.Request) error { return wire(handler(w, r)) }
	}
	return serve.New(serve.Config{
		Prefix: api.MasterPrefix, Routes: api.MasterRoutes, Handlers: handlers,
		Verifier: s.gate.Verifier, Front: serve.Front{UIDs: s.cfg.Front.UIDs, Token: s.gate.Token},
		Authorize: s.authorize, Refused: s.refused, Observe: s.metrics.request,
		Health: s.health, Ready: s.ready, Log: s.log,
	})
}

// wire gives errors of the store and the scheduler their codes.
func wire(err error) error {
	if _, ok := errors.AsType[*feedback.Error](err); ok {
		return err
	}
	for _, known := range []struct {
		err  error
		code *api.Code
		text string
	}{
		{queue.ErrNotFound, api.UnknownJob, unknownJob},
		{queue.ErrKeyReused, api.KeyReused, "the idempotency key was used with another request"},
		{queue.ErrEnded, api.JobEnded, "the job has ended"},
		{ErrUnfinished, api.JobRuns, "the job has not ended"},
		{ErrKnown, api.JobKnown, "the job is not unknown"},
		{queue.ErrCursor, api.BadCursor, "the cursor is none of this list"},
		{queue.ErrBadJob, api.BadRequest, "the job cannot be kept"},
		{ErrClosed, api.Draining, "the master is stopping"},
		{feedback.ErrClosed, api.Draining, "the master is stopping"},
		{queue.ErrBroken, api.IO, "the master's store cannot be written"},
		{queue.ErrDamaged, api.IO, "the master's store is damaged"},
		{queue.ErrClosed, api.Draining, "the master is stopping"},
	} {
		if errors.Is(err, known.err) {
			return coded{known.code.Err(known.text), err}
		}
	}
	return err
}

// coded is a wire error whose cause stays for the log.
type coded struct {
	wire *feedback.Error
	err  error
}

func (e coded) Error() string   { return e.wire.Error() + ": " + e.err.Error() }
func (e coded) Unwrap() []error { return []error{e.wire, e.err} }

// unknownJob is the one text for a job that is not there and for one that the
// caller may not see.
const unknownJob = "there is no such job here"

// authorize judges a caller before the handler runs. A job that he may not see
// does not exist for him.
func (s *Server) authorize(c access.Caller, route api.Route, vars map[string]string) error {
	if !route.Task {
		return s.gate.Policy.Allows(c, route.Right, access.Any)
	}
	_, err := s.visible(context.Background(), c, route, vars["id"])
	return err
}

// visible finds a job for a caller: his own, or any if he has the route's right.
func (s *Server) visible(ctx context.Context, c access.Caller, route api.Route, id string) (queue.Job, error) {
	if !api.ValidID(id) {
		return queue.Job{}, api.UnknownJob.Err(unknownJob)
	}
	j, err := s.store.Job(ctx, id)
	if err != nil {
		return queue.Job{}, wire(err)
	}
	if j.Owner == c.String() {
		return j, nil
	}
	if route.Right != api.NoRight && s.gate.Policy.Allows(c, route.Right, access.Any) == nil {
		return j, nil
	}
	return queue.Job{}, api.UnknownJob.Err(unknownJob)
}

// named is the job that the path names; authorize has let it pass.
func (s *Server) named(r *http.Request) (queue.Job, error) {
	return s.store.Job(r.Context(), mux.Vars(r)["id"])
}

func (s *Server) serveJob(w http.ResponseWriter, r *http.Request) error {
	if err := onlyQuery(r); err != nil {
		return err
	}
	// Who was shown the end in the feed must not be told here that the job runs.
	if err := s.jobs.Settled(r.Context(), mux.Vars(r)["id"]); err != nil {
		return err
	}
	j, err := s.named(r)
	if err != nil {
		return err
	}
	attempts, err := s.store.Attempts(r.Context(), j.ID)
	if err != nil {
		return err
	}
	return serve.JSON(w, http.StatusOK, detail(j, attempts))
}

func (s *Server) serveJobs(w http.ResponseWriter, r *http.Request) error {
	q, err := s.jobsQuery(r)
	if err != nil {
		return err
	}
	list := api.JobList{Jobs: []api.Job{}}
	caller := serve.Caller(r.Context())
	if s.gate.Policy.Allows(caller, api.MayJobs, access.Any) != nil {
		if q.Owner != "" && q.Owner != caller.String() {
			return serve.JSON(w, http.StatusOK, list) // as for an owner who has none
		}
		q.Owner = caller.String()
	}
	more, bytes := true, 0
	for size := q.Limit; more && len(list.Jobs) < size && bytes < maxPageBytes; {
		q.Limit = min(size-len(list.Jobs), jobsAtOnce)
		some, err := s.settledJobs(r.Context(), q)
		if err != nil {
			return err
		}
		more = len(some) == q.Limit
		for _, j := range some {
			if bytes += len(j.Spec) + len(j.Final); bytes > maxPageBytes && len(list.Jobs) > 0 {
				more = true
				break
			}
			list.Jobs = append(list.Jobs, info(j))
			q.Before = j.ID
		}
	}
	if more { // the next page may be empty
		list.Next = cursor{last: q.Before, of: filterOf(r)}.String()
	}
	return serve.JSON(w, http.StatusOK, list)
}

// settledJobs reads jobs, as of one job: who was shown an end must not be told
// that the job runs.
func (s *Server) settledJobs(ctx context.Context, q queue.Query) ([]queue.Job, error) {
	all, err := s.store.Jobs(ctx, q)
	if err != nil {
		return nil, err
	}
	var running []string
	for _, j := range all {
		if !j.State.Final() {
			running = append(running, j.ID)
		}
	}
	waited, err := s.jobs.SettledAll(ctx, running)
	if err != nil || !waited {
		return all, err
	}
	return s.store.Jobs(ctx, q)
}

// A page ends early when its jobs are large: one has up to 320 KiB, and clients
// read 4 MiB at most.
const (
	maxPageBytes = 2 << 20
	jobsAtOnce   = 50 // read from the store
)

func (s *Server) serveFeed(w http.ResponseWriter, r *http.Request) error {
	if err := onlyQuery(r, "after"); err != nil {
		return err
	}
	after, err := number(r, "after", 0, 0, maxNumber)
	if err != nil {
		return err
	}
	j, err := s.named(r)
	if err != nil {
		return err
	}
	if s.draining.Load() {
		return ErrClosed
	}
	f, release, err := s.jobs.Feed(j.ID)
	if err != nil {
		return err
	}
	defer release()
	s.metrics.feeds.Inc()
	defer s.metrics.feeds.Dec()
	hello := feedback.Hello{ID: j.ID, Op: j.Kind, Node: s.cfg.Name, Start: 1, Interval: int(s.cfg.Limits.Heartbeat.Seconds())}
	o := feedback.WriterOptions{Padding: s.cfg.Front.Padding, Incremental: s.cfg.Front.Incremental}
	return serve.Feed(w, r, f, after, hello, o, s.feeds)
}

func (s *Server) serveCancel(w http.ResponseWriter, r *http.Request) error {
	if err := onlyQuery(r, "abandon"); err != nil {
		return err
	}
	end := s.jobs.Cancel
	switch r.URL.Query().Get("abandon") {
	case "":
	case "true":
		end = s.jobs.Abandon
	default:
		return api.BadRequest.Err(`abandon: "true" is allowed`)
	}
	j, err := s.named(r)
	if err != nil {
		return err
	}
	if s.draining.Load() {
		return ErrClosed
	}
	caller := serve.Caller(r.Context())
	if err := s.allow(r.Context(), caller, api.RouteJobCancel, j.ID, because(j, caller, api.MayCancel)); err != nil {
		return err
	}
	if err := end(r.Context(), j.ID, caller.String()); err != nil {
		return err
	}
	if j, err = s.store.Job(r.Context(), j.ID); err != nil {
		return err
	}
	return serve.JSON(w, http.StatusAccepted, info(j))
}

// because says why a caller may do something to a job.
func because(j queue.Job, c access.Caller, right api.Right) string {
	switch {
	case j.Owner == c.String():
		return "owner"
	case c.Local != nil && c.Local.Self:
		return "the master's own user"
	}
	return "right " + string(right)
}

// info describes a job as lists do.
func info(j queue.Job) api.Job {
	return api.Job{
		ID: j.ID, Kind: j.Kind, Spec: j.Spec, Owner: j.Owner, Driver: driverOf(j), Priority: j.Priority, NotBefore: j.NotBefore,
		Nodes: slices.Concat([]string{}, j.Nodes), Limits: j.Limits, MaxAttempts: j.MaxAttempts, RetryOf: j.RetryOf,
		State: j.State, Attempt: j.Attempt, Why: j.Why, NextAt: j.NextAt, CancelBy: j.CancelBy,
		Created: j.Created, Started: j.Started, Changed: j.Changed, Ended: j.Ended, Outcome: j.Outcome, Final: j.Final,
	}
}

// detail is info with the attempts.
func detail(j queue.Job, attempts []queue.Attempt) api.Job {
	d := info(j)
	for _, a := range attempts {
		d.Attempts = append(d.Attempts, api.Attempt{
			N: a.N, Started: a.Started, Ended: a.Ended, Outcome: a.Outcome, Why: a.Why, Tasks: taskRefs(a.Info),
		})
	}
	return d
}
