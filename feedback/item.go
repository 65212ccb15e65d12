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
// several goroutines; Add costs one atomic operation.
type Item struct {
	name, unit string
	feed       *Feed

	done  atomic.Int64
	total atomic.Int64 // -1: unknown

	mu      sync.Mutex
	phase   string   // guarded by mu
	samples []sample // guarded by mu; what the rate is taken from, oldest first
	ended   bool     // guarded by mu
}

type sample struct {
	at   time.Time
	done int64
}

// The rate is taken over rateWindow, from samples at least sampleEvery apart.
const (
	rateWindow  = 5 * time.Second
	sampleEvery = rateWindow / 10
)

// Item returns the counters of one more item; total is -1 when unknown. Name,
// phase and unit are short texts for people (unit: "bytes", "files"). End it.
func (f *Feed) Item(name, phase, unit string, total int64) *Item {
	i := &Item{name: fit(name, maxName), unit: fit(unit, maxShort), phase: fit(phase, maxShort), feed: f}
	i.total.Store(max(total, -1))
	i.samples = []sample{{time.Now(), 0}}
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

// SetTotal sets the total; -1 is unknown.
func (i *Item) SetTotal(total int64) { i.total.Store(max(total, -1)) }

// SetPhase names what is being done now; the rate starts afresh.
func (i *Item) SetPhase(phase string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.phase = fit(phase, maxShort)
	i.samples = append(i.samples[:0], sample{time.Now(), i.done.Load()})
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

// value returns the newest value.
func (i *Item) value(now time.Time) Progress {
	i.mu.Lock()
	defer i.mu.Unlock()
	p := Progress{Item: i.name, Phase: i.phase, Unit: i.unit, Done: max(i.done.Load(), 0), Total: i.total.Load(), ETA: -1}
	if p.Done > p.Total {
		p.Total = -1 // it grew: better no total than a wrong one
	}
	// The oldest sample is the first one outside the window, so that an item
	// nobody looked at for a while has a rate at once.
	for len(i.samples) > 1 && now.Sub(i.samples[1].at) >= rateWindow {
		i.samples = i.samples[1:]
	}
	if d := now.Sub(i.samples[0].at).Seconds(); d > 0 && p.Done > i.samples[0].done {
		p.Rate = math.Round(float64(p.Done-i.samples[0].done)/d*10) / 10
	}
	if newest := i.samples[len(i.samples)-1]; now.Sub(newest.at) >= sampleEvery {
		i.samples = append(i.samples, sample{now, p.Done})
	}
	if eta := math.Ceil(float64(p.Total-p.Done) / p.Rate); p.Total >= 0 && p.Rate > 0 && eta < maxETA {
		p.ETA = int64(eta)
	}
	return p
}

// maxETA is where an estimate stops meaning anything, in seconds: a year.
const maxETA = 365 * 24 * 3600
