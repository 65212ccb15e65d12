package queue_test

import (
	"errors"
	"testing"
	"time"

	"gantry/api"
	"gantry/queue"

	"github.com/stretchr/testify/require"
)

func TestJobsComeBackAsTheyWere(t *testing.T) {
	s, path := newStore(t)
	ctx := t.Context()
	j, existed, err := s.Add(ctx, aJob())
	require.NoError(t, err)
	require.False(t, existed)
	require.True(t, api.ValidID(j.ID))
	require.Equal(t, queue.Queued, j.State)
	require.False(t, j.Created.IsZero())

	changed, err := s.Update(ctx, j.ID, func(j *queue.Job) error {
		j.State, j.Attempt, j.Started, j.Why = queue.Running, 1, time.Now().UTC().Truncate(time.Microsecond), "a slot is free"
		j.Owner, j.Spec = "somebody else", api.Raw(`0`)
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, j.Owner, changed.Owner, "what was asked for stays")
	require.Equal(t, j.Spec, changed.Spec)
	require.Equal(t, queue.Running, changed.State)

	boom := errors.New("no")
	_, err = s.Update(ctx, j.ID, func(j *queue.Job) error { j.State = queue.Stalled; return boom })
	require.ErrorIs(t, err, boom)
	_, err = s.Update(ctx, api.NewID(), func(*queue.Job) error { return nil })
	require.ErrorIs(t, err, queue.ErrNotFound)

	got, err := s.Job(ctx, j.ID)
	require.NoError(t, err)
	require.Equal(t, changed, got)

	require.NoError(t, s.SaveAttempt(ctx, queue.Attempt{Job: j.ID, N: 1, Info: api.Raw(`{"tasks":{}}`), Started: got.Started}))
	ended, err := s.Update(ctx, j.ID, func(j *queue.Job) error {
		j.State, j.Outcome, j.Final = queue.Done, api.Done, api.Raw(`{"seq":1}`)
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, ended.Changed, ended.Ended)
	_, err = s.Update(ctx, j.ID, func(j *queue.Job) error { j.State, j.Ended = queue.Running, time.Time{}; return nil })
	require.ErrorIs(t, err, queue.ErrEnded)

	require.NoError(t, s.Close())
	s = reopen(t, path)
	got, err = s.Job(ctx, j.ID)
	require.NoError(t, err)
	require.Equal(t, ended, got)
	attempts, err := s.Attempts(ctx, j.ID)
	require.NoError(t, err)
	require.Equal(t, []queue.Attempt{{Job: j.ID, N: 1, Info: api.Raw(`{"tasks":{}}`), Started: changed.Started}}, attempts)
	open, err := s.Unfinished(ctx)
	require.NoError(t, err)
	require.Empty(t, open)
}

func TestIdempotencyKeys(t *testing.T) {
	s, _ := newStore(t)
	ctx := t.Context()
	ask := aJob()
	ask.Key, ask.BodyHash = "k1", "h1"
	first, existed, err := s.Add(ctx, ask)
	require.NoError(t, err)
	require.False(t, existed)

	again, existed, err := s.Add(ctx, ask)
	require.NoError(t, err)
	require.True(t, existed)
	require.Equal(t, first, again)

	other := ask
	other.BodyHash = "h2"
	_, _, err = s.Add(ctx, other)
	require.ErrorIs(t, err, queue.ErrKeyReused)

	other.Owner = "local:1000"
	_, existed, err = s.Add(ctx, other)
	require.NoError(t, err)
	require.False(t, existed, "keys are their owner's")

	none := aJob()
	for range 2 {
		_, existed, err = s.Add(ctx, none)
		require.NoError(t, err)
		require.False(t, existed, "no key is no key")
	}
}
