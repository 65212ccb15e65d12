package feedback_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"gantry/feedback"

	"github.com/stretchr/testify/require"
)

// last is the newest progress value among records.
func last(t *testing.T, recs []feedback.Record) *feedback.Progress {
	t.Helper()
	for k := len(recs) - 1; k >= 0; k-- {
		if p, ok := recs[k].Body.(*feedback.Progress); ok {
			return p
		}
	}
	require.Fail(t, "no progress", kinds(recs))
	return nil
}

func TestStalledAfter30SecondsWithItsReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _ := newFeed(t, feedback.Options{})
		require.NoError(t, f.State("running", nil))
		item := f.Item("vm1.img", "fetch", "bytes", 1000)
		item.Explain(func() string { item.Proved(0); return feedback.WhySource })
		item.Add(100)
		w, ended := watch(t.Context(), f, 0)
		time.Sleep(29 * time.Second)
		synctest.Wait()
		require.Zero(t, last(t, w.took(t)).Stalled)

		time.Sleep(12 * time.Second)
		synctest.Wait()
		p := last(t, w.took(t))
		require.GreaterOrEqual(t, p.Stalled, int64(30))
		require.Equal(t, feedback.WhySource, p.Why)
		require.Zero(t, p.Rate)
		require.EqualValues(t, -1, p.ETA, "who stands still does not arrive")

		time.Sleep(time.Minute)
		synctest.Wait()
		seen := w.took(t)
		require.Greater(t, last(t, seen).Stalled, p.Stalled)
		require.Less(t, len(seen), 20, "it is said now and then")

		item.Came(1) // not done, but a byte
		time.Sleep(11 * time.Second)
		synctest.Wait()
		p = last(t, w.took(t))
		require.Zero(t, p.Stalled)
		require.Empty(t, p.Why)
		require.EqualValues(t, 100, p.Done)
		require.NoError(t, f.Finish(nil, nil))
		require.NoError(t, <-ended)
	})
}

// On a line so slow that no piece ends in 30 s, bytes that come are lines: who
// reads them knows that something moves.
func TestBytesThatComeAreLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _ := newFeed(t, feedback.Options{})
		mirrored, _ := newFeed(t, feedback.Options{})
		require.NoError(t, f.State("running", nil))
		require.NoError(t, mirrored.State("running", nil))
		item := f.Item("vm1.img", "fetch", "bytes", 1000)
		copied := mirrored.Item("vm1.img", "fetch", "bytes", 1000)
		w, ended := watch(t.Context(), f, 0)
		shown, ended2 := watch(t.Context(), mirrored, 0)
		for range 90 {
			time.Sleep(time.Second)
			item.Came(1)
			synctest.Wait()
			for _, rec := range w.took(t) {
				if p, ok := rec.Body.(*feedback.Progress); ok {
					copied.Mirror(p)
				}
			}
		}
		time.Sleep(15 * time.Second)
		synctest.Wait()
		require.Zero(t, last(t, shown.took(t)).Stalled)
		time.Sleep(time.Minute)
		synctest.Wait()
		require.NotZero(t, last(t, shown.took(t)).Stalled, "nothing comes any more")
		require.NoError(t, f.Finish(nil, nil))
		require.NoError(t, mirrored.Finish(nil, nil))
		require.NoError(t, <-ended)
		require.NoError(t, <-ended2)
	})
}

// What is complete waits for nothing.
func TestCompleteIsNotStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _ := newFeed(t, feedback.Options{})
		require.NoError(t, f.State("running", nil))
		item := f.Item("vm1.img", "hash", "bytes", 100)
		item.Add(100)
		w, ended := watch(t.Context(), f, 0)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		require.Zero(t, last(t, w.took(t)).Stalled)
		require.NoError(t, f.Finish(nil, nil))
		require.NoError(t, <-ended)
	})
}

func TestRateIsOfTheLastSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _ := newFeed(t, feedback.Options{})
		require.NoError(t, f.State("running", nil))
		item := f.Item("vm1.img", "fetch", "bytes", 1_000_000)
		w, ended := watch(t.Context(), f, 0)
		move := func(seconds int, each int64) *feedback.Progress {
			for range seconds {
				item.Add(each)
				time.Sleep(time.Second)
			}
			synctest.Wait()
			return last(t, w.took(t))
		}
		require.InDelta(t, 10_000, move(30, 10_000).Rate, 1000)
		p := move(15, 1000)
		require.InDelta(t, 1000, p.Rate, 150, "not since the start")
		require.InDelta(t, float64(1_000_000-p.Done)/1000, float64(p.ETA), 100)
		// Steps of a piece on a slow line: one of them is no rate.
		for range 6 {
			item.Add(20_000)
			time.Sleep(20 * time.Second)
		}
		synctest.Wait()
		require.InDelta(t, 1000, last(t, w.took(t)).Rate, 350)
		require.NoError(t, f.Finish(nil, nil))
		require.NoError(t, <-ended)
	})
}

func TestTotalsSayWhatTheyAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _ := newFeed(t, feedback.Options{})
		require.NoError(t, f.State("running", nil))
		item := f.Item("mail", "fetch", "bytes", -1)
		w, ended := watch(t.Context(), f, 0)
		var seen []string
		look := func() {
			time.Sleep(time.Second)
			synctest.Wait()
			p := last(t, w.took(t))
			seen = append(seen, fmt.Sprintf("%s %d of %d, proved %d, durable %d", p.TotalIs, p.Done, p.Total, p.Proved, p.Durable))
		}
		look()
		item.Estimate(500)
		item.Proved(200)
		item.Add(100)
		look()
		item.Durable(900) // whole pieces
		look()
		item.Add(500)
		look()
		item.SetTotal(700)
		look()
		require.Equal(t, []string{
			"unknown 0 of -1, proved 0, durable 0", "estimate 100 of 500, proved 200, durable 0",
			"estimate 100 of 500, proved 200, durable 100", "unknown 600 of -1, proved 200, durable 600",
			"exact 600 of 700, proved 200, durable 600",
		}, seen)
		require.NoError(t, f.Finish(nil, nil))
		require.NoError(t, <-ended)
	})
}
