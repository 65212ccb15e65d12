package transfer

import (
	"context"
	"io"
	"sync"
	"time"

	"gantry/api"
)

// lines brings lines in parts while the source writes them, so that the import
// can work on the first while the source hashes the last, and a source that
// takes its time is heard of.
func (r *pushing) lines(ctx context.Context, w api.Want, write func(context.Context, io.Writer) error) error {
	return r.parted(ctx, func(ctx context.Context, out io.Writer) ([]byte, error) {
		begun := &noted{}
		err := write(ctx, io.MultiWriter(begun, out))
		if err != nil && begun.n == 0 {
			// Refused before the first line: the import has to hear why. What came
			// later is in the lines.
			return errorLine(err).append(nil), nil
		}
		return nil, nil
	}, func(at int64, lines []byte, last bool) error { return r.To.PutLines(ctx, w, at, lines, last) })
}

// parted hands what write writes to put, in parts. write may return a rest; its
// error ends all.
func (r *pushing) parted(ctx context.Context, write func(context.Context, io.Writer) ([]byte, error), put func(at int64, part []byte, last bool) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	p := &partQueue{ctx: ctx, news: make(chan struct{}, 1), room: make(chan struct{}, 1)}
	var writing sync.WaitGroup
	defer writing.Wait()
	defer cancel(nil)
	writing.Go(func() {
		rest, err := write(ctx, p)
		if err != nil {
			cancel(err)
		}
		p.end(rest)
	})
	return p.send(func(at int64, part []byte, last bool) error {
		err := put(at, part, last)
		if err == nil {
			r.good.Store(int64(time.Since(r.start)))
		}
		return err
	})
}

// partQueue hands what is written on in parts of at most api.MaxPart bytes.
type partQueue struct {
	ctx  context.Context
	news chan struct{} // something was written, or the end
	room chan struct{} // something was taken

	mu    sync.Mutex
	buf   []byte // guarded by mu
	ended bool   // guarded by mu
}

// Write waits while a part is waiting.
func (p *partQueue) Write(b []byte) (int, error) {
	for {
		p.mu.Lock()
		if len(p.buf) < api.MaxPart {
			p.buf = append(p.buf, b...)
			p.mu.Unlock()
			wake(p.news)
			return len(b), nil
		}
		p.mu.Unlock()
		select {
		case <-p.room:
		case <-p.ctx.Done():
			return 0, context.Cause(p.ctx)
		}
	}
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (p *partQueue) end(rest []byte) {
	p.mu.Lock()
	p.buf, p.ended = append(p.buf, rest...), true
	p.mu.Unlock()
	wake(p.news)
}

// send hands parts to put until the end.
func (p *partQueue) send(put func(at int64, lines []byte, last bool) error) error {
	for at := int64(0); ; {
		select {
		case <-p.news:
		case <-p.ctx.Done():
			return cancelled(p.ctx)
		}
		if err := p.linger(); err != nil {
			return err
		}
		p.mu.Lock()
		n := min(len(p.buf), api.MaxPart)
		part := p.buf[:n:n]
		p.buf = append([]byte(nil), p.buf[n:]...)
		last := p.ended && len(p.buf) == 0
		more := len(p.buf) > 0
		p.mu.Unlock()
		wake(p.room)
		switch {
		case p.ctx.Err() != nil:
			return cancelled(p.ctx) // what was written may not be all
		case n == 0 && !last:
			continue // it went with the part before
		}
		if err := put(at, part, last); err != nil || last {
			return err
		}
		at += int64(len(part))
		if more {
			wake(p.news)
		}
	}
}

// linger lets a part grow for a moment.
func (p *partQueue) linger() error {
	t := time.NewTimer(pushLinger)
	defer t.Stop()
	for {
		p.mu.Lock()
		full := p.ended || len(p.buf) >= api.MaxPart
		p.mu.Unlock()
		if full {
			return nil
		}
		select {
		case <-p.news:
		case <-t.C:
			return nil
		case <-p.ctx.Done():
			return cancelled(p.ctx)
		}
	}
}
