package transfer_test

import (
	"context"
	"errors"
	"io"
	"sync/atomic"

	"gantry/transfer"
)

// faulty is a Source whose replies are tampered with.
type faulty struct {
	transfer.Source
	// content is asked before the kth request (from 1) for length bytes from off.
	content func(k int, off, length int64) *fault
	// window and rehash may wrap the kth reply.
	window func(k int, from int64, rc io.ReadCloser) io.ReadCloser
	rehash func(k int, rc io.ReadCloser) io.ReadCloser

	contents, windows, rehashes, bytes atomic.Int64
}

// fault is what happens to one content request.
type fault struct {
	refuse  error                     // the request fails
	at      int64                     // shift of the offset: other bytes than asked for
	cut     int64                     // > 0: the reply ends properly after so many bytes
	broken  error                     // at the cut: the reply ends with it
	flip    func(b []byte, pos int64) // may change the bytes at pos of the reply
	endless bool                      // the reply goes on for ever
}

func (f *faulty) Content(ctx context.Context, off, length int64) (io.ReadCloser, error) {
	k := int(f.contents.Add(1))
	var x *fault
	if f.content != nil {
		x = f.content(k, off, length)
	}
	if x == nil {
		x = &fault{}
	}
	if x.refuse != nil {
		return nil, x.refuse
	}
	rc, err := f.Source.Content(ctx, off+x.at, length)
	if err != nil {
		return nil, err
	}
	return &tampered{rc: rc, x: x, f: f}, nil
}

type tampered struct {
	rc  io.ReadCloser
	x   *fault
	f   *faulty
	pos int64
}

func (t *tampered) Read(p []byte) (int, error) {
	if t.x.cut > 0 {
		if t.pos >= t.x.cut {
			if t.x.broken != nil {
				return 0, t.x.broken
			}
			return 0, io.EOF
		}
		p = p[:min(int64(len(p)), t.x.cut-t.pos)]
	}
	n, err := t.rc.Read(p)
	if t.x.endless && errors.Is(err, io.EOF) {
		clear(p)
		n, err = len(p), nil
	}
	if t.x.flip != nil {
		t.x.flip(p[:n], t.pos)
	}
	t.pos += int64(n)
	t.f.bytes.Add(int64(n))
	return n, err
}

func (t *tampered) Close() error { return t.rc.Close() }

func (f *faulty) Window(ctx context.Context, from, n, done int64) (io.ReadCloser, error) {
	rc, err := f.Source.Window(ctx, from, n, done)
	if k := int(f.windows.Add(1)); err == nil && f.window != nil {
		rc = f.window(k, from, rc)
	}
	return rc, err
}

func (f *faulty) Rehash(ctx context.Context, n int64) (io.ReadCloser, error) {
	rc, err := f.Source.Rehash(ctx, n)
	if k := int(f.rehashes.Add(1)); err == nil && f.rehash != nil {
		rc = f.rehash(k, rc)
	}
	return rc, err
}
