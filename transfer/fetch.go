package transfer

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"gantry/api"

	"github.com/go-json-experiment/json"
)

// Backoff after a broken connection: doubling from the first to the last, of
// which at least half is waited, so that many importers do not return together.
const (
	firstWait = 500 * time.Millisecond
	lastWait  = 30 * time.Second
	// maxWrong is how often a piece may arrive wrong before the source is asked
	// to read it again.
	maxWrong = 3
)

// puller asks a Source, again when the connection breaks, and proves what comes.
type puller struct {
	source   Source
	report   Reporter
	item     string
	retryFor time.Duration
	minWait  time.Duration
	maxWait  time.Duration
	winIdle  time.Duration
	bodyIdle time.Duration

	have string       // digest of the lines that are here, for the first request
	held *heldWindow  // the reply that kind looked at, for windows
	done func() int64 // of a stream: the pieces before it are durable here

	pace                 pace
	attempts, cuts, wire atomic.Int64
	good                 atomic.Int64 // when something proved or parsed came last, ns since born
	born                 time.Time
	counter              Counter
	waits                waits
}

func (p *puller) init(m *Import, r Reporter) {
	p.source, p.report, p.item, p.born = m.Source, r, m.Name, time.Now()
	p.done = func() int64 { return 0 }
	p.counter = silentCounter{}
	if l, ok := m.Source.(interface{ Rate() int64 }); ok {
		p.waits.limit = l.Rate
	}
	if l, ok := m.Source.(interface{ Alone() bool }); ok {
		p.waits.alone = l.Alone
	}
	or := func(d, standard time.Duration) time.Duration {
		if d > 0 {
			return d
		}
		return standard
	}
	p.retryFor = or(m.RetryFor, api.RetryFor)
	p.minWait, p.maxWait = or(m.minWait, firstWait), or(m.maxWait, lastWait)
	p.winIdle, p.bodyIdle = or(m.idle, windowIdle), or(m.idle, contentIdle)
}

// progress is called when something proved or parsed came.
func (p *puller) progress() { p.good.Store(int64(time.Since(p.born))) }

// errWrong makes retry ask again at once: the connection is sound, the bytes
// are not.
var errWrong = errors.New("a piece arrived wrong")

// retry calls try until it returns nil or an error that no retry mends. Errors
// with a code are such, the passing ones of refusal excepted. try says whether
// it got further, which starts the backoff anew.
func (p *puller) retry(ctx context.Context, what string, try func() (further bool, err error)) error {
	wait := p.minWait
	for {
		further, err := try()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return cancelled(ctx)
		case errors.Is(err, errWrong):
			continue
		}
		if r := refusal(err); r != nil {
			return r
		}
		p.cuts.Add(1)
		if further {
			wait = p.minWait
		}
		if silent := time.Since(p.born) - time.Duration(p.good.Load()); silent > p.retryFor {
			return fail(api.PeerLost, err, "%s: nothing came for %s: %.200s", what, silent.Round(time.Second), err)
		}
		d := wait/2 + rand.N(wait/2+1)
		p.report.Log("warn", p.item, fmt.Sprintf("%s: connection lost (%.200s), retry in %s", what, err, d.Round(time.Millisecond)))
		p.waits.again.Store(time.Now().Add(d).UnixNano())
		done := while(&p.waits.retry)
		err = sleep(ctx, d)
		done()
		if err != nil {
			return err
		}
		wait = min(2*wait, p.maxWait)
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return cancelled(ctx)
	}
}

// watched is a reader whose request ends when it is silent for too long: a
// half-open connection is a broken one.
type watched struct {
	io.ReadCloser
	timer  *time.Timer
	idle   time.Duration
	cancel context.CancelCauseFunc
}

var errIdle = errors.New("the source fell silent")

func watch(ctx context.Context, idle time.Duration, open func(context.Context) (io.ReadCloser, error)) (*watched, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(idle, func() { cancel(errIdle) })
	rc, err := open(ctx)
	if err == nil {
		return &watched{rc, timer, idle, cancel}, nil
	}
	timer.Stop()
	if context.Cause(ctx) == errIdle {
		err = errIdle
	}
	cancel(nil)
	return nil, err
}

// Read reads and puts the end off.
func (w *watched) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	w.timer.Reset(w.idle)
	return n, err
}

// Close ends the request.
func (w *watched) Close() error {
	w.timer.Stop()
	w.cancel(nil)
	return w.ReadCloser.Close()
}

// kind asks for the first window and returns of which kind its first line is;
// windows goes on with the same reply. What is no line is left to windows, too.
func (p *puller) kind(ctx context.Context) (kind string, err error) {
	err = p.retry(ctx, "manifest", func() (bool, error) {
		rc, err := p.ask(ctx, 0)
		if err != nil {
			return false, err
		}
		br := bufio.NewReaderSize(rc, maxTreeLine) // a tree's header with rules is longer than a line of a file
		for beats := 0; ; {
			raw, rerr := br.ReadSlice('\n')
			var l struct {
				Kind string `json:"kind"`
			}
			if rerr == nil && json.Unmarshal(raw, &l) == nil && l.Kind == kindBeat && beats < maxBeats {
				beats++
				continue
			}
			kind = l.Kind
			p.held = &heldWindow{w: rc, r: io.MultiReader(bytes.NewReader(bytes.Clone(raw)), errReader{rerr}, br)}
			return true, nil
		}
	})
	return kind, err
}

// errReader repeats the error with which a line ended, if there was one.
type errReader struct{ err error }

// Read never has bytes.
func (e errReader) Read([]byte) (int, error) {
	if e.err == nil || errors.Is(e.err, bufio.ErrBufferFull) {
		return 0, io.EOF
	}
	return 0, e.err
}

// A fetcher fetches pieces into a buffer of its own, one at a time.
type fetcher struct {
	*puller
	buf   []byte
	h     pieceHasher
	parts partHasher
}

// fetch brings neighbouring pieces in one request, or in more when that breaks,
// and hands each to keep once it is proved. keep must not hold on to the bytes;
// its errors have codes.
func (f *fetcher) fetch(ctx context.Context, pieces []part, keep func(part, []byte) error) error {
	wrong := 0
	var got [maxWrong]Value
	return f.retry(ctx, "content", func() (further bool, err error) {
		first, last := pieces[0], pieces[len(pieces)-1]
		off, end := first.off(), last.off()+last.len()
		f.attempts.Add(1)
		defer while(&f.waits.content)()
		body, err := f.content(ctx, Range{off, end - off})
		if err != nil {
			return false, err
		}
		defer body.Close()
		for len(pieces) > 0 {
			p := pieces[0]
			v, err := f.land(body, p)
			if err != nil {
				return further, err
			}
			if v != p.Value {
				got[wrong] = v
				if wrong++; wrong == maxWrong {
					return further, f.judge(ctx, p, got)
				}
				f.report.Log("warn", f.item, fmt.Sprintf("piece %d arrived with other content than the source hashed, nothing of it is kept, asking again", p.N))
				return further, errWrong
			}
			f.progress()
			further, wrong = true, 0
			if err := keep(p, f.buf[:p.len()]); err != nil {
				return further, err
			}
			pieces = pieces[1:]
		}
		return further, nil
	})
}

// content asks for a range, packed where that is worth while.
func (f *fetcher) content(ctx context.Context, r Range) (io.ReadCloser, error) {
	if !f.pace.slow() {
		body, err := watch(ctx, f.bodyIdle, func(ctx context.Context) (io.ReadCloser, error) { return f.source.Content(ctx, r.At, r.Len) })
		if err != nil {
			return nil, err
		}
		return readCloser{counted{counted{body, &f.wire}, &f.pace.plain}, body}, nil
	}
	ranges := []Range{r}
	body, err := watch(ctx, f.bodyIdle, func(ctx context.Context) (io.ReadCloser, error) { return f.source.Frames(ctx, ranges, true) })
	if err != nil {
		return nil, err
	}
	plain := NewFrameReader(counted{counted{body, &f.wire}, &f.pace.packed}, ranges)
	return readCloser{counted{plain, &f.pace.stood}, body}, nil
}

type readCloser struct {
	io.Reader
	io.Closer
}

// land reads a piece into the buffer and hashes it while it comes.
func (f *fetcher) land(body io.Reader, p part) (Value, error) {
	buf := f.buf[:p.len()]
	f.h.reset(p.N, p.whole())
	for at := 0; at < len(buf); {
		k, err := body.Read(buf[at:min(at+readSize, len(buf))])
		at += k
		f.counter.Came(int64(k))
		f.h.land(buf, at)
		if err != nil && at < len(buf) {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF // fronts end broken replies properly
			}
			return Value{}, err
		}
	}
	return f.h.sum(buf), nil
}

// judge names the guilty side for a piece that stays wrong.
func (f *fetcher) judge(ctx context.Context, e part, got [maxWrong]Value) error {
	f.report.Log("warn", f.item, fmt.Sprintf("piece %d arrived wrong %d times, the source is to read it again", e.N, maxWrong))
	var again Value
	err := f.retry(ctx, "reading again", func() (bool, error) {
		rc, err := watch(ctx, f.bodyIdle, func(ctx context.Context) (io.ReadCloser, error) { return f.source.Rehash(ctx, e.N) })
		if err != nil {
			return false, err
		}
		defer rc.Close()
		_, err = ReadWindow(rc, e.N, 1, func(file File, x Entry) error {
			if file.Size != e.size {
				return fail(api.SourceChanged, nil, "the source has now %d bytes instead of %d", file.Size, e.size)
			}
			if again = x.Value; x.Zero {
				again = ZeroValue(e.N, e.len(), e.whole())
			}
			return nil
		})
		return false, err
	})
	switch {
	case err != nil:
		return err
	case again != e.Value:
		return fail(api.SourceChanged, nil, "piece %d of the source reads otherwise than when its manifest was made", e.N)
	case got[0] == got[1] && got[1] == got[2]:
		return fail(api.CorruptPiece, nil, "piece %d: the source confirms its value but sends the same other bytes every time: the source, or the web server that sends its files, is at fault", e.N)
	}
	return fail(api.CorruptPiece, nil, "piece %d: the source confirms its value but other bytes arrive every time: something between source and target changes them", e.N)
}
