package master

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"gantry/api"
	"gantry/feedback"
	"gantry/internal/serve"
	"gantry/job"
	"gantry/queue"

	"github.com/go-json-experiment/json"
)

// driverNode is where the records of a job with a local side come from: its
// driver, a command line.
const driverNode = "cli"

// taskSeq is what Record needs of the store beside Store.
type taskSeq interface {
	TaskSeq(ctx context.Context, job, task string) (int64, error)
}

// Record adds stored records of the driver's own feed to a job with a local
// side: records of tasks as they are, others as records of a task with the job's
// id at "cli". What is there already is dropped. A final ends the job; after that
// only repeats are taken. items are what moves now, for those who watch.
func (m *Master) Record(ctx context.Context, id string, records []feedback.Record, items []feedback.Progress) error {
	if err := m.alive(); err != nil {
		return err
	}
	m.mu.Lock()
	e := m.entries[id]
	m.mu.Unlock()
	if e == nil { // it has ended
		feed, release, err := m.Feed(id)
		if err != nil {
			return err
		}
		defer release()
		return m.recordAll(ctx, id, feed, records)
	}
	if e.spec.Driven() {
		return errDriven
	}
	return m.recordDriven(ctx, e, records, items)
}

// recordDriven is Record of a job that had not ended when it was looked up.
func (m *Master) recordDriven(ctx context.Context, e *entry, records []feedback.Record, items []feedback.Progress) error {
	e.driver.mu.Lock()
	defer e.driver.mu.Unlock()
	if err := m.hears(e); err != nil {
		return err
	}
	err := m.recordAll(ctx, e.id, e.driver.feed, records)
	if _, over := e.driver.feed.Final(); over {
		defer e.driver.leave() // also of a report that came too late: nobody else does
		if err := (&driving{m: m, e: e, feed: e.driver.feed}).settle(); err != nil {
			return err
		}
		return err
	}
	if err == nil {
		e.driver.mirror(items)
	}
	return err
}

func (m *Master) recordAll(ctx context.Context, id string, feed *feedback.Feed, records []feedback.Record) error {
	for _, rec := range records {
		if err := m.record(ctx, id, feed, rec); err != nil {
			return err
		}
	}
	return nil
}

var errDriven = api.BadRequest.Err("the master drives this job itself: it has no local side")

func (m *Master) record(ctx context.Context, id string, feed *feedback.Feed, rec feedback.Record) error {
	if final, over := feed.Final(); over {
		if rec.Kind.Final() && sameEnd(final, rec) {
			return nil
		}
		if !rec.Kind.Final() {
			if stored, err := m.stored(ctx, id, rec); stored || err != nil {
				return err
			}
		}
		return queue.ErrEnded
	}
	switch body := rec.Body.(type) {
	case *feedback.Result:
		return finished(feed.Finish(body.Value, nil))
	case *feedback.Error:
		return finished(feed.Finish(nil, body))
	case *feedback.Task:
		if stored, err := m.stored(ctx, id, rec); stored || err != nil {
			return err
		}
		return feed.Task(body.Node, body.Task, body.Record)
	}
	if stored, err := m.stored(ctx, id, rec); stored || err != nil {
		return err
	}
	return feed.Task(driverNode, id, api.Raw(rec.Line))
}

func finished(err error) error {
	if errors.Is(err, feedback.ErrFinished) {
		return queue.ErrEnded
	}
	return err
}

// stored says whether a record is in the job's feed.
func (m *Master) stored(ctx context.Context, id string, rec feedback.Record) (bool, error) {
	task, seq := id, rec.Seq
	if body, ok := rec.Body.(*feedback.Task); ok {
		inner, err := feedback.Decode(body.Record)
		if err != nil {
			return false, err
		}
		task, seq = body.Task, inner.Seq
	}
	s, ok := m.o.Store.(taskSeq)
	if !ok {
		return false, nil // a store that drops repeats by itself
	}
	last, err := s.TaskSeq(ctx, id, task)
	return seq <= last, err
}

// sameEnd says whether two finals say the same.
func sameEnd(a, b feedback.Record) bool {
	if api.OutcomeOf(&a) != api.OutcomeOf(&b) {
		return false
	}
	x, failed := a.Body.(*feedback.Error)
	if !failed {
		return true
	}
	y, _ := b.Body.(*feedback.Error)
	return y != nil && x.Code == y.Code
}

// Unfinished counts the jobs that have not ended.
func (m *Master) Unfinished() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.entries)
}

// loosely decodes what a newer version may have added fields to.
func loosely(b []byte, v any) error { return json.Unmarshal(b, v) }

func (s *Server) serveRecords(w http.ResponseWriter, r *http.Request) error {
	if err := onlyQuery(r); err != nil {
		return err
	}
	var req api.RecordsRequest
	if err := serve.ReadJSON(w, r, &req); err != nil {
		return err
	}
	j, err := s.named(r)
	if err != nil {
		return err
	}
	records, err := readRecords(req.Records)
	if err != nil {
		return err
	}
	var spec job.Spec
	if err := api.DecodeBytes(j.Spec, &spec); err != nil {
		return fmt.Errorf("reading job %s: %w", j.ID, err)
	}
	if spec.Driven() {
		return errDriven
	}
	items, err := readItems(req.Progress)
	if err != nil {
		return err
	}
	caller := serve.Caller(r.Context())
	last := int64(0)
	if n := len(records); n > 0 {
		last = records[n-1].Seq
	}
	if last > 0 && records[len(records)-1].Kind.Final() {
		// The end alone is an entry: the records are the job's history, not decisions.
		if err := s.allow(r.Context(), caller, api.RouteRecords, j.ID, "owner"); err != nil {
			return err
		}
	}
	if err := s.jobs.Record(r.Context(), j.ID, records, items); err != nil {
		return err
	}
	return serve.JSON(w, http.StatusOK, api.RecordsReply{Last: last, CancelBy: j.CancelBy})
}
