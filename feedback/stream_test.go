package feedback_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gantry/feedback"

	"github.com/stretchr/testify/require"
)

// watch streams f into a lineWriter until ctx ends.
func watch(ctx context.Context, f *feedback.Feed, after int64) (*lineWriter, chan error) {
	w := newLineWriter()
	ended := make(chan error, 1)
	go func() {
		ended <- f.Stream(ctx, feedback.NewWriter(w, feedback.WriterOptions{}), after, feedback.Hello{ID: "t1"})
	}()
	return w, ended
}

func TestHeartbeatAfterSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _ := newFeed(t, feedback.Options{})
		w, ended := watch(t.Context(), f, 0)
		synctest.Wait()
		require.Equal(t, "hello", kinds(w.took(t)))
		time.Sleep(feedback.Interval - time.Millisecond)
		synctest.Wait()
		require.Empty(t, w.took(t))
		time.Sleep(time.Millisecond)
		synctest.Wait()
		require.Equal(t, "heartbeat", kinds(w.took(t)))

		time.Sleep(feedback.Interval / 2)
		require.NoError(t, f.State("running", nil))
		synctest.Wait()
		require.Equal(t, "state:1", kinds(w.took(t)))
		time.Sleep(feedback.Interval - time.Millisecond)
		synctest.Wait()
		require.Empty(t, w.took(t), "a record is a sign of life too")
		time.Sleep(time.Millisecond)
		synctest.Wait()
		beat := w.took(t)
		require.Equal(t, "heartbeat", kinds(beat))
		require.Equal(t, int64(1), beat[0].Body.(*feedback.Heartbeat).Last)
		require.Equal(t, time.Now().UTC().Truncate(time.Millisecond), beat[0].Time)

		require.NoError(t, f.Finish(nil, nil))
		require.NoError(t, <-ended, "the stream ends right after the final")
		require.Equal(t, "result:2", kinds(w.took(t)))
	})
}

func TestProgressIsTheNewestValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _ := newFeed(t, feedback.Options{})
		require.NoError(t, f.State("running", nil))
		item := f.Item("vm1.img", "fetch", "bytes", 1000)
		item.Add(100)
		w, ended := watch(t.Context(), f, 0)
		synctest.Wait()
		first := w.took(t)
		require.Equal(t, "hello progress state:1", kinds(first), "a new reader gets a snapshot first")
		require.Equal(t, &feedback.Progress{Item: "vm1.img", Phase: "fetch", Done: 100, Total: 1000, Unit: "bytes", ETA: -1, TotalIs: feedback.TotalExact}, first[1].Body)

		start := time.Now()
		for range 300 { // 3 s, 100 changes a second
			item.Add(1)
			time.Sleep(10 * time.Millisecond)
		}
		synctest.Wait()
		shown := w.took(t)
		require.GreaterOrEqual(t, len(shown), 11, "about 4 a second")
		require.LessOrEqual(t, len(shown), int(time.Since(start)/feedback.Tick), "never more than 4 a second")
		p := shown[len(shown)-1].Body.(*feedback.Progress)
		require.InDelta(t, 133, p.Rate, 20, "over the window: 400 in 3 s")
		require.InDelta(t, 5, p.ETA, 2)

		synctest.Wait()
		time.Sleep(3 * time.Second)
		synctest.Wait()
		require.LessOrEqual(t, len(w.took(t)), 1, "what does not change is not repeated")

		item.SetPhase("publish")
		item.Set(1000)
		require.NoError(t, f.Finish(nil, nil))
		require.NoError(t, <-ended)
		last := w.took(t)
		require.Equal(t, "progress result:2", kinds(last), "the last value goes out before the final")
		require.Equal(t, int64(1000), last[0].Body.(*feedback.Progress).Done)
		require.Equal(t, "publish", last[0].Body.(*feedback.Progress).Phase)
		require.Equal(t, "hello state:1 result:2", kinds(records(t, replay(t, f, 0), feedback.ReaderOptions{})), "no progress after the end")
	})
}

// What another feed says is shown when it comes, however many items have news,
// and no item more than once a tick.
func TestMirroredProgressIsShownAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _ := newFeed(t, feedback.Options{})
		items := []*feedback.Item{f.Item("a", "", "bytes", -1), f.Item("b", "", "bytes", -1)}
		w, ended := watch(t.Context(), f, 0)
		say := func(k int, done int64) { items[k].Mirror(&feedback.Progress{Done: done, Total: -1}) }
		shown := func(after time.Duration) (said []string) {
			time.Sleep(after)
			synctest.Wait()
			for _, rec := range w.took(t) {
				if p, ok := rec.Body.(*feedback.Progress); ok {
					said = append(said, fmt.Sprint(p.Item, p.Done))
				}
			}
			return said
		}
		require.Equal(t, []string{"a0", "b0"}, shown(0))
		time.Sleep(feedback.Tick + feedback.Tick/2)
		say(0, 1)
		require.Equal(t, []string{"a1"}, shown(0), "between two ticks")
		say(1, 2)
		require.Equal(t, []string{"b2"}, shown(time.Millisecond), "the other's line does not hold it up")
		say(0, 3)
		say(0, 4)
		require.Empty(t, shown(feedback.Tick-2*time.Millisecond))
		require.Equal(t, []string{"a4"}, shown(time.Millisecond), "the newest, a tick after its last line")
		require.NoError(t, f.Finish(nil, nil))
		require.NoError(t, <-ended)
	})
}

func TestItemsThatEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _ := newFeed(t, feedback.Options{})
		w, ended := watch(t.Context(), f, 0)
		synctest.Wait()
		w.took(t)
		for k := range 3 {
			item := f.Item(fmt.Sprint("f", k), "", "bytes", -1)
			item.Add(int64(k) + 1)
			item.End()
			item.End()
		}
		time.Sleep(time.Second)
		synctest.Wait()
		last := map[string]int64{}
		shown := w.took(t)
		for _, rec := range shown {
			p := rec.Body.(*feedback.Progress)
			last[p.Item] = p.Done
		}
		require.Equal(t, map[string]int64{"f0": 1, "f1": 2, "f2": 3}, last, "each last value is shown")
		require.LessOrEqual(t, len(shown), 6, "and not again and again")
		grown := f.Item("log", "", "bytes", 10)
		time.Sleep(time.Second)
		synctest.Wait()
		w.took(t)
		grown.Carry(20)
		time.Sleep(time.Second)
		synctest.Wait()
		p := w.took(t)[0].Body.(*feedback.Progress)
		require.Equal(t, feedback.Progress{Item: "log", Done: 20, Total: -1, Unit: "bytes", ETA: -1, TotalIs: feedback.TotalUnknown}, *p, "more than there should be; carried units have no rate")

		for k := range feedback.MaxItems + 10 {
			f.Item(fmt.Sprint("many", k), "", "", -1)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		require.Len(t, w.took(t), feedback.MaxItems-1)
		require.NoError(t, f.Finish(nil, nil))
		require.NoError(t, <-ended)
	})
}

func TestStreamObeysItsContext(t *testing.T) {
	gone := errors.New("the client has gone")
	t.Run("while it waits", func(t *testing.T) {
		f, _ := newFeed(t, feedback.Options{})
		ctx, cancel := context.WithCancelCause(t.Context())
		w, ended := watch(ctx, f, 0)
		<-w.lines
		cancel(gone)
		require.ErrorIs(t, <-ended, gone)
	})
	t.Run("while the reader does not read", func(t *testing.T) {
		f, _ := newFeed(t, feedback.Options{})
		require.NoError(t, f.State("running", nil))
		ctx, cancel := context.WithCancelCause(t.Context())
		w := &stuckReply{httptest.NewRecorder(), make(chan struct{}, 1), make(chan struct{})}
		ended := make(chan error)
		go func() {
			ended <- f.Stream(ctx, feedback.NewWriter(w, feedback.WriterOptions{}), 0, feedback.Hello{ID: "t1"})
		}()
		<-w.stuck
		// The feed is not held up by a reader that does not read.
		require.NoError(t, f.State("publishing", nil))
		require.NoError(t, f.Finish(nil, nil))
		cancel(gone)
		require.ErrorIs(t, <-ended, gone)
	})
}

// stuckReply is a reply to a client that does not read.
type stuckReply struct {
	*httptest.ResponseRecorder
	stuck    chan struct{}
	deadline chan struct{}
}

func (s *stuckReply) Write([]byte) (int, error) {
	s.stuck <- struct{}{}
	<-s.deadline
	return 0, os.ErrDeadlineExceeded
}

func (s *stuckReply) SetWriteDeadline(at time.Time) error {
	if at.Before(time.Now()) {
		close(s.deadline)
	}
	return nil
}

func TestWriter(t *testing.T) {
	rw := httptest.NewRecorder()
	w := feedback.NewWriter(rw, feedback.WriterOptions{Padding: 100, Incremental: true})
	require.Equal(t, http.Header{
		"Content-Type": {"application/x-ndjson"}, "Cache-Control": {"no-store"}, "X-Accel-Buffering": {"no"},
		"X-Content-Type-Options": {"nosniff"}, "Incremental": {"?1"},
	}, rw.Header())
	require.NoError(t, w.WriteLine([]byte(helloLine), false))
	require.True(t, rw.Flushed)
	require.Equal(t, helloLine+strings.Repeat(" ", 100)+"\n", rw.Body.String())
	require.ErrorContains(t, w.Write(feedback.Record{Kind: "log"}), "no body")

	t.Run("padding yields to the limit of a line", func(t *testing.T) {
		for _, n := range []int{feedback.MaxTaskLine - 50, feedback.MaxTaskLine - 1, feedback.MaxTaskLine + 1, feedback.MaxJobLine - 1} {
			rw.Body.Reset()
			require.NoError(t, w.WriteLine([]byte(`{"k":"`+strings.Repeat("x", n-8)+`"}`), false))
			limit := feedback.MaxTaskLine
			if n >= limit {
				limit = feedback.MaxJobLine
			}
			require.LessOrEqual(t, rw.Body.Len(), limit)
		}
		require.Error(t, w.WriteLine(make([]byte, feedback.MaxJobLine), false))
	})
	t.Run("one final", func(t *testing.T) {
		require.NoError(t, w.WriteLine([]byte(stored(1, "result", `,"value":1`)), true))
		require.ErrorIs(t, w.WriteLine([]byte(`{}`), false), feedback.ErrFinished)
	})
	t.Run("a failed write sticks", func(t *testing.T) {
		bad := feedback.NewWriter(failing{httptest.NewRecorder()}, feedback.WriterOptions{})
		require.ErrorIs(t, bad.WriteLine([]byte(`{}`), false), errGone)
		require.ErrorIs(t, bad.WriteLine([]byte(`{}`), false), errGone)
		mute := feedback.NewWriter(unwritable{httptest.NewRecorder()}, feedback.WriterOptions{})
		require.ErrorIs(t, mute.WriteLine([]byte(`{}`), false), errGone)
		require.ErrorIs(t, mute.WriteLine(make([]byte, 1<<20), false), errGone)
		f, _ := newFeed(t, feedback.Options{})
		require.ErrorIs(t, f.Stream(t.Context(), bad, 0, feedback.Hello{ID: "t1"}), errGone)
	})
}

var errGone = errors.New("broken pipe")

type failing struct{ *httptest.ResponseRecorder }

func (failing) FlushError() error { return errGone }

type unwritable struct{ *httptest.ResponseRecorder }

func (unwritable) Write([]byte) (int, error) { return 0, errGone }

func TestKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lw := newLineWriter()
		w := feedback.NewWriter(lw, feedback.WriterOptions{})
		ended := make(chan error, 1)
		go func() { ended <- w.KeepAlive(t.Context(), time.Second, func() int64 { return 7 }) }()
		time.Sleep(500 * time.Millisecond)
		require.NoError(t, w.WriteLine([]byte(helloLine), false))
		time.Sleep(600 * time.Millisecond)
		synctest.Wait()
		require.Equal(t, "hello", kinds(lw.took(t)))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		require.Equal(t, "heartbeat heartbeat", kinds(lw.took(t)))
		require.NoError(t, w.WriteLine([]byte(stored(1, "result", `,"value":1`)), true))
		require.NoError(t, <-ended)
	})
}
