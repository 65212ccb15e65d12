package transfer

import (
	"context"
	"io"
	"sync"
	"time"

	"gantry/api"

	"golang.org/x/time/rate"
)

// A limited stream moves in parts of limitTime of its rate, so that the line is
// used evenly, and never in parts larger than maxLimitedOne, so that 1 GB/s does not
// come in gushes.
const (
	limitTime     = 100 * time.Millisecond
	maxLimitedOne = 256 << 10
)

// A Limit is a bandwidth that all who share it may use together, and that may be
// changed while they do. The zero value limits nothing. Its methods may be called
// from several goroutines.
type Limit struct {
	mu      sync.Mutex
	perSec  int64         // 0: no limit
	bucket  *rate.Limiter // nil: no limit
	changed chan struct{} // closed when perSec changes; nil while nobody waits
}

// NewLimit makes a limit of perSec bytes per second, 0 for none.
func NewLimit(perSec int64) *Limit {
	l := &Limit{}
	l.Set(perSec)
	return l
}

// Set changes the limit, 0 for none. Whoever waits waits no longer than the new
// limit demands.
func (l *Limit) Set(perSec int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if perSec == l.perSec {
		return
	}
	l.perSec, l.bucket = perSec, nil
	if perSec > 0 {
		l.bucket = rate.NewLimiter(rate.Limit(perSec), partOf(perSec))
		// It begins empty: a limit that is set again and again lets nothing more by.
		l.bucket.AllowN(time.Now(), partOf(perSec))
	}
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// Rate is the limit in bytes per second, 0 when there is none.
func (l *Limit) Rate() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.perSec
}

// partOf is how many bytes pass at once.
func partOf(perSec int64) int {
	return int(max(1, min(perSec*int64(limitTime)/int64(time.Second), maxLimitedOne)))
}

// wait waits until n bytes may pass. Many who wait are served in turn.
func (l *Limit) wait(ctx context.Context, n int) error {
	for n > 0 {
		l.mu.Lock()
		bucket := l.bucket
		if bucket == nil {
			l.mu.Unlock()
			return nil
		}
		part := min(n, bucket.Burst())
		turn := bucket.ReserveN(time.Now(), part)
		if l.changed == nil {
			l.changed = make(chan struct{})
		}
		changed := l.changed
		l.mu.Unlock()
		timer := time.NewTimer(turn.Delay())
		select {
		case <-timer.C:
			n -= part
		case <-changed: // under the new limit, from the beginning
		case <-ctx.Done():
			timer.Stop()
			turn.Cancel()
			return cancelled(ctx)
		}
		timer.Stop()
	}
	return nil
}

// Limits are all that bind one stream; the strictest wins. nil elements are none.
type Limits []*Limit

// Rate is the strictest limit in bytes per second, 0 when there is none.
func (ls Limits) Rate() int64 {
	var least int64
	for _, l := range ls {
		if l == nil {
			continue
		}
		if r := l.Rate(); r > 0 && (least == 0 || r < least) {
			least = r
		}
	}
	return least
}

// part is how many of n bytes go at once.
func (ls Limits) part(n int) int {
	if r := ls.Rate(); r > 0 {
		return min(n, partOf(r))
	}
	return n
}

// Wait waits until n bytes may pass under every limit. The error is that of the
// context.
func (ls Limits) Wait(ctx context.Context, n int) error {
	for _, l := range ls {
		if l == nil {
			continue
		}
		if err := l.wait(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// Reader returns a reader of r whose bytes count against the limits. Reads end
// when ctx does.
func (ls Limits) Reader(ctx context.Context, r io.ReadCloser) io.ReadCloser {
	return &limitedReader{r, ctx, ls}
}

type limitedReader struct {
	io.ReadCloser
	ctx    context.Context
	limits Limits
}

// Read waits after it has read: what came is already on this side, and the next
// read, which makes room on the line, is what has to come later.
func (l *limitedReader) Read(p []byte) (int, error) {
	n, err := l.ReadCloser.Read(p[:l.limits.part(len(p))])
	if werr := l.limits.Wait(l.ctx, n); werr != nil {
		return n, werr
	}
	return n, err
}

// Writer returns a writer to w whose bytes count against the limits. Where a
// limit applies, flush is called after every part, if it is not nil: what waits
// in a buffer looks like silence. Writes end when ctx does.
func (ls Limits) Writer(ctx context.Context, w io.Writer, flush func() error) io.Writer {
	return &limitedWriter{w, ctx, ls, flush}
}

type limitedWriter struct {
	w      io.Writer
	ctx    context.Context
	limits Limits
	flush  func() error
}

func (l *limitedWriter) Write(p []byte) (done int, err error) {
	for done < len(p) {
		part := l.limits.part(len(p) - done)
		if err := l.limits.Wait(l.ctx, part); err != nil {
			return done, err
		}
		n, err := l.w.Write(p[done : done+part])
		done += n
		if err != nil {
			return done, err
		}
		if l.flush != nil && l.limits.Rate() > 0 {
			if err := l.flush(); err != nil {
				return done, err
			}
		}
	}
	return done, nil
}

// CheckBandwidth refuses a limit that is neither 0 nor possible; name is the
// argument's. The code is bad_request.
func CheckBandwidth(name string, perSec int64) error {
	if perSec == 0 || perSec >= api.MinBandwidth && perSec <= api.MaxBandwidth {
		return nil
	}
	return fail(api.BadRequest, nil, "%s: allowed are %d to %d bytes per second, and 0 for no limit", name, int64(api.MinBandwidth), int64(api.MaxBandwidth))
}
