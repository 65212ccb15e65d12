package master

import (
	"testing"
	"time"

	"gantry/queue"

	"github.com/stretchr/testify/require"
)

func TestPriorityThenAge(t *testing.T) {
	inQuiet(t, Options{Slots: map[string]int{"alpha": 1}}, func(q *quiet) {
		q.submit("first", nil)
		for _, path := range []string{"old", "young"} {
			q.submit(path, nil)
		}
		q.submit("low", func(j *queue.Job) { j.Priority = -5 })
		high := q.submit("high", func(j *queue.Job) { j.Priority = 5 })
		require.Equal(q, "first", q.order())
		n, used := q.m.Slots("alpha")
		require.Equal(q, []int{1, 1}, []int{n, used})
		for _, path := range []string{"first", "high", "old", "young", "low"} {
			q.finish(path, nil)
			q.pass(time.Second)
		}
		require.Equal(q, "first high old young low", q.order())
		require.Equal(q, []string{"waiting for a slot of alpha", "running", "result"}, q.said(high.ID))
		require.Equal(q, queue.Done, q.row(high.ID).State)
		require.Equal(q, 1, q.row(high.ID).Attempt)
	})
}

func TestNotBeforeAndLimits(t *testing.T) {
	inQuiet(t, Options{DefaultSlots: 9, Limits: map[string]int{"backups": 1}}, func(q *quiet) {
		backup := func(j *queue.Job) { j.Limits = []string{"backups"} }
		q.submit("a", backup)
		b := q.submit("b", backup)
		late := q.submit("late", func(j *queue.Job) { j.NotBefore = time.Now().Add(time.Hour).Truncate(time.Second) })
		q.submit("free", nil)
		require.Equal(q, "a free", q.order())
		require.Equal(q, "waiting for limit backups", q.row(b.ID).Why)
		q.finish("a", nil)
		q.pass(time.Second)
		require.Equal(q, "a free b", q.order())
		q.pass(59 * time.Minute)
		require.Equal(q, queue.Queued, q.row(late.ID).State)
		q.pass(2 * time.Minute)
		require.Equal(q, "a free b late", q.order())
		require.Equal(q, []string{"not before " + late.NotBefore.Format(time.RFC3339), "running"}, q.said(late.ID))
		_, _, err := q.m.Submit(q.Context(), queue.Job{Spec: late.Spec, Limits: []string{"nobody"}})
		require.ErrorContains(q, err, "nobody")
		for _, path := range []string{"b", "free", "late"} {
			q.finish(path, nil)
		}
		q.pass(time.Second)
	})
}

// A job that needs two nodes is not kept waiting for ever by jobs that need one
// of them: the slot that is free is kept for it.
func TestSmallJobsDoNotOvertakeForEver(t *testing.T) {
	inQuiet(t, Options{DefaultSlots: 1}, func(q *quiet) {
		q.submit("at beta", nil, "beta")
		q.submit("both", nil, "alpha", "beta")
		q.submit("at alpha", nil, "alpha")
		q.submit("also both", nil, "alpha", "beta")
		q.submit("elsewhere", nil, "gamma")
		require.Equal(q, "at beta elsewhere", q.order())
		q.finish("at beta", nil)
		q.pass(time.Second)
		require.Equal(q, "at beta elsewhere both", q.order())
		q.finish("both", nil)
		q.pass(time.Second)
		q.finish("at alpha", nil)
		q.pass(time.Second)
		q.finish("also both", nil)
		q.finish("elsewhere", nil)
		q.pass(time.Second)
		require.Equal(q, "at beta elsewhere both at alpha also both", q.order())
	})
}
