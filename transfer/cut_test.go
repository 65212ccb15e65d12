package transfer_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gantry/api"

	"github.com/stretchr/testify/require"
)

// TestCuts: each cut is counted and said, and costs at most a piece of each
// connection.
func TestCuts(t *testing.T) {
	data := content(1, 40<<20+7)
	for name, broken := range map[string]error{"reset": errors.New("connection reset"), "ended properly": nil} {
		t.Run(name, func(t *testing.T) {
			src := &faulty{Source: direct{export(t, data)}}
			var cuts atomic.Int64
			src.content = func(k int, off, length int64) *fault {
				if k < 7 && length > 2 {
					cuts.Add(1)
					return &fault{cut: length - length/3 - 1, broken: broken}
				}
				return nil
			}
			g, n := newTarget(t), &notes{}
			im := g.imp(src)
			im.Report = n
			res, err := im.Run(context.Background())
			require.NoError(t, err)
			g.holds(t, data)
			require.Greater(t, res.Cuts, int64(3))
			require.Equal(t, cuts.Load(), res.Cuts)
			require.EqualValues(t, src.contents.Load(), res.Attempts)
			require.LessOrEqual(t, res.Wire, int64(len(data))+res.Cuts*piece)
			require.EqualValues(t, len(data), res.Bytes.Fetched)
			require.Len(t, n.logs, int(res.Cuts))
			require.Contains(t, n.logs[0], "warn content: connection lost")
		})
	}
}

// TestManifestCut: a window that was cut goes on where it ended.
func TestManifestCut(t *testing.T) {
	data := content(1, 9*piece)
	src := &faulty{Source: direct{export(t, data)}}
	ends := 0
	src.window = func(k int, from int64, rc io.ReadCloser) io.ReadCloser {
		if from == 8 { // the last entry came, the last line did not
			ends++
		}
		if k > 12 {
			return rc
		}
		b, err := io.ReadAll(rc)
		if err != nil {
			t.Error(err)
		}
		rc.Close()
		return io.NopCloser(strings.NewReader(string(b)[:min(len(b)-1, 350)]))
	}
	g := newTarget(t)
	res, err := g.imp(src).Run(context.Background())
	require.NoError(t, err)
	require.EqualValues(t, 12, res.Cuts)
	require.Greater(t, ends, 2)
	require.EqualValues(t, len(data), res.Wire)
	g.holds(t, data)
}

// TestRefusal ends at once, what passes by itself does not.
func TestRefusal(t *testing.T) {
	data := content(1, 3*piece)
	for _, c := range []*api.Code{api.Forbidden, api.UnknownTask, api.SourceChanged, api.IO, api.Revoked} {
		src := &faulty{Source: direct{export(t, data)}}
		src.content = func(int, int64, int64) *fault { return &fault{refuse: c.Err("no")} }
		g := newTarget(t)
		_, err := g.imp(src).Run(context.Background())
		requireCode(t, c, err)
		require.LessOrEqual(t, src.contents.Load(), int64(4))
	}
	for _, c := range []*api.Code{api.Draining, api.TooMany} {
		src := &faulty{Source: direct{export(t, data)}}
		src.content = func(k int, _, _ int64) *fault {
			if k < 5 {
				return &fault{refuse: c.Err("not now")}
			}
			return nil
		}
		g := newTarget(t)
		_, err := g.imp(src).Run(context.Background())
		require.NoError(t, err)
		g.holds(t, data)
	}
}

// TestRetryFor: a source out of reach is given up in time, and says so.
func TestRetryFor(t *testing.T) {
	src := &faulty{Source: direct{export(t, content(1, 3*piece))}}
	src.content = func(int, int64, int64) *fault { return &fault{refuse: errors.New("no route to host")} }
	g := newTarget(t)
	im := g.imp(src)
	im.RetryFor = 50 * time.Millisecond
	_, err := im.Run(context.Background())
	requireCode(t, api.PeerLost, err)
	require.ErrorContains(t, err, "no route to host")
	require.Greater(t, src.contents.Load(), int64(4))
}

// stuck is a reply that says nothing more until its request ends.
type stuck struct{ ctx context.Context }

func (s stuck) Read([]byte) (int, error) { <-s.ctx.Done(); return 0, s.ctx.Err() }
func (s stuck) Close() error             { return nil }

// silent is a source whose first replies never come.
type silent struct {
	direct
	windows, contents atomic.Int64
}

func (s *silent) Window(ctx context.Context, from, n, done int64) (io.ReadCloser, error) {
	if s.windows.Add(1) == 1 {
		return stuck{ctx}, nil
	}
	return s.direct.Window(ctx, from, n, done)
}

func (s *silent) Content(ctx context.Context, off, length int64) (io.ReadCloser, error) {
	switch s.contents.Add(1) {
	case 1:
		return stuck{ctx}, nil
	case 2:
		<-ctx.Done() // not even a header
		return nil, ctx.Err()
	}
	return s.direct.Content(ctx, off, length)
}

// TestHalfOpen: a silent connection is a broken one.
func TestHalfOpen(t *testing.T) {
	data := content(1, 6*piece)
	g := newTarget(t)
	im := g.imp(&silent{direct: direct{export(t, data)}})
	im.Idle(100 * time.Millisecond)
	res, err := im.Run(context.Background())
	require.NoError(t, err)
	require.GreaterOrEqual(t, res.Cuts, int64(3))
	g.holds(t, data)
}

// watcher records what is asked for.
type watcher struct {
	direct
	mu             sync.Mutex
	open, most     int
	longest, sum   int64
	windows, ahead int64
	full           chan struct{} // closed when four are open: none is answered before
}

func (w *watcher) Window(ctx context.Context, from, n, done int64) (io.ReadCloser, error) {
	w.mu.Lock()
	w.windows++
	w.ahead = max(w.ahead, from*piece-w.sum)
	w.mu.Unlock()
	return w.direct.Window(ctx, from, n, done)
}

func (w *watcher) Content(ctx context.Context, off, length int64) (io.ReadCloser, error) {
	w.mu.Lock()
	if w.open++; w.open == 4 && w.most < 4 {
		close(w.full)
	}
	w.most, w.longest = max(w.most, w.open), max(w.longest, length)
	w.mu.Unlock()
	select {
	case <-w.full:
	case <-ctx.Done():
	}
	rc, err := w.direct.Content(ctx, off, length)
	return &counted{rc, w}, err
}

type counted struct {
	io.ReadCloser
	w *watcher
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.w.mu.Lock()
	c.w.sum += int64(n)
	c.w.mu.Unlock()
	return n, err
}

func (c *counted) Close() error {
	c.w.mu.Lock()
	c.w.open--
	c.w.mu.Unlock()
	return c.ReadCloser.Close()
}

// TestShape: 4 connections, 16 MiB a request, the next window when half of the
// last is decided.
func TestShape(t *testing.T) {
	one := content(1, piece)
	var data []byte
	for i := range 80 {
		data = append(data, one...)
		data[i*piece] = byte(i)
	}
	w := &watcher{direct: direct{export(t, data)}, full: make(chan struct{})}
	g := newTarget(t)
	res, err := g.imp(w).Run(context.Background())
	require.NoError(t, err)
	g.holds(t, data)
	require.EqualValues(t, 16<<20, w.longest)
	require.Equal(t, 4, w.most)
	require.EqualValues(t, 20, res.Attempts)
	require.EqualValues(t, 2, w.windows)
	require.LessOrEqual(t, w.ahead, int64(32*piece))
}
