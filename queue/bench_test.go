package queue_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"gantry/queue"

	"github.com/stretchr/testify/require"
)

// BenchmarkUpdate changes the states of 10,000 jobs: by one caller, each change
// a commit of its own, and by many, whose changes are committed together.
func BenchmarkUpdate(b *testing.B) {
	for _, callers := range []int{1, 64, 512} {
		b.Run(fmt.Sprint(callers, " callers"), func(b *testing.B) {
			s, _ := newStore(b)
			ids := addJobs(b, s, 10_000)
			var next atomic.Int64
			b.ResetTimer()
			b.SetParallelism(callers)
			if callers == 1 {
				for k := range b.N {
					change(b, s, ids[k%len(ids)], k)
				}
				return
			}
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					k := int(next.Add(1))
					change(b, s, ids[k%len(ids)], k)
				}
			})
		})
	}
}

func change(b *testing.B, s *queue.Store, id string, k int) {
	_, err := s.Update(b.Context(), id, func(j *queue.Job) error {
		j.Attempt = k
		j.State = []queue.State{queue.Running, queue.Stalled}[k/10_000%2]
		return nil
	})
	require.NoError(b, err)
}

func addJobs(b testing.TB, s *queue.Store, n int) []string {
	ids := make([]string, n)
	each(n, 64, func(k int) {
		j, _, err := s.Add(b.Context(), aJob())
		require.NoError(b, err)
		ids[k] = j.ID
	})
	return ids
}
