package fastcgi

import (
	"bufio"
	"io"
	"slices"
	"sync"
)

const (
	// smallSize holds most headers, parameters and lines of a feed.
	smallSize = 4 << 10
	// bigSize holds the content of the longest record.
	bigSize = maxContent + 1
)

// buffer is memory from one of two pools. A nil *buffer is an empty one.
type buffer struct{ b []byte }

var (
	smallBuffers = sync.Pool{New: func() any { return &buffer{make([]byte, 0, smallSize)} }}
	bigBuffers   = sync.Pool{New: func() any { return &buffer{make([]byte, 0, bigSize)} }}
)

func smallBuffer() *buffer { return smallBuffers.Get().(*buffer) }
func bigBuffer() *buffer   { return bigBuffers.Get().(*buffer) }

// free gives the memory back, unless append has outgrown the pools.
func (b *buffer) free() {
	if b == nil {
		return
	}
	b.b = b.b[:0]
	switch cap(b.b) {
	case smallSize:
		smallBuffers.Put(b)
	case bigSize:
		bigBuffers.Put(b)
	}
}

func (b *buffer) len() int { return len(b.bytes()) }

func (b *buffer) bytes() []byte {
	if b == nil {
		return nil
	}
	return b.b
}

// append adds p and returns the buffer to use from now on.
func (b *buffer) append(p []byte) *buffer {
	if b == nil {
		b = smallBuffer()
	}
	n := len(b.b)
	b = b.grow(len(p))
	copy(b.b[n:], p)
	return b
}

// grow makes b longer by n bytes of any content.
func (b *buffer) grow(n int) *buffer {
	if size := len(b.b) + n; size > smallSize && cap(b.b) == smallSize && size <= bigSize {
		big := bigBuffer()
		big.b = append(big.b, b.b...)
		b.free()
		b = big
	}
	b.b = slices.Grow(b.b, n)[:len(b.b)+n]
	return b
}

// readers are small: long content bypasses them, and each open connection keeps
// one.
var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, smallSize) }}

func newReader(r io.Reader) *bufio.Reader {
	br := readers.Get().(*bufio.Reader)
	br.Reset(r)
	return br
}

func freeReader(br *bufio.Reader) {
	br.Reset(nil)
	readers.Put(br)
}
