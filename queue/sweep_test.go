package queue_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gantry/api"
	"gantry/feedback"
	"gantry/queue"

	"github.com/stretchr/testify/require"
)

// clock is a store whose time a test sets.
func clocked(t testing.TB) (*queue.Store, *time.Time) {
	now := time.Unix(1_800_000_000, 0).UTC()
	s, err := queue.Open(filepath.Join(t.TempDir(), "queue.db"), queue.Options{Now: func() time.Time { return now }})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s, &now
}

// ended is a job with a feed of some KiB that has ended.
func ended(t testing.TB, s *queue.Store, key string, kib int) string {
	j := aJob()
	j.Key, j.BodyHash = key, "h"
	j, _, err := s.Add(t.Context(), j)
	require.NoError(t, err)
	f := openFeed(t, s, j.ID)
	for range kib {
		f.Log("info", "", strings.Repeat("x", 1000))
	}
	require.NoError(t, f.Finish(key, nil))
	final, _ := f.Final()
	require.NoError(t, f.Close())
	require.NoError(t, s.SaveAttempt(t.Context(), queue.Attempt{Job: j.ID, N: 1, Info: api.Raw(`{"ticket":"secret"}`)}))
	require.NoError(t, s.AddSample(j.ID, time.Now(), []byte(`{"kind":"progress","item":"a"}`)))
	_, err = s.Update(t.Context(), j.ID, func(j *queue.Job) error {
		j.State, j.Outcome, j.Final = queue.Done, api.Done, final.Line
		return nil
	})
	require.NoError(t, err)
	return j.ID
}

func TestSweepByAge(t *testing.T) {
	s, now := clocked(t)
	old := ended(t, s, "old", 1200) // more than one step
	*now = now.Add(10 * time.Hour)
	young := ended(t, s, "young", 3)
	running := addJobs(t, s, 1)[0]
	f := openFeed(t, s, running)
	f.Log("info", "", "it is running")
	require.NoError(t, f.State("running", nil))
	*now = now.Add(time.Hour)

	done, err := s.Sweep(t.Context(), queue.Retention{Age: 5 * time.Hour})
	require.NoError(t, err)
	require.Equal(t, queue.Swept{Feeds: 1}, done)
	g := openFeed(t, s, old)
	all := lines(t, g, 0)
	require.Len(t, all, 2, "a gap and the final")
	require.Contains(t, all[0], `"to":1200`)
	require.Contains(t, all[1], `"kind":"result"`)
	j, err := s.Job(t.Context(), old)
	require.NoError(t, err)
	require.Equal(t, all[1], string(j.Final))
	attempts, err := s.Attempts(t.Context(), old)
	require.NoError(t, err)
	require.Empty(t, attempts, "with their tickets")
	samples, err := s.Samples(t.Context(), old)
	require.NoError(t, err)
	require.Empty(t, samples)
	again := aJob()
	again.Key, again.BodyHash = "old", "h"
	_, existed, err := s.Add(t.Context(), again)
	require.NoError(t, err)
	require.True(t, existed, "its key is known as long as the job")

	require.Len(t, lines(t, openFeed(t, s, young), 0), 4)
	require.Len(t, lines(t, f, 0), 2)

	done, err = s.Sweep(t.Context(), queue.Retention{History: 5 * time.Hour})
	require.NoError(t, err)
	require.Equal(t, queue.Swept{Jobs: 1}, done)
	_, err = s.Job(t.Context(), old)
	require.ErrorIs(t, err, queue.ErrNotFound)
	_, err = feedback.OpenJournal(s.Journal(old), feedback.Options{})
	require.ErrorIs(t, err, queue.ErrNotFound)
	_, existed, err = s.Add(t.Context(), again)
	require.NoError(t, err)
	require.False(t, existed)
	require.NoError(t, s.Check(t.Context()))
}

func TestSweepBySize(t *testing.T) {
	s, now := clocked(t)
	var all []string
	for k := range 8 {
		all = append(all, ended(t, s, fmt.Sprint(k), 500))
		*now = now.Add(time.Second)
	}
	done, err := s.Sweep(t.Context(), queue.Retention{Bytes: 2 << 20})
	require.NoError(t, err)
	require.Greater(t, done.Feeds, 3)
	require.Less(t, done.Feeds, 7)
	for k, id := range all {
		f := openFeed(t, s, id)
		if k < done.Feeds {
			require.Len(t, lines(t, f, 0), 2, "the oldest went first")
		} else {
			require.Len(t, lines(t, f, 0), 501)
		}
	}
	done, err = s.Sweep(t.Context(), queue.Retention{Bytes: 1})
	require.NoError(t, err)
	require.NotZero(t, done.Feeds)
	done, err = s.Sweep(t.Context(), queue.Retention{Bytes: 1})
	require.NoError(t, err)
	require.Zero(t, done, "there is nothing more that may go")
}

func TestSamples(t *testing.T) {
	s, path := newStore(t)
	id := addJobs(t, s, 1)[0]
	at := time.Unix(1_700_000_000, 0)
	for k := range 400 { // 100 ms apart
		for _, item := range []string{"a", "b"} {
			line := fmt.Sprintf(`{"kind":"progress","item":%q,"done":%d}`, item, k)
			require.NoError(t, s.AddSample(id, at.Add(time.Duration(k)*100*time.Millisecond), []byte(line)))
		}
	}
	require.NoError(t, s.AddSample(api.NewID(), at, []byte(`{"item":"a"}`)), "of no job: lost")
	require.Error(t, s.AddSample(id, at, []byte(`{`)))
	require.NoError(t, s.Close())
	s = reopen(t, path)
	all, err := s.Samples(t.Context(), id)
	require.NoError(t, err)
	require.Len(t, all, 2*4)
	require.JSONEq(t, `{"kind":"progress","item":"a","done":0}`, string(all[0].Line))
	require.JSONEq(t, `{"kind":"progress","item":"b","done":300}`, string(all[7].Line))
	require.Equal(t, at.Add(30*time.Second).UTC(), all[7].Time)
	require.NoError(t, s.AddSample(id, at.Add(35*time.Second), []byte(`{"item":"a"}`)), "a slot that is taken, after a restart")
	require.NoError(t, s.Close())
	s = reopen(t, path)
	again, err := s.Samples(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, all, again)
}

func TestBackupWhileWriting(t *testing.T) {
	s, path := newStore(t)
	dir := t.TempDir()
	stop, done := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for ; ; n++ {
			select {
			case <-stop:
				done <- n
				return
			default:
				ended(t, s, fmt.Sprint(n), 3)
			}
		}
	}()
	for k := range 5 {
		to := filepath.Join(dir, fmt.Sprint(k))
		require.NoError(t, queue.BackupFile(t.Context(), path, to))
		require.ErrorContains(t, s.Backup(t.Context(), to), "already")
		require.NoError(t, queue.CheckFile(t.Context(), to))
		require.NoError(t, queue.CheckFile(t.Context(), path), "also while it is open")
	}
	close(stop)
	require.NotZero(t, <-done)
	entries, err := filepath.Glob(filepath.Join(dir, ".*"))
	require.NoError(t, err)
	require.Empty(t, entries, "nothing is left over")
}

func TestRestore(t *testing.T) {
	s, path := newStore(t)
	first := ended(t, s, "first", 3)
	backup := filepath.Join(t.TempDir(), "backup.db")
	require.NoError(t, s.Backup(t.Context(), backup))
	second := ended(t, s, "second", 3)
	copyFile(t, path+"-wal", backup+".later") // as it lies there after a kill
	require.NoError(t, s.Close())
	copyFile(t, backup+".later", path+"-wal")

	_, err := queue.Restore(t.Context(), backup+".later", path)
	require.ErrorIs(t, err, queue.ErrDamaged)
	kept, err := queue.Restore(t.Context(), backup, path)
	require.NoError(t, err)
	require.FileExists(t, kept)
	require.FileExists(t, kept+"-wal", "the log goes with its file")
	s = reopen(t, path)
	_, err = s.Job(t.Context(), first)
	require.NoError(t, err)
	_, err = s.Job(t.Context(), second)
	require.ErrorIs(t, err, queue.ErrNotFound)
	ended(t, s, "third", 3)

	kept, err = queue.Restore(t.Context(), backup, filepath.Join(t.TempDir(), "other.db"))
	require.NoError(t, err)
	require.Empty(t, kept)
	_, err = queue.Restore(t.Context(), filepath.Join(t.TempDir(), "none.db"), path)
	require.Error(t, err)
	require.False(t, errors.Is(err, queue.ErrDamaged))
}
