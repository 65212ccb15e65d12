package master

import (
	"errors"
	"sync"
	"time"

	"gantry/client"
	"gantry/feedback"
	"gantry/job"
	"gantry/queue"
)

// Times of a watch.
const (
	// watchEvery is how often it is looked whether a job moves.
	watchEvery = 5 * time.Second
	// sampleEvery is how often progress goes into the history.
	sampleEvery = 10 * time.Second
)

// watch writes down in which state a driven job is: running, stalled when no
// byte has come for feedback.StalledAfter, unknown when no node can say.
type watch struct {
	d    *driving
	j    *job.Job
	wake chan struct{}
	quit chan struct{}
	done sync.WaitGroup

	state   queue.State // owned by the goroutine
	sampled time.Time   // likewise

	mu    sync.Mutex
	heard time.Time // guarded by mu; the last record of any task
	moved time.Time // guarded by mu; the last stored one
	why   error     // guarded by mu; nil, or why the outcome is unknown
	node  string    // guarded by mu; the one that does not say
}

func (m *Master) watch(d *driving, j *job.Job) *watch {
	m.mu.Lock()
	state, why := d.e.job.State, d.e.job.Why
	m.mu.Unlock()
	now := time.Now()
	w := &watch{
		d: d, j: j, wake: make(chan struct{}, 1), quit: make(chan struct{}), state: state, sampled: now, heard: now, moved: now,
	}
	if state == queue.Unknown {
		w.why, w.node = errors.New(why), d.info.Main().Node // until it answers
	}
	w.done.Go(w.run)
	return w
}

// hear is told of each record of a task.
func (w *watch) hear(node string, rec feedback.Record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.heard = time.Now()
	if rec.Kind.Stored() {
		w.moved = w.heard
	}
	if w.why != nil && node == w.node && !rec.Kind.Final() {
		w.why = nil // it is there again
		w.poke()
	}
}

// lost says that no node can say what became of the attempt.
func (w *watch) lost(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.why, w.node = err, w.d.info.Main().Node
	if e, ok := errors.AsType[*client.UnknownError](err); ok {
		w.node = e.Node
	}
	w.poke()
}

func (w *watch) lastHeard() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.heard
}

func (w *watch) poke() {
	select {
	case w.wake <- struct{}{}:
	default: // it was told
	}
}

// stop ends the watch and waits for it.
func (w *watch) stop() {
	close(w.quit)
	w.done.Wait()
}

func (w *watch) run() {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for {
		select {
		case <-w.quit:
			return
		case <-w.d.m.ctx.Done():
			return
		case <-ticker.C:
		case <-w.wake:
		}
		if err := w.look(time.Now()); err != nil {
			if w.d.m.ctx.Err() == nil {
				w.d.m.fail(err)
			}
			return
		}
	}
}

// look writes a change of state down, and a sample when it is time.
func (w *watch) look(now time.Time) error {
	items := w.j.Progress()
	if now.Sub(w.sampled) >= sampleEvery {
		w.sampled = now
		for k := range items {
			line, err := feedback.Encode(feedback.Record{Kind: feedback.KindProgress, Body: &items[k]})
			if err == nil {
				err = w.d.m.o.Store.AddSample(w.d.e.id, now, line)
			}
			if err != nil {
				return err
			}
		}
	}
	state, why := w.judge(items, now)
	if state == w.state {
		return nil
	}
	w.state = state
	return w.d.state(state, why, nil)
}

// judge says in which state the job is.
func (w *watch) judge(items []feedback.Progress, now time.Time) (queue.State, string) {
	w.mu.Lock()
	heard, moved, unknown := w.heard, w.moved, w.why
	w.mu.Unlock()
	if unknown != nil {
		return queue.Unknown, unknown.Error()
	}
	why := ""
	for k := range items {
		p := &items[k]
		if p.Stalled == 0 && !(p.TotalIs == feedback.TotalExact && p.Done == p.Total) {
			return queue.Running, ""
		}
		if p.Stalled > 0 && why == "" {
			why = p.Item + ": " + p.Why
		}
	}
	switch {
	case why != "" && now.Sub(moved) >= feedback.StalledAfter:
		return queue.Stalled, why
	case now.Sub(heard) >= feedback.StalledAfter:
		return queue.Stalled, feedback.WhyNode
	}
	return queue.Running, ""
}

// Progress returns the newest values of a job's items; none of a job that is not
// driven by this master now.
func (m *Master) Progress(id string) []feedback.Progress {
	m.mu.Lock()
	e := m.entries[id]
	driven := e != nil && e.running
	m.mu.Unlock()
	if !driven {
		return nil
	}
	feed, release, err := m.feeds.use(id)
	if err != nil {
		return nil
	}
	defer release()
	return feed.Progress()
}

var _ job.Keeper = (*driving)(nil)
var _ Store = (*queue.Store)(nil)
