package transfer_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gantry/api"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

// endless gives zeros.
type endless struct{ read atomic.Int64 }

func (e *endless) Read(p []byte) (int, error) {
	e.read.Add(int64(len(p)))
	return len(p), nil
}

func (e *endless) Close() error { return nil }

// drop takes all, without a buffer of its own as io.Discard has.
type drop struct{}

func (drop) Write(p []byte) (int, error) { return len(p), nil }

// pass reads for d of the bubble's clock and returns how much came.
func pass(t *testing.T, d time.Duration, limits transfer.Limits) int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	src := &endless{}
	_, err := io.CopyBuffer(drop{}, limits.Reader(ctx, src), make([]byte, 1<<20))
	require.Error(t, err)
	return src.read.Load()
}

// near accepts 2% and one part of 100 ms.
func near(t *testing.T, want, got int64, rate int64) {
	t.Helper()
	require.InDelta(t, want, got, float64(want)/50+float64(rate)/9)
}

func TestLimitHoldsItsRate(t *testing.T) {
	for _, rate := range []int64{api.MinBandwidth, 1 << 20, 50 << 20, 1 << 30} {
		synctest.Test(t, func(t *testing.T) {
			near(t, 10*rate, pass(t, 10*time.Second, transfer.Limits{transfer.NewLimit(rate), nil, transfer.NewLimit(0)}), rate)
		})
	}
}

func TestStricterLimitWins(t *testing.T) {
	for _, limits := range [][2]int64{{1 << 20, 5 << 20}, {5 << 20, 1 << 20}} {
		synctest.Test(t, func(t *testing.T) {
			both := transfer.Limits{transfer.NewLimit(limits[0]), transfer.NewLimit(limits[1])}
			require.EqualValues(t, 1<<20, both.Rate())
			near(t, 10<<20, pass(t, 10*time.Second, both), 1<<20)
		})
	}
	require.Zero(t, transfer.Limits{nil, transfer.NewLimit(0)}.Rate())
}

// A limit of 1 MiB/s is smooth: no gap is longer than some parts of 100 ms, and
// nothing comes at once at the beginning.
func TestLimitIsSmooth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := transfer.Limits{transfer.NewLimit(1 << 20)}.Reader(t.Context(), &endless{})
		buf := make([]byte, 1<<20)
		for range 50 {
			began := time.Now()
			n, err := r.Read(buf)
			require.NoError(t, err)
			require.LessOrEqual(t, n, 256<<10)
			require.LessOrEqual(t, time.Since(began), 150*time.Millisecond)
		}
	})
}

// Streams that share a limit share it evenly, and none of them is silent for
// long, at the least rate and with the most connections.
func TestLimitIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const streams = 16
		limit := transfer.NewLimit(api.MinBandwidth)
		got := make(chan int64, streams)
		for range streams {
			go func() { got <- pass(t, 100*time.Second, transfer.Limits{limit}) }()
		}
		var sum int64
		for range streams {
			n := <-got
			sum += n
			require.InDelta(t, 100*api.MinBandwidth/streams, n, 100*api.MinBandwidth/streams/4)
		}
		require.InDelta(t, 100*api.MinBandwidth, sum, 10*api.MinBandwidth)
	})
}

// A new limit counts at once for reads that wait under the old one.
func TestLimitIsChangedWhileReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := transfer.NewLimit(api.MinBandwidth)
		src := &endless{}
		ctx, cancel := context.WithCancel(t.Context())
		var ended []chan error
		for range 8 {
			done := make(chan error, 1)
			ended = append(ended, done)
			go func() {
				_, err := io.CopyBuffer(drop{}, transfer.Limits{limit}.Reader(ctx, src), make([]byte, 1<<20))
				done <- err
			}()
		}
		during := func(rate, want int64) {
			limit.Set(rate)
			synctest.Wait()
			before := src.read.Load()
			time.Sleep(5 * time.Second)
			synctest.Wait()
			require.InDelta(t, want, src.read.Load()-before, float64(want)/10+float64(rate), "at %d", rate)
		}
		during(api.MinBandwidth, 5*api.MinBandwidth)
		during(100<<20, 500<<20)
		during(1<<20, 5<<20)
		for range 200 { // nothing is won by asking
			limit.Set(1<<20 + 1)
			limit.Set(1 << 20)
		}
		during(1<<20, 5<<20)
		cancel()
		for _, done := range ended {
			require.Error(t, <-done)
		}
	})
}

func TestNoLimitChangesNothing(t *testing.T) {
	limit := transfer.NewLimit(1 << 20)
	limit.Set(0)
	var b bytes.Buffer
	w := transfer.Limits{limit}.Writer(t.Context(), &b, func() error { return errors.New("flushed") })
	n, err := w.Write(make([]byte, 10<<20))
	require.NoError(t, err)
	require.Equal(t, 10<<20, n)
	text, err := io.ReadAll(transfer.Limits{nil, limit}.Reader(t.Context(), io.NopCloser(strings.NewReader("abc"))))
	require.NoError(t, err)
	require.Equal(t, "abc", string(text))
}

func TestLimitedWriterFlushesAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		flushed := 0
		ctx, cancel := context.WithTimeoutCause(t.Context(), 10*time.Second, api.Draining.Err("stopping"))
		defer cancel()
		w := transfer.Limits{transfer.NewLimit(1 << 20)}.Writer(ctx, &b, func() error { flushed++; return nil })
		n, err := w.Write(make([]byte, 20<<20))
		requireCode(t, api.Draining, err)
		require.Equal(t, b.Len(), n)
		near(t, 10<<20, int64(n), 1<<20)
		require.InDelta(t, 100, flushed, 5)
		_, err = transfer.Limits{transfer.NewLimit(1 << 20)}.Writer(t.Context(), &b, func() error { return io.ErrClosedPipe }).Write(make([]byte, 10))
		require.ErrorIs(t, err, io.ErrClosedPipe)
	})
}

func TestBandwidthIsChecked(t *testing.T) {
	for _, ok := range []int64{0, api.MinBandwidth, 1 << 20, api.MaxBandwidth} {
		require.NoError(t, transfer.CheckBandwidth("bwlimit", ok))
	}
	for _, bad := range []int64{-1, 1, api.MinBandwidth - 1, api.MaxBandwidth + 1} {
		requireCode(t, api.BadRequest, transfer.CheckBandwidth("bwlimit", bad))
	}
}

// Whoever waits in a long queue is let go at the moment of the change.
func TestLimitTakenAwayLetsEverybodyGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := transfer.NewLimit(api.MinBandwidth)
		done := make(chan error, 50)
		for range 50 {
			go func() {
				_, err := transfer.Limits{limit}.Writer(t.Context(), drop{}, nil).Write(make([]byte, 1<<20))
				done <- err
			}()
		}
		time.Sleep(time.Second)
		synctest.Wait()
		began := time.Now()
		limit.Set(0)
		for range 50 {
			require.NoError(t, <-done)
		}
		require.Zero(t, time.Since(began))
	})
}
