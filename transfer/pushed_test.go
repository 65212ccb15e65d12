package transfer_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gantry/api"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

// line is a Demand that reaches a Pushed directly, and breaks as a test says.
type pushLine struct {
	*transfer.Pushed
	mu   sync.Mutex
	fail func(call string) error // guarded by mu
	end  api.Wants               // guarded by mu
}

func (l *pushLine) broken(call string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		return l.fail(call)
	}
	return nil
}

func (l *pushLine) Missing(ctx context.Context, from int64) (api.Wants, error) {
	if err := l.broken("missing"); err != nil {
		return api.Wants{}, err
	}
	l.mu.Lock()
	end := l.end
	l.mu.Unlock()
	if end.Outcome != "" {
		return end, nil
	}
	ctx, cancel := context.WithTimeout(ctx, api.MissingWait)
	defer cancel()
	return api.Wants{Wants: l.Pushed.Missing(ctx, from)}, nil
}

func (l *pushLine) PutLines(ctx context.Context, w api.Want, at int64, lines []byte, last bool) error {
	if err := l.broken("lines"); err != nil {
		return err
	}
	return l.Pushed.PutLines(ctx, w.Seq, w.From, at, int64(len(lines)), last, bytes.NewReader(lines))
}

func (l *pushLine) PutFrames(ctx context.Context, w api.Want, at int64, frames []byte, last bool) error {
	if err := l.broken("frames"); err != nil {
		return err
	}
	return l.Pushed.PutFrames(ctx, w.Seq, at, int64(len(frames)), last, bytes.NewReader(frames))
}

func (l *pushLine) PutContent(ctx context.Context, w api.Want, total int64, body io.Reader) error {
	if err := l.broken("content"); err != nil {
		return err
	}
	return l.Pushed.PutContent(ctx, w.Seq, w.Off, w.Length, total, body)
}

// written is an exporter of lines that a test writes itself.
type written struct {
	window func(ctx context.Context, w io.Writer) error
	body   string
}

func (x *written) Window(ctx context.Context, _, _, _ int64, w io.Writer) error {
	return x.window(ctx, w)
}
func (x *written) Rehash(context.Context, int64, io.Writer) error { return errors.New("no") }
func (x *written) Size() int64                                    { return int64(len(x.body)) }
func (x *written) Digest() string                                 { return "" }
func (x *written) Check() error                                   { return nil }
func (x *written) Close() error                                   { return nil }
func (x *written) Content(_ context.Context, off, length int64) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(x.body[off : off+length])), nil
}

// pushTo runs a Push until the test ends or the import has.
func pushTo(t *testing.T, to transfer.Demand, x transfer.Exporter) (end func() (api.Wants, error)) {
	ctx, cancel := context.WithCancel(t.Context())
	var wants api.Wants
	var err error
	var done sync.WaitGroup
	done.Go(func() { wants, err = (&transfer.Push{From: x, To: to, Name: "x", RetryFor: time.Hour}).Run(ctx) })
	t.Cleanup(func() {
		cancel()
		done.Wait()
	})
	return func() (api.Wants, error) {
		done.Wait()
		return wants, err
	}
}

// TestPushOfASlowWindow: lines go out while the source still works, and a source
// that says nothing but heartbeats is heard of.
func TestPushOfASlowWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &pushLine{Pushed: transfer.NewPushed(1)}
		x := &written{window: func(ctx context.Context, w io.Writer) error {
			for range 10 {
				if _, err := io.WriteString(w, "beat\n"); err != nil {
					return err
				}
				time.Sleep(10 * time.Second)
			}
			_, err := io.WriteString(w, "end\n")
			return err
		}}
		pushTo(t, l, x)
		rc, err := l.Window(t.Context(), 0, 64, 0)
		require.NoError(t, err)
		begin, buf := time.Now(), make([]byte, 100)
		for i := range 10 {
			n, err := rc.Read(buf)
			require.NoError(t, err)
			require.Equal(t, "beat\n", string(buf[:n]))
			require.Less(t, time.Since(begin), time.Duration(i)*10*time.Second+time.Second)
		}
		rest, err := io.ReadAll(rc)
		require.NoError(t, err)
		require.Equal(t, "end\n", string(rest))
		require.NoError(t, rc.Close())
	})
}

// TestPushIsMadeAgain: an answer that never arrived is made again, one that broke
// off in the middle is asked for under another number.
func TestPushIsMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := 0
		l := &pushLine{Pushed: transfer.NewPushed(1), fail: func(call string) error {
			if call == "content" && broken < 3 {
				broken++
				return errors.New("the line is cut")
			}
			return nil
		}}
		pushTo(t, l, &written{body: strings.Repeat("x", 1000)})
		rc, err := l.Content(t.Context(), 10, 20)
		require.NoError(t, err)
		got, err := io.ReadAll(rc)
		require.NoError(t, err)
		require.Equal(t, strings.Repeat("x", 20), string(got))
		require.NoError(t, rc.Close())
		require.Equal(t, 3, broken)

		rc, err = l.Content(t.Context(), 0, 100)
		require.NoError(t, err)
		require.NoError(t, rc.Close())
		require.ErrorContains(t, l.Pushed.PutContent(t.Context(), 2, 0, 100, -1, strings.NewReader("")), "not_wanted")
	})
}

// TestPushBreaksOff: the import hears of it at once, and of what came before.
func TestPushBreaksOff(t *testing.T) {
	p := transfer.NewPushed(1)
	rc, err := p.Content(t.Context(), 0, 10)
	require.NoError(t, err)
	defer rc.Close()
	var put error
	var done sync.WaitGroup
	done.Go(func() { put = p.PutContent(t.Context(), 1, 0, 10, -1, strings.NewReader("abc")) })
	got, err := io.ReadAll(rc)
	done.Wait()
	require.Equal(t, "abc", string(got))
	require.ErrorContains(t, err, "broke off after 3 of 10")
	require.ErrorIs(t, put, io.ErrUnexpectedEOF)
	require.Empty(t, p.Missing(ended(t), 0))
}

// ended is a context that is over.
func ended(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func TestWantsAreBounded(t *testing.T) {
	p := transfer.NewPushed(5)
	ctx, cancel := context.WithCancel(t.Context())
	for range 64 {
		_, err := p.Content(ctx, 0, 1)
		require.NoError(t, err)
	}
	_, err := p.Content(ctx, 0, 1)
	require.ErrorContains(t, err, "64 open wants")
	open := p.Missing(t.Context(), 0)
	require.Len(t, open, 64)
	require.EqualValues(t, 5, open[0].Seq)
	require.Len(t, p.Missing(t.Context(), 60), 9)
	cancel()
	require.Eventually(t, func() bool { return len(p.Missing(ended(t), 0)) == 0 }, 5*time.Second, time.Millisecond)
}

// TestPartsOfAWant: content may come in parts, each exactly where the one before
// ended.
func TestPartsOfAWant(t *testing.T) {
	p := transfer.NewPushed(1)
	rc, err := p.Content(t.Context(), 100, 10)
	require.NoError(t, err)
	defer rc.Close()
	var all []byte
	var done sync.WaitGroup
	done.Go(func() { all, _ = io.ReadAll(rc) })
	put := func(off, length, total int64) error {
		return p.PutContent(t.Context(), 1, off, length, total, strings.NewReader(strings.Repeat("y", int(length))))
	}
	for name, err := range map[string]error{
		"before it":                  put(99, 10, -1),
		"after its beginning":        put(101, 9, -1),
		"more than it":               put(100, 11, -1),
		"nothing":                    put(100, 0, -1),
		"of a total that ends in it": put(100, 5, 105),
	} {
		require.ErrorContains(t, err, "offset_mismatch", name)
	}
	require.NoError(t, put(100, 4, 110))
	require.ErrorContains(t, put(100, 4, 110), "offset_mismatch")
	require.NoError(t, put(104, 6, -1))
	done.Wait()
	require.Equal(t, strings.Repeat("y", 10), string(all))
	require.ErrorContains(t, put(110, 1, -1), "not_wanted")
}

// TestPushGivesUp: an import that is out of reach for too long ends the push.
func TestPushGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &pushLine{Pushed: transfer.NewPushed(1), fail: func(string) error { return errors.New("no route") }}
		begin := time.Now()
		_, err := pushTo(t, l, &written{})()
		require.ErrorContains(t, err, "no answer for 1h")
		require.Greater(t, time.Since(begin), time.Hour)
		require.Less(t, time.Since(begin), time.Hour+time.Minute)

		l.fail = func(string) error { return api.UnknownTask.Err("there is no such task here") }
		_, err = pushTo(t, l, &written{})()
		require.ErrorContains(t, err, "unknown_task")
	})
}

// TestPushHearsTheEnd also while its source is busy.
func TestPushHearsTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &pushLine{Pushed: transfer.NewPushed(1)}
		end := pushTo(t, l, &written{window: func(ctx context.Context, _ io.Writer) error {
			<-ctx.Done()
			return context.Cause(ctx)
		}})
		rc, err := l.Window(t.Context(), 0, 64, 0)
		require.NoError(t, err)
		time.Sleep(time.Minute)
		require.NoError(t, rc.Close())
		l.mu.Lock()
		l.end = api.Wants{Outcome: api.Cancelled, Code: "cancelled"}
		l.mu.Unlock()
		wants, err := end()
		require.NoError(t, err)
		require.Equal(t, api.Cancelled, wants.Outcome)
	})
}

// TestNobodyPushes: an import that waits says for whom.
func TestNobodyPushes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := transfer.NewPushed(1)
		require.True(t, p.Alone())
		p.Missing(ended(t), 0)
		require.False(t, p.Alone())
		time.Sleep(time.Minute)
		require.True(t, p.Alone())

		rc, err := p.Content(t.Context(), 0, 2)
		require.NoError(t, err)
		r, w := io.Pipe()
		var done sync.WaitGroup
		done.Go(func() { p.PutContent(t.Context(), 1, 0, 2, -1, r) })
		time.Sleep(time.Minute)
		require.False(t, p.Alone(), "an answer is under way")
		require.NoError(t, w.Close())
		done.Wait()
		require.True(t, p.Alone())
		require.NoError(t, rc.Close())
	})
}
