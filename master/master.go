package master

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	"gantry/api"
	"gantry/client"
	"gantry/feedback"
	"gantry/job"
	"gantry/queue"
)

// Store is what the scheduler needs of *queue.Store.
type Store interface {
	Add(ctx context.Context, j queue.Job) (_ queue.Job, existed bool, err error)
	Job(ctx context.Context, id string) (queue.Job, error)
	Unfinished(ctx context.Context) ([]queue.Job, error)
	Update(ctx context.Context, id string, fn func(*queue.Job) error) (queue.Job, error)
	SaveAttempt(ctx context.Context, a queue.Attempt) error
	Attempts(ctx context.Context, job string) ([]queue.Attempt, error)
	Journal(job string) feedback.Journal
	AddSample(job string, at time.Time, line []byte) error
}

// Options of New.
type Options struct {
	Store Store
	// Node returns a client of a node of the cluster; it stays the caller's.
	// Its Follow should give up after a minute or so without a record, so that
	// a job is called unknown by then; it is asked about again and again.
	Node func(name string) (job.Node, error)
	// Client and Lean are those of job.Driver, for comparisons and calls; nil:
	// such jobs are refused.
	Client, Lean func(name string) (*client.Client, error)
	// Slots is how many jobs run at a time on a node, by name; DefaultSlots is
	// for the others, 0: this machine's cores × 3/2.
	Slots        map[string]int
	DefaultSlots int
	// Limits are the named limits: how many jobs that name one run at a time.
	Limits map[string]int
	// RetryAfter is the pause before a second attempt, doubled for each
	// further one up to MaxRetryAfter; 0: 10 s and 10 min.
	RetryAfter, MaxRetryAfter time.Duration
	// OnBroken is called once, when the store failed and the master can do
	// nothing more: the process should end, and start again. It must not call
	// Close, which waits for the caller.
	OnBroken func(error)
	// Permit says whether a job of an owner may begin an attempt, as a wire error
	// with which it ends; nil: every one may.
	Permit func(owner string, spec job.Spec) error
	// OnEnd is told of every job that has ended, as it is on disk; nil: nobody.
	OnEnd func(queue.Job)
	Log   *slog.Logger // nil: nothing

	random  func() float64 // in [0, 1); tests give their own
	planted string         // the bug that a test plants
}

// Errors that callers branch on, beside those of package queue.
var (
	// ErrUnfinished: the job has not ended, so it cannot be tried again.
	ErrUnfinished = errors.New("the job has not ended")
	// ErrClosed: the master was closed, or has lost its store.
	ErrClosed = errors.New("the master is stopping")
)

// Times of a master.
const (
	retryAfter    = 10 * time.Second
	maxRetryAfter = 10 * time.Minute
	// askAfter is the pause before nodes are asked again what became of a task,
	// doubled up to maxAskAfter.
	askAfter    = 2 * time.Second
	maxAskAfter = 5 * time.Minute
)

// Master is a scheduler. Its methods may be called from several goroutines.
type Master struct {
	// config
	o     Options
	log   *slog.Logger
	feeds feeds

	ctx   context.Context // of everything that runs; ends by drain, Close or a broken store
	leave context.CancelCauseFunc
	work  sync.WaitGroup
	kick  chan struct{} // tells the scheduler that something changed

	mu        sync.Mutex
	entries   map[string]*entry    // guarded by mu; the jobs that have not ended
	waiting   []*entry             // guarded by mu; those that wait for a start, the first to start first
	resources map[string]*resource // guarded by mu
	told      []*entry             // guarded by mu; those with a reason to be written down
	tells     chan struct{}        // tells the explainers that there are some
	pass      int                  // guarded by mu
	draining  bool                 // guarded by mu; nothing starts any more
	broken    error                // guarded by mu
}

// entry is a job that has not ended.
type entry struct {
	id     string
	spec   job.Spec
	cancel chan struct{} // closed when somebody asked to cancel it
	// ctx ends with the master, or when somebody gives up asking what became of
	// the job; the cause says which.
	ctx    context.Context
	giveUp context.CancelCauseFunc

	// guarded by Master.mu
	job       queue.Job // as it was stored last
	needs     []*resource
	due       time.Time     // not before
	open      bool          // it has an attempt that may run
	running   bool          // a goroutine drives it
	cancelled bool          // cancel is closed
	givenUp   bool          // it is being abandoned: it stays unknown until it has ended
	lack      string        // what it waited for at the last look
	reason    string        // to be written down; "": nothing
	telling   bool          // reason is being written down
	passed    bool          // a look has left it out for that
	ended     chan struct{} // closed when the job has ended, or never was

	driver driver // of a job with a local side

	retries int // pauses in a row that were no attempts; whoever drives it has it
}

// New takes up the jobs of a store and starts the scheduler: what ran goes on
// first. The context is for reading the store only.
func New(ctx context.Context, o Options) (*Master, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.random == nil {
		o.random = rand.Float64
	}
	o.RetryAfter = cmp.Or(o.RetryAfter, retryAfter)
	o.MaxRetryAfter = max(cmp.Or(o.MaxRetryAfter, maxRetryAfter), o.RetryAfter)
	if o.DefaultSlots < 1 {
		o.DefaultSlots = max(1, runtime.NumCPU()*3/2)
	}
	m := &Master{o: o, log: o.Log, kick: make(chan struct{}, 1), tells: make(chan struct{}, 1), entries: map[string]*entry{}, resources: map[string]*resource{}}
	m.feeds = feeds{store: o.Store, broken: m.fail, open: map[string]*openFeed{}}
	m.ctx, m.leave = context.WithCancelCause(context.Background())
	jobs, err := o.Store.Unfinished(ctx)
	if err != nil {
		return nil, fmt.Errorf("taking up jobs: %w", err)
	}
	for _, j := range jobs {
		var spec job.Spec
		if err := api.DecodeBytes(j.Spec, &spec); err != nil {
			return nil, fmt.Errorf("taking up job %s: %w", j.ID, err)
		}
		m.takeUp(m.newEntry(j.ID, spec), j)
	}
	m.work.Go(m.watchDrivers)
	m.work.Go(m.schedule)
	for range explainers {
		m.work.Go(m.explain)
	}
	return m, nil
}

func (m *Master) newEntry(id string, spec job.Spec) *entry {
	e := &entry{id: id, spec: spec, cancel: make(chan struct{}), ended: make(chan struct{})}
	e.ctx, e.giveUp = context.WithCancelCause(m.ctx)
	return e
}

// takeUp has a job of the store wait for its start.
func (m *Master) takeUp(e *entry, j queue.Job) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.entries[e.id] = e
	e.job = j
	switch j.State {
	case queue.Running, queue.Stalled, queue.Unknown:
		e.open = true
	case queue.Waiting:
		e.due = j.NextAt
	default:
		e.due = j.NotBefore
	}
	if j.CancelBy != "" {
		e.end()
	}
	if !e.spec.Driven() {
		e.driver.heard(time.Now()) // he has that long to come back
		return
	}
	e.needs = m.needs(e)
	m.enqueue(e)
}

// end says that somebody asked to cancel the job; mu is held.
func (e *entry) end() {
	if !e.cancelled {
		e.cancelled = true
		close(e.cancel)
	}
}

// Submit stores a new job, and returns it as it is on disk: it will run. A
// second one with the same owner and key is the first (existed), or
// queue.ErrKeyReused. Kind and Nodes are taken from the spec. A job with a local
// side is running from the start: its owner drives it.
func (m *Master) Submit(ctx context.Context, j queue.Job) (_ queue.Job, existed bool, err error) {
	var spec job.Spec
	if err := api.DecodeBytes(j.Spec, &spec); err != nil {
		return queue.Job{}, false, api.BadSpec.Err(err.Error())
	}
	if err := spec.Check(); err != nil {
		return queue.Job{}, false, api.BadSpec.Err(err.Error())
	}
	if spec.Kind == job.Verify && spec.Driven() && m.o.Client == nil || spec.Kind == job.Call && m.o.Lean == nil {
		return queue.Job{}, false, api.BadSpec.Err("this master runs no job of kind " + spec.Kind)
	}
	for _, name := range j.Limits {
		if _, ok := m.o.Limits[name]; !ok {
			return queue.Job{}, false, api.BadSpec.Err(fmt.Sprintf("limits: there is no limit %q in the master's configuration", name))
		}
	}
	j.Kind, j.Nodes = spec.Kind, spec.Nodes()
	j.State, j.ID = queue.Queued, cmp.Or(j.ID, api.NewID())
	if !spec.Driven() {
		j.State, j.Started = queue.Running, time.Now().UTC()
	}
	if j.MaxAttempts == 0 {
		j.MaxAttempts = api.DefaultTries
	}
	if err := m.alive(); err != nil {
		return queue.Job{}, false, err
	}
	// Who lists jobs may cancel it as soon as it is stored.
	e := m.newEntry(j.ID, spec)
	m.mu.Lock()
	if m.entries[e.id] == nil { // its driver may name a job twice
		m.entries[e.id] = e
	}
	m.mu.Unlock()
	kept, existed, err := m.o.Store.Add(ctx, j)
	if err != nil || existed {
		m.forget(e)
		return kept, existed, err
	}
	m.takeUp(e, kept)
	return kept, false, nil
}

// forget drops a job that has ended, or never was.
func (m *Master) forget(e *entry) {
	e.giveUp(nil)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.entries[e.id] == e {
		delete(m.entries, e.id)
		close(e.ended)
	}
}

// alive says why nothing can be asked of the master.
func (m *Master) alive() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken != nil {
		return fmt.Errorf("%w: %w", ErrClosed, m.broken)
	}
	if m.draining {
		return ErrClosed
	}
	return nil
}

// Cancel asks for the end of a job, for good when it returns nil. One that has
// begun nothing ends at once, before Cancel returns; a running one is cancelled
// when its node says so, and may still end otherwise. queue.ErrEnded if it has
// ended, queue.ErrNotFound if there is none.
func (m *Master) Cancel(ctx context.Context, id, by string) error {
	if err := m.alive(); err != nil {
		return err
	}
	j, err := m.o.Store.Update(ctx, id, func(j *queue.Job) error {
		if j.State.Final() {
			return queue.ErrEnded
		}
		j.CancelBy = cmp.Or(j.CancelBy, by)
		return nil
	})
	if err != nil {
		return err
	}
	m.mu.Lock()
	e := m.entries[id]
	if e == nil {
		m.mu.Unlock()
		return nil // it ended meanwhile
	}
	e.job.CancelBy = j.CancelBy
	e.end()
	wait := !e.open && e.spec.Driven()
	m.mu.Unlock()
	m.wake()
	if !wait {
		return nil
	}
	select {
	case <-e.ended:
		return nil
	case <-m.ctx.Done():
		return nil // it is written down; the next process ends it
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Feed returns a job's feed until release is called, or Close.
func (m *Master) Feed(id string) (feed *feedback.Feed, release func(), err error) {
	return m.feeds.use(id)
}

// Drain ends the driving of jobs and returns when nothing is driven any more:
// tasks go on at their nodes, and the next master goes on with them. Nothing
// starts afterwards. Feeds can still be watched.
func (m *Master) Drain() {
	m.mu.Lock()
	m.draining = true
	m.mu.Unlock()
	m.leave(job.ErrLeft)
	m.work.Wait()
}

// Close drains the master and closes its feeds, also for those that watch. The
// store stays the caller's. It returns why the master broke, if it did.
func (m *Master) Close() error {
	m.Drain()
	m.feeds.close()
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.broken
}

// fail ends everything: the store failed, or a feed in it.
func (m *Master) fail(err error) {
	m.mu.Lock()
	first := m.broken == nil
	if first {
		m.broken = err
	}
	m.mu.Unlock()
	m.leave(err)
	if first {
		m.log.Error("the store failed", "err", err)
		if m.o.OnBroken != nil {
			m.o.OnBroken(err)
		}
	}
}
