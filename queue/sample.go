package queue

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
)

// Progress is kept for its history: one sample per item and sampleSlot.
const (
	sampleSlot  = 10 * time.Second
	sampleDelay = 5 * time.Second // how long samples wait for a commit that comes anyway
	maxSamples  = 8192            // that wait; further ones are lost
	maxSeen     = 1 << 16         // items remembered as sampled
)

// sample is one line about one item.
type sample struct {
	job, item string
	slot, at  int64
	line      []byte
}

func (x *sample) insert(t *tx) {
	t.exec(`INSERT INTO samples (job, slot, item, at, line) SELECT n, ?, ?, ?, ? FROM jobs WHERE id = ? ON CONFLICT DO NOTHING`,
		x.slot, x.item, x.at, x.line, x.job)
}

type sampled struct{ job, item string }

// sampler holds the samples that wait.
type sampler struct {
	mu      sync.Mutex
	seen    map[sampled]int64 // guarded by mu; the last slot of each item
	waiting []sample          // guarded by mu
	timer   *time.Timer       // guarded by mu; runs while samples wait
	now     bool              // guarded by mu; they have waited long enough
}

// AddSample keeps a progress record's line for the job's history, if it is the
// first of its item in ten seconds. It does not wait for the disk: a sample may be
// lost, and is where there is no such job.
func (s *Store) AddSample(job string, at time.Time, line []byte) error {
	var p struct {
		Item string `json:"item"`
	}
	if err := json.Unmarshal(line, &p); err != nil {
		return fmt.Errorf("adding sample: %w", err)
	}
	s.mu.Lock()
	err := s.state()
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if s.samples.add(sample{job, p.Item, at.UnixMicro() / sampleSlot.Microseconds(), at.UnixMicro(), append([]byte(nil), line...)}) {
		s.wake()
	}
	return nil
}

// add keeps x if it is the first of its slot; first says that it waits alone.
func (p *sampler) add(x sample) (first bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := sampled{x.job, x.item}
	if last, ok := p.seen[key]; ok && last >= x.slot || len(p.waiting) >= maxSamples {
		return false
	}
	if len(p.seen) >= maxSeen {
		clear(p.seen) // the table keeps one per slot all the same
	}
	p.seen[key] = x.slot
	p.waiting = append(p.waiting, x)
	if p.timer == nil {
		p.timer = time.NewTimer(sampleDelay)
		return true
	}
	return false
}

// take returns what waits, if it has waited long enough or force.
func (p *sampler) take(force bool) []sample {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !force && !p.now {
		return nil
	}
	if p.timer != nil {
		p.timer.Stop()
	}
	out := p.waiting
	p.waiting, p.timer, p.now = nil, nil, false
	return out
}

// due fires when the samples have waited long enough; nil: none wait.
func (p *sampler) due() <-chan time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer == nil {
		return nil
	}
	return p.timer.C
}

func (p *sampler) ripe() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now = true
}

// A Sample is a progress record of a job, as it was shown.
type Sample struct {
	Time time.Time
	Line []byte
}

// Samples returns the samples of a job that are on disk, in the order of their time.
func (s *Store) Samples(ctx context.Context, job string) ([]Sample, error) {
	var all []Sample
	err := s.each(ctx, `SELECT at, line FROM samples WHERE job = (SELECT n FROM jobs WHERE id = ?) ORDER BY slot, at, item`, []any{job}, func(scan scanner) error {
		var x Sample
		var at int64
		err := scan(&at, &x.Line)
		x.Time = moment(at)
		all = append(all, x)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading samples of %s: %w", job, err)
	}
	return all, nil
}
