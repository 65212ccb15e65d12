package master

import (
	"cmp"
	"context"
	"slices"
	"time"

	"gantry/queue"
)

// resource is what jobs share: the slots of a node, or a named limit.
type resource struct {
	what string // for people
	max  int
	used int
	held int // of this pass: kept for jobs that go first
	pass int // the one that held is of
	head int // the pass in which somebody has waited for it already
}

// free reports whether a job may take one.
func (r *resource) free(pass int) bool {
	if r.pass != pass {
		r.pass, r.held = pass, 0
	}
	return r.used+r.held < r.max
}

// needs are the resources of a job; mu is held.
func (m *Master) needs(e *entry) []*resource {
	var all []*resource
	for _, node := range e.spec.Slots() {
		slots, ok := m.o.Slots[node]
		if !ok {
			slots = m.o.DefaultSlots
		}
		all = append(all, m.resource("node "+node, "a slot of "+node, slots))
	}
	for _, limit := range e.job.Limits {
		// A limit that left the configuration holds nobody up.
		if size, ok := m.o.Limits[limit]; ok {
			all = append(all, m.resource("limit "+limit, "limit "+limit, size))
		}
	}
	return all
}

func (m *Master) resource(key, what string, size int) *resource {
	r := m.resources[key]
	if r == nil {
		r = &resource{what: what, max: max(1, size)}
		m.resources[key] = r
	}
	return r
}

// SetSlots changes how many jobs run at a time on a node, from now on: what is
// over it goes on.
func (m *Master) SetSlots(node string, n int) {
	m.mu.Lock()
	m.resource("node "+node, "a slot of "+node, n).max = max(1, n)
	m.mu.Unlock()
	m.wake()
}

// Slots returns how many jobs may run on a node at a time, and how many do.
func (m *Master) Slots(node string) (n, used int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.resources["node "+node]; r != nil {
		return r.max, r.used
	}
	if n, ok := m.o.Slots[node]; ok {
		return n, 0
	}
	return m.o.DefaultSlots, 0
}

// before is the order of starts: what goes on, then by priority, then by age.
func before(a, b *entry) int {
	switch {
	case a.open != b.open && a.open:
		return -1
	case a.open != b.open:
		return 1
	}
	return cmp.Or(cmp.Compare(b.job.Priority, a.job.Priority), a.job.Created.Compare(b.job.Created), cmp.Compare(a.id, b.id))
}

// enqueue lets a job wait for its start; mu is held.
func (m *Master) enqueue(e *entry) {
	k, _ := slices.BinarySearchFunc(m.waiting, e, before)
	m.waiting = slices.Insert(m.waiting, k, e)
	m.wake()
}

// wake has the scheduler look.
func (m *Master) wake() {
	select {
	case m.kick <- struct{}{}:
	default: // it was told
	}
}

// schedule starts what can start, until the master leaves.
func (m *Master) schedule() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-m.kick:
		case <-timer.C:
		}
		if next := m.look(time.Now()); !next.IsZero() {
			timer.Reset(time.Until(next))
		}
	}
}

// look goes through what waits, once, and returns when the next job is due;
// zero: none will be by itself.
//
// A job that finds a resource taken is the head of its line: what else it needs
// is kept for it, so that smaller jobs behind it cannot keep it waiting for
// ever. Those behind it in the same line hold nothing.
func (m *Master) look(now time.Time) (next time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx.Err() != nil || m.draining {
		return next
	}
	m.pass++
	kept := m.waiting[:0]
	for _, e := range m.waiting {
		switch {
		case e.telling: // what was decided is in the feed before what follows
			e.passed = true
		case e.cancelled && !e.open:
			m.start(e, false) // it only has to be written down
			continue
		case e.due.After(now) && !e.open:
			if next.IsZero() || e.due.Before(next) {
				next = e.due
			}
			if e.job.State == queue.Queued {
				m.tell(e, "", "not before "+e.due.UTC().Format(time.RFC3339))
			}
		case e.open || m.fits(e):
			m.start(e, true)
			continue
		}
		kept = append(kept, e)
	}
	clear(m.waiting[len(kept):])
	m.waiting = kept
	return next
}

// fits reports whether everything that e needs is free; mu is held.
func (m *Master) fits(e *entry) bool {
	var lack *resource
	sticks := false // what it waited for at the last look is still taken
	for _, r := range e.needs {
		if !r.free(m.pass) {
			lack = cmp.Or(lack, r)
			sticks = sticks || r.what == e.lack
		}
	}
	if lack == nil {
		return true
	}
	if lack.head != m.pass {
		lack.head = m.pass
		for _, r := range e.needs {
			if r.free(m.pass) {
				r.held++
			}
		}
	}
	if !sticks {
		m.tell(e, lack.what, "waiting for "+lack.what)
	}
	return false
}

// start has a goroutine drive e; mu is held.
func (m *Master) start(e *entry, slots bool) {
	e.running, e.lack, e.reason = true, "", ""
	var taken []*resource
	if slots {
		taken = e.needs
	}
	for _, r := range taken {
		r.used++
	}
	m.work.Go(func() {
		again := m.drive(e)
		m.mu.Lock()
		for _, r := range taken {
			r.used--
		}
		e.running = false
		if again {
			m.enqueue(e)
		}
		m.mu.Unlock()
		m.wake()
	})
}

// explainers write reasons down: so many that they share commits.
const explainers = 64

// tell has a decision about a waiting job written into its feed, if it is
// another than the last; mu is held.
func (m *Master) tell(e *entry, lack, reason string) {
	e.lack = lack
	if e.reason == reason || e.reason == "" && e.job.Why == reason {
		return
	}
	if e.reason == "" {
		m.told = append(m.told, e)
		m.wakeExplainers()
	}
	e.reason = reason
}

func (m *Master) wakeExplainers() {
	select {
	case m.tells <- struct{}{}:
	default: // they were told
	}
}

// explain writes reasons into feeds and rows until the master leaves.
func (m *Master) explain() {
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-m.tells:
		}
		for {
			e, reason, more := m.toTell()
			if e == nil {
				break
			}
			if more {
				m.wakeExplainers()
			}
			if err := m.write(e, reason); err != nil {
				m.fail(err)
				return
			}
			m.mu.Lock()
			passed := e.passed
			e.telling, e.passed = false, false
			m.mu.Unlock()
			if passed {
				m.wake()
			}
		}
	}
}

// toTell takes the next reason that still counts.
func (m *Master) toTell() (e *entry, reason string, more bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.told) > 0 && m.ctx.Err() == nil {
		e, m.told = m.told[0], m.told[1:]
		if reason, e.reason = e.reason, ""; reason == "" || e.running {
			continue // it was started meanwhile
		}
		e.telling = true
		return e, reason, len(m.told) > 0
	}
	return nil, "", false
}

// write makes a decision durable: for people in the feed, for lists in the row.
func (m *Master) write(e *entry, reason string) error {
	feed, release, err := m.feeds.use(e.id)
	if err != nil {
		return err
	}
	feed.Log("info", "", reason)
	release() // which waits for the disk
	j, err := m.o.Store.Update(context.Background(), e.id, func(j *queue.Job) error {
		if j.State == queue.Queued {
			j.Why = reason
		}
		return nil
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil {
		e.job = j
	}
	return err
}
