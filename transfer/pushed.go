package transfer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"gantry/api"
)

// maxWants bounds the open wants of one import: more than an import has
// connections, with its manifest and one piece to be read again beside them.
const maxWants = 64

// pushBuffer is what is handed from a request to the import at once.
const pushBuffer = 256 << 10

var pushBuffers = sync.Pool{New: func() any { return new([pushBuffer]byte) }}

// Pushed is a [Source] whose bytes somebody brings: for an import that may not,
// or cannot, dial its source. Each call of the import becomes a want with a
// number, which stays open until it is answered or the import gives it up;
// whoever pushes asks for the open wants and answers them. So everything that an
// import does with a source that falls silent, breaks off or lies holds for one
// that pushes, and nothing is kept here: bytes go straight to the import, which
// holds the sender up while it is busy.
//
// Its methods may be called concurrently. Nothing that is brought is trusted.
type Pushed struct {
	mu    sync.Mutex
	next  int64           // guarded by mu
	wants map[int64]*want // guarded by mu; open
	news  chan struct{}   // guarded by mu; closed and replaced when a want comes
	under Limits          // guarded by mu
	heard time.Time       // guarded by mu; when somebody asked or brought something

	once   sync.Once
	closed chan struct{} // by Close
}

var _ Source = (*Pushed)(nil)

// want is one open want. Whoever answers writes, the import reads.
type want struct {
	api.Want
	r    *io.PipeReader
	w    *io.PipeWriter
	at   int64 // guarded by Pushed.mu; bytes that were brought
	busy bool  // guarded by Pushed.mu; an answer is under way
}

// NewPushed makes a source whose first want has the number first, from 1: a
// number that was used before a restart must not be used again.
func NewPushed(first int64) *Pushed {
	return &Pushed{next: first, wants: map[int64]*want{}, news: make(chan struct{}), closed: make(chan struct{})}
}

// Window implements Source.
func (p *Pushed) Window(ctx context.Context, from, n, done int64) (io.ReadCloser, error) {
	return p.ask(ctx, api.Want{Kind: api.WantManifest, From: from, N: n, Done: done})
}

// Content implements Source.
func (p *Pushed) Content(ctx context.Context, off, length int64) (io.ReadCloser, error) {
	return p.ask(ctx, api.Want{Kind: api.WantContent, Off: off, Length: length})
}

// Rehash implements Source.
func (p *Pushed) Rehash(ctx context.Context, n int64) (io.ReadCloser, error) {
	return p.ask(ctx, api.Want{Kind: api.WantRehash, From: n, N: 1})
}

// Sub implements Source.
func (p *Pushed) Sub(ctx context.Context, pieces []int64) (io.ReadCloser, error) {
	return p.ask(ctx, api.Want{Kind: api.WantSub, Pieces: slices.Clone(pieces)})
}

// Frames implements Source.
func (p *Pushed) Frames(ctx context.Context, ranges []Range, compress bool) (io.ReadCloser, error) {
	w := api.Want{Kind: api.WantFrames, Zstd: compress}
	for _, r := range ranges {
		w.Ranges = append(w.Ranges, api.WantRange{At: r.At, Len: r.Len})
	}
	return p.ask(ctx, w)
}

// Under is p with limits on the content that comes.
func (p *Pushed) Under(limits Limits) Source {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.under = limits
	return limitedSource{p, limits}
}

// Rate is the strictest of the limits in bytes a second, 0 for none. Whoever pushes
// should send no faster: what a front takes in and the import does not is sent in
// vain when the front's patience ends.
func (p *Pushed) Rate() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.under.Rate()
}

// Alone reports whether nobody pushes: nobody has asked for wants or brought
// anything for three of the longest pauses.
func (p *Pushed) Alone() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.wants {
		if w.busy {
			return false
		}
	}
	return time.Since(p.heard) > 3*api.MissingWait
}

func (p *Pushed) hear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heard = time.Now()
}

type limitedSource struct {
	*Pushed
	limits Limits
}

// Rate is what a stalled import looks at.
func (s limitedSource) Rate() int64 { return s.limits.Rate() }

func (s limitedSource) Content(ctx context.Context, off, length int64) (io.ReadCloser, error) {
	rc, err := s.Pushed.Content(ctx, off, length)
	if err != nil {
		return nil, err
	}
	return s.limits.Reader(ctx, rc), nil
}

func (s limitedSource) Frames(ctx context.Context, ranges []Range, compress bool) (io.ReadCloser, error) {
	rc, err := s.Pushed.Frames(ctx, ranges, compress)
	if err != nil {
		return nil, err
	}
	return s.limits.Reader(ctx, rc), nil
}

// answer is the import's end of a want; closing it gives the want up.
type answer struct {
	*io.PipeReader
	end func()
}

func (a *answer) Close() error { a.end(); return nil }

// errUnwanted ends the writing of an answer that the import needs no more.
var errUnwanted = errors.New("the import has stopped asking for it")

func (p *Pushed) ask(ctx context.Context, a api.Want) (io.ReadCloser, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.wants) >= maxWants {
		return nil, fail(api.TooMany, nil, "more than %d open wants", maxWants)
	}
	a.Seq = p.next
	p.next++
	w := &want{Want: a}
	w.r, w.w = io.Pipe()
	p.wants[a.Seq] = w
	close(p.news)
	p.news = make(chan struct{})
	stop := context.AfterFunc(ctx, func() { p.drop(w, context.Cause(ctx)) })
	return &answer{w.r, func() {
		stop()
		p.drop(w, errUnwanted)
	}}, nil
}

// drop closes a want: its reader gets err, or the end when err is io.EOF.
func (p *Pushed) drop(w *want, err error) {
	p.mu.Lock()
	if p.wants[w.Seq] == w {
		delete(p.wants, w.Seq)
	}
	p.mu.Unlock()
	// Not the reader's end: then it would read that its pipe is closed, not why.
	w.w.CloseWithError(err)
}

// Missing returns the wants from number from on that nobody is answering, oldest
// first: at once if there are any, else when one comes, and none when ctx ends.
func (p *Pushed) Missing(ctx context.Context, from int64) []api.Want {
	p.hear()
	for {
		p.mu.Lock()
		open := []api.Want{}
		for _, w := range p.wants {
			if w.Seq >= from && !w.busy {
				open = append(open, w.Want)
			}
		}
		news := p.news
		p.mu.Unlock()
		if len(open) > 0 {
			slices.SortFunc(open, func(a, b api.Want) int { return int(a.Seq - b.Seq) })
			return open
		}
		select {
		case <-news:
		case <-p.closed:
			return open
		case <-ctx.Done():
			return open
		}
	}
}

// Close says that the import asks for nothing more; Missing waits no longer.
func (p *Pushed) Close() { p.once.Do(func() { close(p.closed) }) }

// Closed reports whether Close was called.
func (p *Pushed) Closed() bool {
	select {
	case <-p.closed:
		return true
	default:
		return false
	}
}

// PutLines brings the next part of the lines of a window, of a piece read again or
// of the parts of pieces: length bytes of body, which begin at byte at of the
// answer. last says that nothing follows. from is compared with the want's. Codes:
// not_wanted, offset_mismatch. Wants of bytes take one error line only: the
// source's reason why it cannot give them.
func (p *Pushed) PutLines(ctx context.Context, seq, from, at, length int64, last bool, body io.Reader) error {
	w, err := p.take(seq, func(w *want) error {
		if from != w.From || at != w.at || w.bytes() && (at != 0 || !last) {
			return fail(api.OffsetMismatch, nil, "want %d: the part from entry %d and byte %d came, wanted is the one from entry %d and byte %d", seq, from, at, w.From, w.at)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if w.bytes() {
		return p.refused(w, io.LimitReader(body, length))
	}
	return p.copy(ctx, w, length, last, body)
}

// bytes reports whether a want is answered with bytes, not lines.
func (w *want) bytes() bool { return w.Kind == api.WantContent || w.Kind == api.WantFrames }

// PutFrames brings the next part of frames, as PutLines does of lines.
func (p *Pushed) PutFrames(ctx context.Context, seq, at, length int64, last bool, body io.Reader) error {
	w, err := p.take(seq, func(w *want) error {
		if w.Kind != api.WantFrames || at != w.at {
			return fail(api.OffsetMismatch, nil, "want %d: frames from byte %d came, wanted is %s from byte %d", seq, at, w.Kind, w.at)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return p.copy(ctx, w, length, last, body)
}

// PutContent brings the bytes from off to off+length. They may be a part of what
// the want asks for when they begin where the bytes before ended. total is the
// size of the whole content as the sender says, -1 unknown. Codes: as PutLines.
func (p *Pushed) PutContent(ctx context.Context, seq, off, length, total int64, body io.Reader) error {
	w, err := p.take(seq, func(w *want) error {
		switch {
		case w.Kind != api.WantContent:
			return fail(api.OffsetMismatch, nil, "want %d is of kind %s, not content", seq, w.Kind)
		case off != w.Off+w.at || length < 1 || length > w.Length-w.at, total >= 0 && total < w.Off+w.Length:
			return fail(api.OffsetMismatch, nil, "want %d: %d bytes from %d of %d came, wanted are %d from %d", seq, length, off, total, w.Length-w.at, w.Off+w.at)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return p.copy(ctx, w, length, length == w.Length-w.at, body)
}

// take makes the caller the one who answers a want. at does not change until
// copy has ended.
func (p *Pushed) take(seq int64, check func(*want) error) (*want, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.wants[seq]
	switch {
	case w == nil:
		return nil, fail(api.NotWanted, nil, "there is no open want %d", seq)
	case w.busy:
		return nil, fail(api.NotWanted, nil, "want %d is being answered by another request", seq)
	}
	if err := check(w); err != nil {
		return nil, err
	}
	w.busy = true
	return w, nil
}

// copy hands the body to the import. What breaks off ends the want: the import
// keeps what it has proved and asks for the rest under a new number.
func (p *Pushed) copy(ctx context.Context, w *want, length int64, last bool, body io.Reader) error {
	defer context.AfterFunc(ctx, func() { p.drop(w, fmt.Errorf("the push broke off: %w", context.Cause(ctx))) })()
	buf := pushBuffers.Get().(*[pushBuffer]byte)
	defer pushBuffers.Put(buf)
	// Only Write of the pipe may be used: its ReadFrom is not there, and
	// LimitReader has no WriteTo, so the buffer is.
	n, err := io.CopyBuffer(w.w, io.LimitReader(body, length), buf[:])
	switch {
	case errors.Is(err, io.ErrClosedPipe):
		return fail(api.NotWanted, nil, "want %d: %s", w.Seq, errUnwanted)
	case err == nil && n < length:
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		p.drop(w, fmt.Errorf("the push broke off after %d of %d bytes: %w", n, length, err))
		return fmt.Errorf("reading what is pushed: %w", err)
	}
	if last {
		p.drop(w, io.EOF)
		return nil
	}
	p.hear()
	p.mu.Lock()
	w.at += n
	w.busy = false
	p.mu.Unlock()
	return nil
}

// refused reads the one error line with which a source answers a want that it
// cannot give.
func (p *Pushed) refused(w *want, body io.Reader) error {
	lr := &lineReader{br: bufio.NewReaderSize(body, maxLine)}
	l, err := lr.next()
	if err == nil && l.Kind != kindError {
		err = badManifest("line of kind %q in place of content", l.Kind)
	}
	if err != nil {
		p.drop(w, fmt.Errorf("the push broke off: %w", err))
		return err
	}
	p.drop(w, l.wire())
	return nil
}
