package queue

import (
	"context"
	"fmt"
	"time"
)

// Retention says what Sweep may delete. Zero fields keep everything.
type Retention struct {
	// Age after a job's end its feed, samples and attempts go. The job stays in
	// the history, with its outcome, its final record and its idempotency key.
	Age time.Duration
	// Bytes of the store above which they go earlier, of the jobs that ended
	// first. Unfinished jobs lose nothing.
	Bytes int64
	// History after a job's end the job itself goes, with its key.
	History time.Duration
}

// Swept is what Sweep did.
type Swept struct {
	Feeds int // jobs that lost feed, samples and attempts
	Jobs  int // jobs that are gone
}

// sweepStep is how many records or jobs one commit deletes: others wait for it.
const sweepStep = 500

// Sweep deletes what r lets go, a little at a time, so that nobody waits long.
// The audit log stays. The room is used again; the file does not get smaller.
func (s *Store) Sweep(ctx context.Context, r Retention) (done Swept, err error) {
	now := s.now()
	if r.Age > 0 {
		if done.Feeds, err = s.sweepFeeds(ctx, micros(now.Add(-r.Age)), 0); err != nil {
			return done, fmt.Errorf("sweeping by age: %w", err)
		}
	}
	if r.Bytes > 0 {
		n, err := s.sweepFeeds(ctx, micros(now)+1, r.Bytes)
		if done.Feeds += n; err != nil {
			return done, fmt.Errorf("sweeping by size: %w", err)
		}
	}
	if r.History > 0 {
		if done.Jobs, err = s.sweepJobs(ctx, micros(now.Add(-r.History))); err != nil {
			return done, fmt.Errorf("sweeping history: %w", err)
		}
	}
	return done, nil
}

// used is the bytes of pages that hold something.
func (s *Store) used(ctx context.Context) (n int64, err error) {
	err = s.each(ctx, "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size", nil, func(scan scanner) error {
		return scan(&n)
	})
	return n, err
}

// sweepFeeds empties the feeds of jobs that ended before a time, oldest first,
// as long as the store has more than so many bytes.
func (s *Store) sweepFeeds(ctx context.Context, before, bytes int64) (swept int, err error) {
	for {
		if bytes > 0 {
			if used, err := s.used(ctx); err != nil || used <= bytes {
				return swept, err
			}
		}
		var job int64
		err := s.each(ctx, "SELECT n FROM jobs WHERE swept = 0 AND ended > 0 AND ended < ? ORDER BY ended LIMIT 1", []any{before}, func(scan scanner) error {
			return scan(&job)
		})
		if err != nil || job == 0 {
			return swept, err
		}
		if err := s.sweepFeed(ctx, job); err != nil {
			return swept, err
		}
		swept++
	}
}

// sweepFeed empties one job but for the final and the number it has.
func (s *Store) sweepFeed(ctx context.Context, job int64) error {
	for more := true; more; {
		err := s.write(ctx, func(t *tx) error {
			gone := t.exec("DELETE FROM records WHERE place IN (SELECT place FROM records WHERE place >= ? AND place < ? ORDER BY place LIMIT ?)",
				place(job, 0), place(job, t.last(job)), sweepStep)
			gone += t.exec(`DELETE FROM samples WHERE job = ? AND slot IN (SELECT slot FROM samples WHERE job = ? LIMIT ?)`, job, job, sweepStep)
			if more = gone > 0; !more {
				t.exec("DELETE FROM attempts WHERE job = ?", job)
				t.exec("DELETE FROM tasks WHERE job = ?", job)
				t.exec("UPDATE jobs SET swept = 1 WHERE n = ?", job)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// sweepJobs deletes jobs that ended before a time.
func (s *Store) sweepJobs(ctx context.Context, before int64) (swept int, err error) {
	if _, err := s.sweepFeeds(ctx, before, 0); err != nil { // so that each job is a few rows
		return 0, err
	}
	for {
		var gone int64
		err := s.write(ctx, func(t *tx) error {
			const old = "(SELECT n FROM jobs WHERE swept = 1 AND ended > 0 AND ended < ? ORDER BY ended, n LIMIT ?)"
			t.exec("DELETE FROM records WHERE place IN (SELECT r.place FROM jobs JOIN records AS r ON r.place BETWEEN n * 4294967296 AND n * 4294967296 + 4294967295 WHERE n IN "+old+")", before, sweepStep)
			gone = t.exec("DELETE FROM jobs WHERE n IN "+old, before, sweepStep)
			return nil
		})
		swept += int(gone)
		if err != nil || gone == 0 {
			return swept, err
		}
	}
}
