package master

import (
	"fmt"
	"sync"
	"time"

	"gantry/api"
	"gantry/feedback"
	"gantry/job"
	"gantry/queue"
)

// driverEvery is how often it is looked whether drivers still report.
const driverEvery = api.DriverSilence / 12

// driver is what a master knows of whoever drives a job with a local side: a
// command line, which reports what it does.
type driver struct {
	mu      sync.Mutex                // one report at a time
	feed    *feedback.Feed            // guarded by mu; nil while nobody reports
	release func()                    // guarded by mu
	items   map[moving]*feedback.Item // guarded by mu

	seenMu sync.Mutex
	seen   time.Time // guarded by seenMu; the last report
}

// moving is what moves at a driver's side; one thing may be in two phases at once.
type moving struct{ item, phase string }

func (d *driver) heard(at time.Time) {
	d.seenMu.Lock()
	defer d.seenMu.Unlock()
	d.seen = at
}

func (d *driver) lastHeard() time.Time {
	d.seenMu.Lock()
	defer d.seenMu.Unlock()
	return d.seen
}

// leave gives the feed up; d.mu is held.
func (d *driver) leave() {
	if d.feed == nil {
		return
	}
	for _, item := range d.items {
		item.End()
	}
	d.release()
	d.feed, d.release, d.items = nil, nil, nil
}

// mirror shows what moves at the driver's side; d.mu is held.
func (d *driver) mirror(items []feedback.Progress) {
	now := map[moving]bool{}
	for k := range items {
		p := &items[k]
		what := moving{p.Item, p.Phase}
		now[what] = true
		item := d.items[what]
		if item == nil {
			item = d.feed.Item(p.Item, p.Phase, p.Unit, p.Total)
			item.Carry(p.Done) // what is there when it is first seen has cost no time here
			d.items[what] = item
		}
		why := p.Why
		item.Explain(func() string { return why })
		item.Mirror(p)
	}
	for what, item := range d.items {
		if !now[what] {
			item.End()
			delete(d.items, what)
		}
	}
}

// hears notes that the driver of e lives; e.driver.mu is held.
func (m *Master) hears(e *entry) error {
	e.driver.heard(time.Now())
	m.mu.Lock()
	j := e.job
	m.mu.Unlock()
	first := false
	if e.driver.feed == nil {
		feed, release, err := m.feeds.use(e.id)
		if err != nil {
			return err
		}
		e.driver.feed, e.driver.release = feed, release
		e.driver.items = map[moving]*feedback.Item{}
		first = feed.Last() == 0
	}
	d := &driving{m: m, e: e, feed: e.driver.feed}
	if _, over := d.feed.Final(); over {
		return nil
	}
	switch {
	case first:
		d.feed.Log("info", "", "driven by "+j.Owner+", not by this master, which keeps what is reported")
		return d.state(queue.Running, "", nil)
	case j.State == queue.Unknown:
		return d.state(queue.Running, "", nil)
	}
	return nil
}

// watchDrivers calls jobs unknown whose driver reports no more, until the master
// leaves. First it writes the row of each whose final record was stored just
// before a crash.
func (m *Master) watchDrivers() {
	tick := time.NewTicker(driverEvery)
	defer tick.Stop()
	for look := m.settleDriven; ; look = m.lookAfter {
		for _, e := range m.outside() {
			if m.ctx.Err() != nil {
				break
			}
			if err := look(e); err != nil && m.ctx.Err() == nil {
				m.fail(fmt.Errorf("looking after job %s: %w", e.id, err))
			}
		}
		select {
		case <-tick.C:
		case <-m.ctx.Done():
			for _, e := range m.outside() {
				e.driver.mu.Lock()
				e.driver.leave()
				e.driver.mu.Unlock()
			}
			return
		}
	}
}

// outside lists the jobs that others drive.
func (m *Master) outside() []*entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []*entry
	for _, e := range m.entries {
		if !e.spec.Driven() {
			list = append(list, e)
		}
	}
	return list
}

func (m *Master) settleDriven(e *entry) error {
	e.driver.mu.Lock()
	defer e.driver.mu.Unlock()
	feed, release, err := m.feeds.use(e.id)
	if err != nil {
		return err
	}
	defer release()
	if _, over := feed.Final(); !over {
		return nil
	}
	e.driver.leave()
	return (&driving{m: m, e: e, feed: feed}).settle()
}

// lookAfter calls a job unknown whose driver has been silent for too long.
func (m *Master) lookAfter(e *entry) error {
	e.driver.mu.Lock()
	defer e.driver.mu.Unlock()
	m.mu.Lock()
	j := e.job
	m.mu.Unlock()
	seen := e.driver.lastHeard()
	if j.State != queue.Running || time.Since(seen) < api.DriverSilence {
		return nil
	}
	e.driver.leave()
	feed, release, err := m.feeds.use(e.id)
	if err != nil {
		return err
	}
	defer release()
	if _, over := feed.Final(); over {
		return nil // it is being settled, or has been
	}
	why := fmt.Sprintf("%s, who drives it, has not reported since %s; the same command there goes on with it", j.Owner, seen.UTC().Format(time.RFC3339))
	return (&driving{m: m, e: e, feed: feed}).state(queue.Unknown, why, nil)
}

// driverOf is who drives a job from outside; "": the master drives it.
func driverOf(j queue.Job) string {
	var spec struct {
		Local string `json:"local"`
	}
	switch j.Kind {
	case job.Export, job.Import, job.Verify: // others have no local side
		if loosely(j.Spec, &spec) == nil && spec.Local != "" {
			return j.Owner
		}
	}
	return ""
}
