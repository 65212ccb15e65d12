package queue

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"
)

// Buckets are the upper bounds of Stats.Latency, in ascending order; a further
// bucket has what took longer.
var Buckets = []time.Duration{
	time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond,
	50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, time.Second, 5 * time.Second,
}

// Stats is what the store knows about itself. Counts of commits are since Open.
type Stats struct {
	States  map[State]int // jobs in each state; states without jobs are left out
	Depth   int           // jobs that wait for their turn: queued and waiting_retry
	Commits int64
	Changes int64         // what they held; samples are not counted
	Busy    time.Duration // spent in commits
	Slowest time.Duration
	Latency []int64 // commits by Buckets, one more at the end
	Bytes   int64   // of the file and its log
}

// latency counts commits.
type latency struct {
	mu sync.Mutex
	Stats
}

func (l *latency) note(d time.Duration, changes int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.Latency == nil {
		l.Latency = make([]int64, len(Buckets)+1)
	}
	k := 0
	for k < len(Buckets) && d > Buckets[k] {
		k++
	}
	l.Latency[k]++
	l.Commits++
	l.Changes += int64(changes)
	l.Busy += d
	l.Slowest = max(l.Slowest, d)
}

// Stats returns counts for metrics. It reads an index of all jobs: 5 ms per 100,000.
func (s *Store) Stats(ctx context.Context) (Stats, error) {
	s.latency.mu.Lock()
	st := s.latency.Stats
	st.Latency = append(make([]int64, 0, len(Buckets)+1), st.Latency...)
	s.latency.mu.Unlock()
	st.States = make(map[State]int)
	err := s.each(ctx, "SELECT state, COUNT(*) FROM jobs GROUP BY state", nil, func(scan scanner) error {
		var state State
		var n int
		err := scan(&state, &n)
		st.States[state] = n
		return err
	})
	if err != nil {
		return Stats{}, fmt.Errorf("counting jobs: %w", err)
	}
	st.Depth = st.States[Queued] + st.States[Waiting]
	for _, name := range []string{s.path, s.path + walSuffix} {
		info, err := os.Stat(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return Stats{}, fmt.Errorf("measuring the store: %w", err)
		}
		if err == nil {
			st.Bytes += info.Size()
		}
	}
	return st, nil
}
