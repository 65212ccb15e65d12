package feedback

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// MediaType is the media type of a feed.
const MediaType = "application/x-ndjson"

// WriterOptions of a stream. The zero value is right for well-behaved fronts.
type WriterOptions struct {
	Padding     int  // spaces before each newline, for fronts that hold back short writes; less where the line would be too long
	Incremental bool // send the header Incremental: ?1
}

// A Writer writes lines to an HTTP reply, each with one write and one flush,
// so that each becomes one FastCGI record. Its methods may be called from
// several goroutines.
type Writer struct {
	// config
	w       http.ResponseWriter
	rc      *http.ResponseController
	padding int

	mu    sync.Mutex
	buf   []byte    // guarded by mu; released between lines when it is large
	wrote time.Time // guarded by mu
	final bool      // guarded by mu
	err   error     // guarded by mu; sticks
}

// NewWriter sets the headers of a feed on w: its media type, and that nobody
// on the way may store it, buffer it or guess its type. Nothing is sent before
// the first line.
func NewWriter(w http.ResponseWriter, o WriterOptions) *Writer {
	h := w.Header()
	h.Set("Content-Type", MediaType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	h.Set("X-Content-Type-Options", "nosniff")
	if o.Incremental {
		h.Set("Incremental", "?1")
	}
	return &Writer{w: w, rc: http.NewResponseController(w), padding: max(o.Padding, 0), wrote: time.Now()}
}

// Write encodes rec, writes and flushes it.
func (w *Writer) Write(rec Record) error {
	b, err := Encode(rec)
	if err != nil {
		return err
	}
	return w.WriteLine(b, rec.Kind.Final())
}

// WriteLine writes b, one JSON object without newline, and flushes it. After
// the final line it returns ErrFinished. A failed write sticks: part of the
// line may have been sent.
func (w *Writer) WriteLine(b []byte, final bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.err != nil:
		return w.err
	case w.final:
		return ErrFinished
	case len(b)+1 > MaxJobLine:
		return errLong
	}
	w.buf = append(w.buf[:0], b...)
	w.buf = appendPadding(w.buf, w.padding)
	w.buf = append(w.buf, '\n')
	if _, err := w.w.Write(w.buf); err != nil {
		w.err = fmt.Errorf("writing to the feed's reader: %w", err)
		return w.err
	}
	if err := w.rc.Flush(); err != nil {
		w.err = fmt.Errorf("flushing to the feed's reader: %w", err)
		return w.err
	}
	if cap(w.buf) > keptBuffer {
		w.buf = nil
	}
	w.wrote, w.final = time.Now(), final
	return nil
}

// keptBuffer is what an idle Writer may keep, in bytes.
const keptBuffer = 4 << 10

// appendPadding appends n spaces, fewer where a line with its newline would
// pass the limit of its class.
func appendPadding(b []byte, n int) []byte {
	limit := MaxTaskLine
	if len(b)+1 > limit {
		limit = MaxJobLine
	}
	for n = min(n, limit-len(b)-1); n > 0; n-- {
		b = append(b, ' ')
	}
	return b
}

// Wrote returns when the last line was written; before the first, when the
// Writer was made.
func (w *Writer) Wrote() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.wrote
}

// KeepAlive writes a heartbeat whenever nothing was written for interval,
// until ctx ends or the final or a failed write; it returns the latter's
// error. It is for replies that are not the stream of a Feed; run it in a
// goroutine and wait for it. last returns the number that a heartbeat names.
func (w *Writer) KeepAlive(ctx context.Context, interval time.Duration, last func() int64) error {
	t := time.NewTimer(interval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		idle := time.Since(w.Wrote())
		if idle < interval {
			t.Reset(interval - idle)
			continue
		}
		err := w.Write(heartbeat(last()))
		if errors.Is(err, ErrFinished) {
			return nil
		}
		if err != nil {
			return err
		}
		t.Reset(interval)
	}
}

func heartbeat(last int64) Record {
	return Record{Kind: KindHeartbeat, Time: time.Now(), Body: &Heartbeat{Last: last}}
}

// unblock ends a write that waits for a reader who does not read, by a
// deadline in the past; where the reply has no deadlines it does nothing.
func (w *Writer) unblock() { _ = w.rc.SetWriteDeadline(time.Unix(1, 0)) }
