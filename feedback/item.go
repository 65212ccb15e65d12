package feedback

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// MaxItems bounds the items of a feed that are shown at a time; a tree of a
// million files has one item, not a million. Further ones count, but are not
// shown.
const MaxItems = 1024

// endedItems is how many items that ended since its last look a stream still
// shows the last value of.
const endedItems = 64

// An Item counts the progress of one thing. Its methods may be called from
// several goroutines; each count costs one atomic operation.
type Item struct {
	name, unit string
	feed       *Feed

	done     atomic.Int64
	came     atomic.Int64 // bytes that are not done yet, or never will be
	proved   atomic.Int64
	durable  atomic.Int64
	total    atomic.Int64 // -1: unknown
	estimate atomic.Bool  // the total is one

	mu      sync.Mutex
	phase   string        // guarded by mu
	samples []sample      // guarded by mu; what the rate is taken from, oldest first
	seen    int64         // guarded by mu; all counts together, when value looked last
	moved   time.Time     // guarded by mu; the last look that found them changed
	explain func() string // guarded by mu; nil, or says what it waits for
	ended   bool          // guarded by mu
}

type sample struct {
	at   time.Time
	done int64
}

// The rate is taken over rateWindow, from samples at least sampleEvery apart,
// and over at least rateSteps changes: where a step is a piece of 4 MiB on a slow
// line, one step in the window says little.
const (
	rateWindow  = 10 * time.Second
	sampleEvery = rateWindow / 10
	rateSteps   = 4
	// StalledAfter is how long nothing moves before an item is called stalled.
	StalledAfter = 30 * time.Second
)

// Item returns the counters of one more item; total is -1 when unknown. Name,
// phase and unit are short texts for people (unit: "bytes", "files"). End it.
func (f *Feed) Item(name, phase, unit string, total int64) *Item {
	i := &Item{name: fit(name, maxName), unit: fit(unit, maxShort), phase: fit(phase, maxShort), feed: f}
	i.total.Store(max(total, -1))
	i.moved = time.Now()
	i.samples = []sample{{i.moved, 0}}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.items) < MaxItems && f.state() == nil {
		f.items = append(f.items, i)
		f.notify()
	}
	return i
}

// Add adds n units to what is done.
func (i *Item) Add(n int64) { i.done.Add(n) }

// Carry adds n units that cost no time, such as what an earlier attempt left:
// they do not count in the rate.
func (i *Item) Carry(n int64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.done.Add(n)
	for k := range i.samples {
		i.samples[k].done += n
	}
}

// Set sets what is done.
func (i *Item) Set(done int64) { i.done.Store(max(done, 0)) }

// Came counts bytes that came and are not done yet: while they do, the item is
// not stalled.
func (i *Item) Came(n int64) { i.came.Add(n) }

// Proved counts units whose content is proved, in memory at least.
func (i *Item) Proved(n int64) { i.proved.Add(n) }

// Durable counts units that are known to be on disk.
func (i *Item) Durable(n int64) { i.durable.Add(n) }

// SetTotal sets the total, which is exact; -1 is unknown.
func (i *Item) SetTotal(total int64) {
	i.estimate.Store(false)
	i.total.Store(max(total, -1))
}

// Estimate sets a total that may still change.
func (i *Item) Estimate(total int64) {
	i.estimate.Store(true)
	i.total.Store(max(total, -1))
}

// Explain sets what says, when the item is stalled, what it waits for: one of the
// Why texts, or "". It is called from any goroutine, without locks of the item, and must
// not wait.
func (i *Item) Explain(why func() string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.explain = why
}

// Mirror takes over what another feed says about the same thing. Readers see it
// at once: it has waited for a tick there already.
func (i *Item) Mirror(p *Progress) {
	i.takeOver(p)
	i.feed.mu.Lock()
	defer i.feed.mu.Unlock()
	i.feed.mirrored++
	i.feed.notify()
}

func (i *Item) takeOver(p *Progress) {
	i.Set(p.Done)
	i.proved.Store(p.Proved)
	i.durable.Store(p.Durable)
	i.estimate.Store(p.TotalIs == TotalEstimate)
	i.total.Store(max(p.Total, -1))
	i.mu.Lock()
	defer i.mu.Unlock()
	i.look(time.Now())
	// Without Stalled something moves there, even if no count that is sent says so.
	i.moved = time.Now().Add(-time.Duration(min(max(p.Stalled, 0), maxETA)) * time.Second)
}

// SetPhase names what is being done now; the rate starts afresh.
func (i *Item) SetPhase(phase string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.phase = fit(phase, maxShort)
	i.moved = time.Now()
	i.samples = append(i.samples[:0], sample{i.moved, i.done.Load()})
}

// End takes the item out, once streams have shown its last value. A second
// call does nothing.
func (i *Item) End() {
	i.mu.Lock()
	was := i.ended
	i.ended = true
	i.mu.Unlock()
	if !was {
		i.feed.endItem(i)
	}
}

// endItem moves i to the short list of those that ended.
func (f *Feed) endItem(i *Item) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for k, other := range f.items {
		if other == i {
			f.items = append(f.items[:k:k], f.items[k+1:]...)
			f.ended = append(f.ended, i)
			if len(f.ended) > endedItems {
				f.ended = append([]*Item(nil), f.ended[len(f.ended)-endedItems:]...)
			}
			f.endedCount++
			return
		}
	}
}

// look notes whether anything moved since the last look, and returns for how long
// nothing has; mu is held. Nobody notes the time of each count, so what nobody
// looked at for a while counts from the look.
func (i *Item) look(now time.Time) (still time.Duration) {
	seen := i.done.Load() + i.came.Load() + i.proved.Load() + i.durable.Load()
	if seen != i.seen {
		if now.Sub(i.moved) >= StalledAfter {
			i.samples = i.samples[len(i.samples)-1:] // the pause is no speed
			i.samples[0].at = now
		}
		i.seen, i.moved = seen, now
	}
	return now.Sub(i.moved)
}

// Progress returns the newest values of the items that did not end.
func (f *Feed) Progress() []Progress {
	f.mu.Lock()
	items := f.items[:len(f.items):len(f.items)]
	f.mu.Unlock()
	now := time.Now()
	values := make([]Progress, len(items))
	for k, i := range items {
		values[k] = i.value(now)
	}
	return values
}

// value returns the newest value.
func (i *Item) value(now time.Time) Progress {
	p, why := i.measure(now)
	if why != nil { // without mu: it may take locks under which counts are set
		p.Why = fit(why(), maxName)
	}
	return p
}

// measure is value, and what explains it if it is stalled.
func (i *Item) measure(now time.Time) (p Progress, why func() string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	p = Progress{Item: i.name, Phase: i.phase, Unit: i.unit, Done: max(i.done.Load(), 0), Total: i.total.Load(), ETA: -1}
	p.Proved, p.Durable = max(i.proved.Load(), 0), min(max(i.durable.Load(), 0), p.Done)
	if p.Done > p.Total {
		p.Total = -1 // it grew: better no total than a wrong one
	}
	switch {
	case p.Total < 0:
		p.TotalIs = TotalUnknown
	case i.estimate.Load():
		p.TotalIs = TotalEstimate
	default:
		p.TotalIs = TotalExact
	}
	still := i.look(now)
	if p.TotalIs == TotalExact && p.Done == p.Total {
		still = 0 // there is nothing to wait for
	}
	i.speed(&p, now)
	if still >= StalledAfter {
		p.Stalled, p.Rate, p.ETA = int64(still/time.Second), 0, -1
		return p, i.explain
	}
	return p, nil
}

// speed states rate and time left; mu is held.
func (i *Item) speed(p *Progress, now time.Time) {
	// The oldest sample is the first one outside the window, so that an item
	// nobody looked at for a while has a rate at once.
	for len(i.samples) > rateSteps && now.Sub(i.samples[1].at) >= rateWindow {
		i.samples = i.samples[1:]
	}
	if d := now.Sub(i.samples[0].at).Seconds(); d > 0 && p.Done > i.samples[0].done {
		p.Rate = math.Round(float64(p.Done-i.samples[0].done)/d*10) / 10
	}
	if newest := i.samples[len(i.samples)-1]; now.Sub(newest.at) >= sampleEvery && p.Done != newest.done {
		i.samples = append(i.samples, sample{now, p.Done})
	}
	if eta := math.Ceil(float64(p.Total-p.Done) / p.Rate); p.Total >= 0 && p.Rate > 0 && eta < maxETA {
		p.ETA = int64(eta)
	}
}

// maxETA is where an estimate stops meaning anything, in seconds: a year.
const maxETA = 365 * 24 * 3600
