package queue

import (
	"context"
	"fmt"
	"slices"
	"time"

	"gantry/api"

	"github.com/go-json-experiment/json"
)

// State is where a job is.
type State = api.JobState

// The states of jobs, under short names.
const (
	Queued    = api.JobQueued
	Running   = api.JobRunning
	Stalled   = api.JobStalled
	Waiting   = api.JobWaiting
	Unknown   = api.JobUnknown
	Done      = api.JobDone
	Failed    = api.JobFailed
	Refused   = api.JobRefused
	Cancelled = api.JobCancelled
	Abandoned = api.JobAbandoned
)

// Job is one job as it is kept.
type Job struct {
	// What was asked for. It does not change after Add.
	ID       string  // UUIDv7; Add makes one where it is empty
	Kind     string  // copy, call, …
	Spec     api.Raw // at most api.MaxSpec bytes
	Owner    string  // SPIFFE id or "local:UID"
	Nodes    []string
	Limits   []string
	RetryOf  string // id of the job that it tries again
	Key      string // idempotency key, unique for its owner; may be empty
	BodyHash string // of the request that came with Key
	Created  time.Time

	// What becomes of it, changed by Update.
	Priority    int
	NotBefore   time.Time
	MaxAttempts int
	State       State
	Attempt     int       // number of the last one; 0 before the first
	Why         string    // of the state
	NextAt      time.Time // of waiting_retry
	CancelBy    string
	Started     time.Time
	Changed     time.Time // set by the store
	Ended       time.Time
	Outcome     api.Outcome
	Final       api.Raw // the final record's line
}

// jobColumns are read and written in this order.
const jobColumns = `id, kind, owner, retry_of, idem_key, body_hash, created, nodes, limits, spec,
	priority, not_before, max_attempts, state, attempt, why, next_at, cancel_by, started, changed, ended, outcome, final`

const (
	insertJob = `INSERT INTO jobs (` + jobColumns + `, sum) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)`
	selectJob = `SELECT ` + jobColumns + `, sum, n FROM jobs WHERE `
	updateJob = `UPDATE jobs SET priority=?, not_before=?, max_attempts=?, state=?, attempt=?, why=?, next_at=?, cancel_by=?,
		started=?, changed=?, ended=?, outcome=?, final=?, sum=? WHERE n=?`
	fixedColumns = 10 // of jobColumns, which updateJob leaves alone
)

// row is a job as it lies in its columns.
type row struct {
	id, kind, owner, retryOf, key, bodyHash string
	created                                 int64
	nodes, limits                           string
	spec                                    []byte
	priority, notBefore, maxAttempts        int64
	state                                   string
	attempt                                 int64
	why                                     string
	nextAt                                  int64
	cancelBy                                string
	started, changed, ended                 int64
	outcome                                 string
	final                                   []byte

	sum, n int64
}

func (r *row) values() []any {
	return []any{
		r.id, r.kind, r.owner, r.retryOf, r.key, r.bodyHash, r.created, r.nodes, r.limits, r.spec,
		r.priority, r.notBefore, r.maxAttempts, r.state, r.attempt, r.why, r.nextAt, r.cancelBy, r.started, r.changed, r.ended, r.outcome, r.final,
	}
}

func (r *row) places() []any {
	return []any{
		&r.id, &r.kind, &r.owner, &r.retryOf, &r.key, &r.bodyHash, &r.created, &r.nodes, &r.limits, &r.spec,
		&r.priority, &r.notBefore, &r.maxAttempts, &r.state, &r.attempt, &r.why, &r.nextAt, &r.cancelBy, &r.started, &r.changed, &r.ended, &r.outcome, &r.final,
		&r.sum, &r.n,
	}
}

// proved returns the job of a row that was read, if it is what was written.
func (r *row) proved() (Job, error) {
	if r.sum != sum(r.values()...) {
		return Job{}, fmt.Errorf("%w: job %q is not what was written", ErrDamaged, r.id)
	}
	j := Job{
		ID: r.id, Kind: r.kind, Spec: r.spec, Owner: r.owner, RetryOf: r.retryOf, Key: r.key, BodyHash: r.bodyHash, Created: moment(r.created),
		Priority: int(r.priority), NotBefore: moment(r.notBefore), MaxAttempts: int(r.maxAttempts),
		State: State(r.state), Attempt: int(r.attempt), Why: r.why, NextAt: moment(r.nextAt), CancelBy: r.cancelBy,
		Started: moment(r.started), Changed: moment(r.changed), Ended: moment(r.ended), Outcome: api.Outcome(r.outcome),
	}
	if len(r.final) > 0 {
		j.Final = r.final
	}
	for _, list := range []struct {
		text  string
		names *[]string
	}{{r.nodes, &j.Nodes}, {r.limits, &j.Limits}} {
		if list.text == noNames {
			continue
		}
		if err := json.Unmarshal([]byte(list.text), list.names); err != nil {
			return Job{}, fmt.Errorf("%w: job %q: %w", ErrDamaged, r.id, err)
		}
	}
	return j, nil
}

// noNames is an empty list of names as it is stored; it is read as nil.
const noNames = "[]"

// rowOf is the row of a job.
func rowOf(j *Job) (*row, error) {
	r := &row{
		id: j.ID, kind: j.Kind, owner: j.Owner, retryOf: j.RetryOf, key: j.Key, bodyHash: j.BodyHash, created: micros(j.Created), spec: j.Spec,
	}
	for _, list := range []struct {
		names []string
		text  *string
	}{{j.Nodes, &r.nodes}, {j.Limits, &r.limits}} {
		b, err := json.Marshal(list.names)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrBadJob, err)
		}
		*list.text = string(b)
	}
	r.change(j)
	return r, nil
}

// change takes over what Update may change.
func (r *row) change(j *Job) {
	r.priority, r.notBefore, r.maxAttempts = int64(j.Priority), micros(j.NotBefore), int64(j.MaxAttempts)
	r.state, r.attempt, r.why, r.nextAt, r.cancelBy = string(j.State), int64(j.Attempt), j.Why, micros(j.NextAt), j.CancelBy
	r.started, r.changed, r.ended, r.outcome, r.final = micros(j.Started), micros(j.Changed), micros(j.Ended), string(j.Outcome), j.Final
	if r.final == nil {
		r.final = []byte{} // the column is never null
	}
}

// check says why a job cannot be stored.
func (j *Job) check() error {
	switch {
	case !api.ValidID(j.ID):
		return fmt.Errorf("%w: id %q is no UUIDv7", ErrBadJob, j.ID)
	case !slices.Contains(api.JobStates, j.State):
		return fmt.Errorf("%w: state %q", ErrBadJob, j.State)
	case j.State.Final() != !j.Ended.IsZero():
		return fmt.Errorf("%w: state %s, ended %v: a job has ended when its state is final", ErrBadJob, j.State, j.Ended)
	case !j.Spec.IsValid():
		return fmt.Errorf("%w: its spec is not JSON", ErrBadJob)
	case len(j.Spec) > api.MaxSpec:
		return fmt.Errorf("%w: a spec of %d bytes, %d are allowed", ErrBadJob, len(j.Spec), api.MaxSpec)
	}
	return nil
}

// Add stores a new job. Where its owner has used its key before, Add returns
// that job, and existed, or ErrKeyReused if it came with another body. State is
// Queued where it is empty, Created now where it is zero.
func (s *Store) Add(ctx context.Context, j Job) (_ Job, existed bool, err error) {
	if j.ID == "" {
		j.ID = api.NewID()
	}
	if j.State == "" {
		j.State = Queued
	}
	j.Changed = s.now()
	if j.Created.IsZero() {
		j.Created = j.Changed
	}
	if err := j.check(); err != nil {
		return Job{}, false, err
	}
	r, err := rowOf(&j)
	if err != nil {
		return Job{}, false, err
	}
	var found *row
	err = s.write(ctx, func(t *tx) error {
		found = nil
		if j.Key != "" {
			var old row
			if t.row(selectJob+"owner=? AND idem_key=? AND idem_key <> ''", []any{j.Owner, j.Key}, old.places()...) {
				found = &old
				return nil
			}
		}
		var n int64
		if t.row("SELECT n FROM jobs WHERE id=?", []any{j.ID}, &n) {
			return fmt.Errorf("%w: there is a job %s already", ErrBadJob, j.ID)
		}
		t.exec(insertJob, append(r.values(), sum(r.values()...))...)
		for _, node := range j.Nodes {
			t.exec("INSERT INTO job_nodes (node, id) VALUES (?, ?) ON CONFLICT DO NOTHING", node, j.ID)
		}
		return nil
	})
	if err != nil {
		return Job{}, false, fmt.Errorf("adding a job: %w", err)
	}
	if found == nil {
		found = r
		found.sum = sum(r.values()...)
	} else {
		existed = true
	}
	kept, err := found.proved()
	if err != nil {
		return Job{}, false, s.fail(err)
	}
	if existed && kept.BodyHash != j.BodyHash {
		return kept, true, fmt.Errorf("adding a job: %w: job %s has it", ErrKeyReused, kept.ID)
	}
	return kept, existed, nil
}

// keptRows is how many unfinished jobs the writer knows by heart: some 32 MiB.
const keptRows = 16 << 10

// keep remembers a row as it will be when the batch is committed; if it is not,
// the store is broken, and nothing is asked of it again.
func (t *tx) keep(r *row, ended bool) {
	if len(t.rows) >= keptRows {
		clear(t.rows) // those that change come back
	}
	if ended {
		delete(t.rows, r.id)
	} else {
		t.rows[r.id] = *r
	}
}

// Job returns a job, or ErrNotFound.
func (s *Store) Job(ctx context.Context, id string) (Job, error) {
	all, err := s.jobs(ctx, selectJob+"id=?", id)
	if err == nil && len(all) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return Job{}, fmt.Errorf("reading job %s: %w", id, err)
	}
	return all[0], nil
}

// ByKey returns the job that an owner submitted with an idempotency key, or
// ErrNotFound.
func (s *Store) ByKey(ctx context.Context, owner, key string) (Job, error) {
	all, err := s.jobs(ctx, selectJob+"owner=? AND idem_key=? AND idem_key <> ''", owner, key)
	if err == nil && len(all) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return Job{}, fmt.Errorf("reading the job of key %s: %w", key, err)
	}
	return all[0], nil
}

// jobs reads the jobs that a query selects.
func (s *Store) jobs(ctx context.Context, query string, args ...any) ([]Job, error) {
	var all []Job
	err := s.each(ctx, query, args, func(scan scanner) error {
		j, err := scanJob(scan)
		all = append(all, j)
		return err
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// scanJob reads the columns that selectJob selects.
func scanJob(scan scanner) (Job, error) {
	var r row
	if err := scan(r.places()...); err != nil {
		return Job{}, err
	}
	return r.proved()
}

// Update changes a job by fn, which gets it as it is and may be called again;
// no other change of the job comes between. What fn may not change stays as it
// was. An error of fn leaves the job alone and is returned. A job that has ended
// keeps its state, outcome and final: ErrEnded.
func (s *Store) Update(ctx context.Context, id string, fn func(*Job) error) (Job, error) {
	var out Job
	err := s.write(ctx, func(t *tx) error {
		r, known := t.rows[id]
		if !known && !t.row(selectJob+"id=?", []any{id}, r.places()...) {
			return ErrNotFound
		}
		old, err := r.proved()
		if err != nil {
			t.err = err
			return err
		}
		j := old
		if err := fn(&j); err != nil {
			return err
		}
		j.ID, j.Kind, j.Spec, j.Owner, j.Nodes, j.Limits = old.ID, old.Kind, old.Spec, old.Owner, old.Nodes, old.Limits
		j.RetryOf, j.Key, j.BodyHash, j.Created = old.RetryOf, old.Key, old.BodyHash, old.Created
		if j.Changed = s.now(); j.State.Final() && j.Ended.IsZero() {
			j.Ended = j.Changed
		}
		if old.State.Final() && (j.State != old.State || j.Outcome != old.Outcome || string(j.Final) != string(old.Final)) {
			return fmt.Errorf("%w: %s", ErrEnded, old.State)
		}
		if err := j.check(); err != nil {
			return err
		}
		r.change(&j)
		values := r.values()
		r.sum = sum(values...)
		t.exec(updateJob, append(append(make([]any, 0, len(values)), values[fixedColumns:]...), r.sum, r.n)...)
		t.keep(&r, j.State.Final())
		out = j
		return nil
	})
	if err != nil {
		return Job{}, fmt.Errorf("changing job %s: %w", id, err)
	}
	return out, nil
}
