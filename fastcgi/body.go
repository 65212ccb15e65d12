package fastcgi

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"
)

// chunk is a piece of read-ahead: data[r:w] waits for the handler.
type chunk struct {
	r, w int
	data [32 << 10]byte
}

var chunks = sync.Pool{New: func() any { return new(chunk) }}

// body is the FCGI_STDIN stream between the connection's reader, which fills it,
// and the handler, which reads it as r.Body. Its memory is at most limit bytes
// and one chunk, and nothing while there is nothing to read.
type body struct {
	// config
	limit  int
	length int64  // CONTENT_LENGTH, -1 if unknown
	wake   func() // interrupts a parked reader; called with mu held

	mu       sync.Mutex
	cond     sync.Cond // something changed for Read; L is &mu
	queue    []*chunk
	buffered int
	received int64
	filling  bool // the reader is writing behind the last chunk's w
	parked   bool // the reader waits for room
	ended    bool // the empty FCGI_STDIN has come
	closed   bool // the handler wants no more
	err      error
	deadline time.Time
	timer    *time.Timer
}

func (b *body) init(limit int, length int64, wake func()) {
	b.limit, b.length, b.wake = limit, length, wake
	b.cond.L = &b.mu
}

// reserve returns memory for up to n bytes, which commit then makes readable.
// It returns nil when the bytes are not wanted, and park says that there is no
// room: the reader must then wait and ask again.
func (b *body) reserve(n int) (space []byte, park bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.err != nil {
		return nil, false
	}
	room := b.limit - b.buffered
	if room <= 0 {
		b.parked = true
		return nil, true
	}
	if len(b.queue) == 0 || b.queue[len(b.queue)-1].w == len(chunk{}.data) {
		c := chunks.Get().(*chunk)
		c.r, c.w = 0, 0
		b.queue = append(b.queue, c)
	}
	last := b.queue[len(b.queue)-1]
	b.filling = true
	return last.data[last.w:min(last.w+min(n, room), len(last.data))], false
}

func (b *body) commit(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.filling = false
	b.queue[len(b.queue)-1].w += n
	b.buffered += n
	b.received += int64(n)
	if b.closed {
		b.release()
	}
	b.trim()
	b.cond.Broadcast()
}

// drop counts bytes that arrived and were thrown away.
func (b *body) drop(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.received += int64(n)
}

// unpark ends a wait that reserve asked for.
func (b *body) unpark() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.parked = false
}

// exceeds reports whether n more bytes are more than CONTENT_LENGTH allows.
func (b *body) exceeds(n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.length >= 0 && !b.closed && b.received+int64(n) > b.length
}

// awaitRoom is for sockets that cannot be watched while they are left alone.
func (b *body) awaitRoom() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.parked {
		b.cond.Wait()
	}
}

// complete reports whether all of a body of known length has come.
func (b *body) complete() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.length >= 0 && b.received == b.length
}

// end notes the end of FCGI_STDIN. After a failure it is not the end of the
// body: what came in between was dropped.
func (b *body) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.ended = true
	}
	b.cond.Broadcast()
}

// fail ends the body at what has come so far.
func (b *body) fail(cause error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.err = cause
	}
	b.interrupt()
	b.cond.Broadcast()
}

// Read returns what has been read ahead, or waits for it.
func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		switch {
		case b.closed:
			return 0, http.ErrBodyReadAfterClose
		case len(p) == 0:
			return 0, nil
		case !b.deadline.IsZero() && !time.Now().Before(b.deadline):
			return 0, os.ErrDeadlineExceeded
		case b.buffered > 0:
			return b.take(p), nil
		case b.ended && b.length >= 0 && b.received < b.length:
			return 0, io.ErrUnexpectedEOF
		case b.ended:
			return 0, io.EOF
		case b.err != nil:
			return 0, fmt.Errorf("reading body: %w (%w)", b.err, io.ErrUnexpectedEOF)
		}
		b.cond.Wait()
	}
}

func (b *body) take(p []byte) (n int) {
	for n < len(p) && b.buffered > 0 {
		c := b.queue[0]
		m := copy(p[n:], c.data[c.r:c.w])
		c.r += m
		b.buffered -= m
		n += m
		b.trim()
	}
	// Half, not one byte: each wake-up of a parked reader is two system calls.
	if b.buffered <= b.limit/2 {
		b.interrupt()
	}
	return n
}

// trim gives back the first chunk if it is used up and nobody writes to it.
func (b *body) trim() {
	if len(b.queue) == 0 || b.filling && len(b.queue) == 1 {
		return
	}
	if c := b.queue[0]; c.r == c.w {
		b.queue[0] = nil
		b.queue = b.queue[1:]
		chunks.Put(c)
	}
}

// release gives back everything that is not being written to.
func (b *body) release() {
	for len(b.queue) > 0 && !(b.filling && len(b.queue) == 1) {
		b.queue[0].r = b.queue[0].w
		b.trim()
	}
	b.buffered = 0
	if len(b.queue) == 1 {
		b.queue[0].r = b.queue[0].w
	}
}

func (b *body) interrupt() {
	if b.parked {
		b.parked = false
		b.wake()
		b.cond.Broadcast()
	}
}

// Close throws away the rest of the body.
func (b *body) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil
	}
	b.closed = true
	b.release()
	if b.timer != nil {
		b.timer.Stop()
	}
	b.interrupt()
	b.cond.Broadcast()
	return nil
}

// setDeadline makes Read fail with os.ErrDeadlineExceeded from t on, until
// another deadline is set; the zero time removes it.
func (b *body) setDeadline(t time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.timer != nil {
		b.timer.Stop()
		b.timer = nil
	}
	b.deadline = t
	if !t.IsZero() && !b.closed {
		b.timer = time.AfterFunc(time.Until(t), func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.cond.Broadcast()
		})
	}
	b.cond.Broadcast()
}
