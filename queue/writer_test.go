package queue_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"gantry/api"
	"gantry/queue"

	"github.com/stretchr/testify/require"
)

// Changes of one job come one after the other, from however many goroutines, and
// refused ones in the same commit take nothing with them.
func TestChangesMeet(t *testing.T) {
	s, _ := newStore(t)
	id := addJobs(t, s, 1)[0]
	boom := errors.New("boom")
	var ok atomic.Int64
	each(2000, 32, func(k int) {
		_, err := s.Update(t.Context(), id, func(j *queue.Job) error {
			if k%3 == 0 {
				return boom
			}
			j.Attempt++
			return nil
		})
		if k%3 == 0 {
			require.ErrorIs(t, err, boom)
		} else {
			require.NoError(t, err)
			ok.Add(1)
		}
	})
	j, err := s.Job(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, ok.Load(), int64(j.Attempt))
	st, err := s.Stats(t.Context())
	require.NoError(t, err)
	require.Less(t, st.Commits, int64(1500))
	require.Equal(t, int64(2001), st.Changes)
	sum := int64(0)
	for _, n := range st.Latency {
		sum += n
	}
	require.Equal(t, st.Commits, sum)
	require.Positive(t, st.Bytes)
}

func TestOneKeyManyCallers(t *testing.T) {
	s, _ := newStore(t)
	ask := aJob()
	ask.Key, ask.BodyHash = "k", "h"
	var made atomic.Int64
	each(50, 50, func(int) {
		_, existed, err := s.Add(t.Context(), ask)
		require.NoError(t, err)
		if !existed {
			made.Add(1)
		}
	})
	require.Equal(t, int64(1), made.Load())
}

func TestGivenUpBeforeItsTurn(t *testing.T) {
	s, _ := newStore(t)
	id := addJobs(t, s, 1)[0]
	why := errors.New("the caller left")
	ctx, leave := context.WithCancelCause(t.Context())
	inside, go_ := make(chan struct{}), make(chan struct{})
	first := make(chan error)
	go func() {
		_, err := s.Update(context.Background(), id, func(*queue.Job) error { close(inside); <-go_; return nil })
		first <- err
	}()
	<-inside
	second := make(chan error)
	go func() {
		_, err := s.Update(ctx, id, func(j *queue.Job) error { j.Attempt = 99; return nil })
		second <- err
	}()
	leave(why)
	require.ErrorIs(t, <-second, why, "while the first is being committed")
	close(go_)
	require.NoError(t, <-first)
	_, err := s.Update(t.Context(), id, func(j *queue.Job) error {
		if j.Attempt == 99 {
			return errors.New("it was written all the same")
		}
		return nil
	})
	require.NoError(t, err)
	_, err = s.Update(ctx, id, func(*queue.Job) error { return nil })
	require.ErrorIs(t, err, why)
}

func TestClosedStore(t *testing.T) {
	s, _ := newClosed(t)
	require.NoError(t, s.Close(), "twice")
	_, _, err := s.Add(t.Context(), aJob())
	require.ErrorIs(t, err, queue.ErrClosed)
	_, err = s.Unfinished(t.Context())
	require.Error(t, err)
	require.ErrorIs(t, s.AddSample(api.NewID(), aJob().NotBefore, []byte(`{}`)), queue.ErrClosed)
}

func TestJobsThatCannotBeStored(t *testing.T) {
	s, _ := newStore(t)
	for name, spoil := range map[string]func(*queue.Job){
		"an id that is none":   func(j *queue.Job) { j.ID = "x" },
		"a state that is none": func(j *queue.Job) { j.State = "odd" },
		"no spec":              func(j *queue.Job) { j.Spec = nil },
		"a spec that is none":  func(j *queue.Job) { j.Spec = api.Raw("{") },
		"a great spec":         func(j *queue.Job) { j.Spec = api.Raw(fmt.Sprintf(`"%*s"`, api.MaxSpec, "")) },
		"ended, not final":     func(j *queue.Job) { j.Ended = j.NotBefore },
	} {
		t.Run(name, func(t *testing.T) {
			j := aJob()
			spoil(&j)
			_, _, err := s.Add(t.Context(), j)
			require.ErrorIs(t, err, queue.ErrBadJob)
		})
	}
	j := aJob()
	j.ID = addJobs(t, s, 1)[0]
	_, _, err := s.Add(t.Context(), j)
	require.ErrorIs(t, err, queue.ErrBadJob, "an id is used once")
}

// A cursor is an id that a page has ended with, or refused.
func FuzzCursor(f *testing.F) {
	s, _ := newStore(f)
	all := addJobs(f, s, 9)
	for _, c := range []string{"", all[3], api.NewID(), "x", all[0] + " ", "0190b6f4-0000-0000-0000-000000000000", "' OR 1=1 --", "\x00", "%"} {
		f.Add(c)
	}
	f.Fuzz(func(t *testing.T, cursor string) {
		page, err := s.Jobs(t.Context(), queue.Query{Before: cursor, Limit: 3})
		if cursor != "" && !api.ValidID(cursor) {
			require.ErrorIs(t, err, queue.ErrCursor)
			return
		}
		require.NoError(t, err)
		for _, j := range page {
			require.True(t, cursor == "" || j.ID < cursor)
		}
	})
}
