package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// A reader who takes his time over a reply fills the sockets on the way, and a
// front that cannot write for a minute ends it (nginx's send_timeout). At a low
// rate the pieces in it would never become whole. So under carefulRate no more is
// asked for at once than the sockets hold.
const (
	carefulRate = 4 << 20 // bytes per second
	leastAsked  = 64 << 10
	mostAsked   = 256 << 10
)

// Ask returns what open brings of ranges, one after the other, under the limits:
// in one request, or in small ones where the rate is low. Each reply but the
// first has skip bytes at its beginning that are left out. The first is asked for
// before Ask returns. What open returned is closed when it ends; closing the
// reader closes the last.
func (ls Limits) Ask(ctx context.Context, ranges []Range, skip int64, open func(context.Context, []Range) (io.ReadCloser, error)) (io.ReadCloser, error) {
	a := &asker{ctx: ctx, limits: ls, rest: ranges, open: open}
	if err := a.next(); err != nil {
		return nil, err
	}
	a.skip = skip
	return ls.Reader(ctx, a), nil
}

// FramesHead is the bytes before the frames of a reply.
const FramesHead = int64(len(framesMagic))

type asker struct {
	ctx    context.Context
	limits Limits
	open   func(context.Context, []Range) (io.ReadCloser, error)
	skip   int64
	rest   []Range       // not asked for yet
	rc     io.ReadCloser // the reply that is read; nil between two
}

// next asks for the next part.
func (a *asker) next() error {
	rc, err := a.open(a.ctx, a.cut())
	if err != nil {
		return err
	}
	if _, err := io.CopyN(io.Discard, rc, a.skip); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return errors.Join(fmt.Errorf("reading the beginning of a reply: %w", err), rc.Close())
	}
	a.rc = rc
	return nil
}

// cut takes from rest what is asked for at once.
func (a *asker) cut() []Range {
	rate := a.limits.Rate()
	if rate == 0 || rate >= carefulRate {
		part := a.rest
		a.rest = nil
		return part
	}
	var part []Range
	for left := max(leastAsked, min(rate/8, mostAsked)); left > 0 && len(a.rest) > 0; {
		r := a.rest[0]
		if r.Len <= left {
			part, a.rest = append(part, r), a.rest[1:]
		} else {
			part = append(part, Range{r.At, left})
			a.rest = append([]Range{{r.At + left, r.Len - left}}, a.rest[1:]...)
		}
		left -= part[len(part)-1].Len
	}
	return part
}

// Read goes on with the next reply when one has ended.
func (a *asker) Read(p []byte) (int, error) {
	for {
		if a.rc == nil {
			if len(a.rest) == 0 {
				return 0, io.EOF
			}
			if err := a.next(); err != nil {
				return 0, err
			}
		}
		n, err := a.rc.Read(p)
		if err == io.EOF {
			err = a.rc.Close()
			a.rc = nil
		}
		if n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
	}
}

func (a *asker) Close() error {
	if a.rc == nil {
		return nil
	}
	return a.rc.Close()
}
