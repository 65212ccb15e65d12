package queue_test

import (
	"fmt"
	"strings"
	"testing"

	"gantry/api"
	"gantry/feedback"
	"gantry/queue"

	"github.com/stretchr/testify/require"
)

func openFeed(t testing.TB, s *queue.Store, job string) *feedback.Feed {
	t.Helper()
	f, err := feedback.OpenJournal(s.Journal(job), feedback.Options{ID: job, Job: true})
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// taskRecord is a record of a task with a number of its own.
func taskRecord(seq int) api.Raw {
	return api.Raw(fmt.Sprintf(`{"seq":%d,"t":"2026-11-20T21:31:04.120Z","kind":"log","level":"info","text":"line %d"}`, seq, seq))
}

func lines(t testing.TB, f *feedback.Feed, after int64) (all []string) {
	t.Helper()
	for rec, err := range f.Records(after) {
		require.NoError(t, err)
		all = append(all, string(rec.Line))
	}
	return all
}

func TestFeedsAreKept(t *testing.T) {
	s, path := newStore(t)
	ids := addJobs(t, s, 40)
	each(len(ids), len(ids), func(k int) {
		f := openFeed(t, s, ids[k])
		for n := range 25 {
			f.Log("info", "", fmt.Sprint("line ", n))
			require.NoError(t, f.State("running", map[string]int{"attempt": n}))
		}
		if k%2 == 0 {
			require.NoError(t, f.Finish(k, nil))
		}
		require.NoError(t, f.Close())
	})
	st, err := s.Stats(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[queue.State]int{queue.Queued: 40}, st.States)
	require.Equal(t, 40, st.Depth)
	require.Less(t, st.Commits, st.Changes, "changes that meet share a commit")
	require.NoError(t, s.Close())

	s = reopen(t, path)
	for k, id := range ids {
		f := openFeed(t, s, id)
		all := lines(t, f, 0)
		require.Len(t, all, 50+(k+1)%2)
		for n, line := range all {
			require.True(t, strings.HasPrefix(line, fmt.Sprintf(`{"seq":%d,`, n+1)), line)
		}
		final, ended := f.Final()
		require.Equal(t, k%2 == 0, ended)
		if ended {
			require.Equal(t, all[50], string(final.Line))
		}
	}
}

func TestTaskRecordsAreStoredOnce(t *testing.T) {
	s, path := newStore(t)
	id := addJobs(t, s, 1)[0]
	f := openFeed(t, s, id)
	for n := 1; n <= 5; n++ {
		require.NoError(t, f.Task("beta", "t1", taskRecord(n)))
	}
	require.NoError(t, f.Task("beta", "t1", taskRecord(4)), "a repeat")
	require.NoError(t, f.Task("beta", "t1", taskRecord(5)), "a repeat")
	require.NoError(t, f.Task("beta", "t2", taskRecord(5)), "of another task")
	require.NoError(t, f.Task("beta", "t1", taskRecord(5)), "a repeat")
	require.NoError(t, f.Close())
	require.NoError(t, s.Close())

	s = reopen(t, path)
	f = openFeed(t, s, id)
	require.Equal(t, int64(9), f.Last(), "numbers are not used again")
	require.NoError(t, f.Task("beta", "t1", taskRecord(6)))
	require.Len(t, lines(t, f, 0), 5+1+1+1+1)
	var own []string
	for rec, err := range f.Records(0) {
		require.NoError(t, err)
		switch body := rec.Body.(type) {
		case *feedback.Task:
			own = append(own, fmt.Sprint(body.Task, string(body.Record[:9])))
		case *feedback.Gap:
			own = append(own, fmt.Sprintf("gap %d-%d", body.From, body.To))
		}
	}
	require.Equal(t, []string{
		`t1{"seq":1,`, `t1{"seq":2,`, `t1{"seq":3,`, `t1{"seq":4,`, `t1{"seq":5,`, "gap 6-7", `t2{"seq":5,`, "gap 9-9", `t1{"seq":6,`,
	}, own)
	last, err := s.TaskSeq(t.Context(), id, "t1")
	require.NoError(t, err)
	require.Equal(t, int64(6), last)
	last, err = s.TaskSeq(t.Context(), id, "t3")
	require.NoError(t, err)
	require.Zero(t, last)
}

func TestFeedOfNoJob(t *testing.T) {
	s, _ := newStore(t)
	_, err := feedback.OpenJournal(s.Journal(api.NewID()), feedback.Options{})
	require.ErrorIs(t, err, queue.ErrNotFound)
	id := addJobs(t, s, 1)[0]
	f, g := openFeed(t, s, id), openFeed(t, s, id)
	require.NoError(t, f.State("running", nil))
	require.ErrorContains(t, g.State("running", nil), "two feeds")
}

func TestLongFeedIsShortened(t *testing.T) {
	s, path := newStore(t)
	id := addJobs(t, s, 1)[0]
	f, err := feedback.OpenJournal(s.Journal(id), feedback.Options{Max: feedback.MinJournal})
	require.NoError(t, err)
	require.NoError(t, f.State("running", nil))
	for n := range 1500 {
		f.Log("info", "", fmt.Sprintf("%d %s", n, strings.Repeat("x", 900)))
	}
	require.NoError(t, f.Finish(nil, nil))
	all := lines(t, f, 0)
	require.Contains(t, all[1], `"kind":"gap"`)
	require.Less(t, len(strings.Join(all, "\n")), feedback.MinJournal)
	require.NoError(t, f.Reduce())
	require.Len(t, lines(t, f, 0), 2)
	require.NoError(t, f.Close())
	require.NoError(t, s.Close())
	f = openFeed(t, reopen(t, path), id)
	require.Len(t, lines(t, f, 0), 2)
	require.Equal(t, all[len(all)-1], lines(t, f, 0)[1])
	require.NoError(t, f.Close())
}
