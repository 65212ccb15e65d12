package job

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"gantry/api"
	"gantry/feedback"
	"gantry/internal/failpoint"

	"github.com/go-json-experiment/json"
)

// A Job is held by this process alone. Its methods may be called from several
// goroutines; the fields of Info may be read while no driver runs.
type Job struct {
	Info
	keeper Keeper
	feed   *feedback.Feed
	dir    string           // for what package transfer keeps of a local side; "": it has none
	now    func() time.Time // nil: time.Now
	mu     sync.Mutex       // guards Info while a driver runs
}

// A Keeper keeps one job: the folder of a Store, or the database of a master.
type Keeper interface {
	// Save makes info durable. One call at a time. What info points to may
	// change when Save has returned.
	Save(info *Info) error
	// Close gives the job up.
	Close() error
}

// New is a job that k keeps and whose records go to feed, which stays the
// caller's. info is from NewInfo, or what k saved last. It has no folder, so
// that specs with a local side cannot be driven.
func New(info Info, feed *feedback.Feed, k Keeper) *Job {
	return &Job{Info: info, feed: feed, keeper: k}
}

// NewInfo makes the tasks of one attempt at spec. Their ids have the time of
// the call in them, so call it when the attempt begins.
func NewInfo(spec Spec) (Info, error) {
	tasks, err := spec.tasks()
	return Info{V: formatVersion, ID: api.NewID(), Spec: spec, Created: time.Now().UTC(), Tasks: tasks}, err
}

// starting notes, durably, that a start of role is about to be sent.
func (j *Job) starting(role, dirID string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	t := j.Tasks[role]
	t.Sent, t.DirID = true, dirID
	if err := j.keeper.Save(&j.Info); err != nil {
		return err
	}
	return failpoint.Hit("job.start")
}

// never notes, durably, that the task of role was refused and so never began.
func (j *Job) never(role string, why *feedback.Error) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	t := j.Tasks[role]
	if t.Refused != nil {
		return nil
	}
	t.Refused = why
	return j.keeper.Save(&j.Info)
}

// finish ends the job: its feed first, then job.json. settle repairs what a
// crash leaves between the two.
func (j *Job) finish(value api.Raw, wire *feedback.Error) error {
	var err error
	if wire != nil {
		err = j.feed.Finish(nil, wire)
	} else {
		err = j.feed.Finish(value, nil)
	}
	if err != nil {
		return fmt.Errorf("ending the job: %w", err)
	}
	if err := failpoint.Hit("job.finish"); err != nil {
		return err
	}
	return j.settle()
}

// settle copies a final of the feed to job.json.
func (j *Job) settle() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	final, ok := j.feed.Final()
	if !ok || j.Outcome != "" {
		return nil
	}
	now := time.Now
	if j.now != nil {
		now = j.now
	}
	j.Outcome, j.Ended, j.Final = api.OutcomeOf(&final), now().UTC(), api.Raw(final.Line)
	return j.keeper.Save(&j.Info)
}

// FinalRecord returns the final record, if the job has ended.
func (j *Job) FinalRecord() (feedback.Record, bool) { return j.feed.Final() }

// Log adds a line for people to the job's feed.
func (j *Job) Log(level, item, text string) { j.feed.Log(level, item, text) }

// Close closes the job; an unfinished one can be opened again.
func (j *Job) Close() error { return j.keeper.Close() }

// Watch hands the job's feed to fn, from the record after `after` until the
// final (nil), the end of ctx (its cause), or an error of fn.
func (j *Job) Watch(ctx context.Context, after int64, fn func(feedback.Record) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	r, w := io.Pipe()
	var stream sync.WaitGroup
	defer stream.Wait()
	// Before the wait: a stream that writes must not stay, nor one that is
	// silent until the next heartbeat.
	defer cancel(nil)
	defer r.Close()
	stream.Go(func() {
		reply := feedback.NewWriter(&reply{w: w, header: http.Header{}}, feedback.WriterOptions{})
		w.CloseWithError(j.feed.Stream(ctx, reply, after, feedback.Hello{ID: j.ID, Op: j.Spec.Kind, Node: "cli", Interval: int(api.HeartbeatInterval.Seconds())}))
	})
	err := feedback.NewReader(r, feedback.ReaderOptions{ID: j.ID, After: after}).Each(fn)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// reply lets a feed be streamed to a pipe as to an HTTP client.
type reply struct {
	w      io.Writer
	header http.Header
}

func (r *reply) Header() http.Header         { return r.header }
func (r *reply) WriteHeader(int)             {}
func (r *reply) Write(p []byte) (int, error) { return r.w.Write(p) }
func (r *reply) Flush()                      {}

var errEnough = errors.New("read enough")

// stored reads what is on disk of the feed now.
func (j *Job) stored(fn func(feedback.Record)) error {
	last := j.feed.Last()
	if last == 0 {
		return nil
	}
	err := j.Watch(context.Background(), 0, func(rec feedback.Record) error {
		if rec.Kind.Stored() {
			fn(rec)
		}
		if gap, ok := rec.Body.(*feedback.Gap); rec.Seq >= last || ok && gap.To >= last {
			return errEnough
		}
		return nil
	})
	if err == nil || errors.Is(err, errEnough) {
		return nil
	}
	return fmt.Errorf("reading the job's feed: %w", err)
}

// known finds, for each task, the greatest record that the job has stored, and
// the task's final record if that is among them.
func (j *Job) known() (after map[string]int64, finals map[string]feedback.Record, err error) {
	after, finals = map[string]int64{}, map[string]feedback.Record{}
	err = j.stored(func(rec feedback.Record) {
		t, ok := rec.Body.(*feedback.Task)
		if !ok {
			return
		}
		inner, err := feedback.Decode(t.Record)
		if err != nil {
			return
		}
		after[t.Task] = max(after[t.Task], inner.Seq)
		if inner.Kind.Final() {
			finals[t.Task] = inner
		}
	})
	return after, finals, err
}

func decodeLoosely(b []byte, v any) error { return json.Unmarshal(b, v) }

// Progress returns the newest values of what the job's tasks do now.
func (j *Job) Progress() []feedback.Progress { return j.feed.Progress() }
