package job

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"

	"gantry/api"
	"gantry/feedback"
	"gantry/internal/atomicfile"
	"gantry/internal/failpoint"

	"github.com/go-json-experiment/json"
	"golang.org/x/sys/unix"
)

// A Job is open and locked by this process. Its methods may be called from
// several goroutines; the fields of Info may be read while no driver runs.
type Job struct {
	Info
	store *Store
	dir   string
	lock  *os.File
	feed  *feedback.Feed
	mu    sync.Mutex // guards job.json and Info while a driver runs
}

func (j *Job) takeLock() error {
	f, err := os.OpenFile(filepath.Join(j.dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("locking the job: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if err == unix.EWOULDBLOCK {
			return ErrDriven
		}
		return fmt.Errorf("locking the job: %w", err)
	}
	j.lock = f
	return nil
}

// save makes job.json durable.
func (j *Job) save() error {
	b, err := json.Marshal(j.Info)
	if err != nil {
		return fmt.Errorf("keeping the job: %w", err)
	}
	if err := atomicfile.WriteFile(filepath.Join(j.dir, "job.json"), append(b, '\n'), 0o600, "job.file"); err != nil {
		return fmt.Errorf("keeping the job: %w", err)
	}
	return nil
}

// starting notes, durably, that a start of role is about to be sent.
func (j *Job) starting(role, dirID string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	t := j.Tasks[role]
	t.Sent, t.DirID = true, dirID
	if err := j.save(); err != nil {
		return err
	}
	return failpoint.Hit("job.start")
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
	j.Outcome, j.Ended, j.Final = api.OutcomeOf(&final), j.store.now().UTC(), api.Raw(final.Line)
	return j.save()
}

// FinalRecord returns the final record, if the job has ended.
func (j *Job) FinalRecord() (feedback.Record, bool) { return j.feed.Final() }

// Log adds a line for people to the job's feed.
func (j *Job) Log(level, item, text string) { j.feed.Log(level, item, text) }

// Close closes the job; an unfinished one can be opened again.
func (j *Job) Close() error {
	var err error
	if j.feed != nil {
		err = j.feed.Close()
	}
	if j.lock != nil {
		j.lock.Close()
	}
	return err
}

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
