package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"time"

	"gantry/api"
	"gantry/feedback"
)

// A Producer makes the content of a [Stream].
type Producer interface {
	io.Reader
	// Finish is called after the last byte, and says whether they were all: its
	// error is the stream's.
	Finish() error
	// Stop ends it, and a Read that waits, as soon as possible; it may be called
	// at any time, by another goroutine, more than once.
	Stop()
}

// Stream is an export of unknown size: what a Producer writes is hashed as it
// comes and kept in a spool of bounded size until its reader has it on disk. The
// producer waits when the spool is full. Nothing of it outlives the process.
type Stream struct {
	from   Producer
	item   string
	spool  *spool
	values *slots // of all pieces, also of those that the spool gave up
	count  Counter
	ctx    context.Context // ends at Close
	stop   context.CancelFunc
	work   sync.WaitGroup // the goroutine of produce
	failed chan struct{}  // closed when err is set

	mu     sync.Mutex
	ready  int64 // pieces before it have a value
	done   int64 // pieces before it are durable at the reader
	full   bool  // the producer waits for room
	size   int64 // -1 before the end
	digest string
	err    error         // sticky
	news   chan struct{} // closed and replaced when something above changes
}

var _ Exporter = (*Stream)(nil)

// OpenStream begins to read p into a spool of room bytes, at least MinSpool, in
// the folder dir. Progress is counted under item. The stream owns p from here.
func OpenStream(p Producer, item, dir string, room int64, r Reporter) (*Stream, error) {
	return openStream(p, item, dir, max(room, MinSpool), r)
}

func openStream(p Producer, item, dir string, room int64, r Reporter) (*Stream, error) {
	sp, err := openSpool(dir, room)
	if err != nil {
		return nil, local(err, "opening the stream")
	}
	f, err := nameless(filepath.Join(dir, "values.spool"))
	if err != nil {
		sp.close()
		return nil, local(err, "opening the stream")
	}
	x := &Stream{from: p, item: item, spool: sp, values: &slots{f: f}, size: -1, news: make(chan struct{}), failed: make(chan struct{})}
	x.ctx, x.stop = context.WithCancel(context.Background())
	x.count = r.Progress(item, "read", "bytes", -1)
	x.count.Explain(x.why)
	x.work.Go(x.produce)
	return x, nil
}

// produce reads to the end.
func (x *Stream) produce() {
	err := x.readAll()
	x.from.Stop()
	if err != nil {
		x.change(func() { x.err = local(err, "reading the stream") })
		close(x.failed)
	}
}

// Failed is closed when the producer has failed; Check says how.
func (x *Stream) Failed() <-chan struct{} { return x.failed }

// why says what the stream waits for: room that the reader has to make, or bytes.
func (x *Stream) why() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.full {
		return feedback.WhyReader
	}
	return feedback.WhyCommand
}

// change changes what mu guards, and tells everybody.
func (x *Stream) change(edit func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	edit()
	close(x.news)
	x.news = make(chan struct{})
}

// readAll reads piece after piece. Whether one is the last is known only when the
// next has begun: so it is read into a second buffer before the first is told of.
func (x *Stream) readAll() error {
	var h pieceHasher
	var tree Tree
	buf, next := make([]byte, PieceSize), make([]byte, PieceSize)
	have := 0
	for n := int64(0); ; n++ {
		h.reset(n, false)
		h.land(buf, have)
		at, err := x.fill(&h, buf, have)
		if err != nil {
			return err
		}
		more := 0
		if at == len(buf) {
			if more, err = x.read(next); err != nil {
				return err
			}
		}
		last := more == 0
		h.whole = last && n == 0
		v := h.sum(buf[:at])
		zero := at > 0 && isZero(buf[:at])
		if err := x.keep(n, v, zero, buf[:at]); err != nil {
			return err
		}
		tree.Add(v)
		if last {
			return x.end(n*PieceSize+int64(at), FormatDigest(tree.Root()))
		}
		x.change(func() { x.ready = n + 1 })
		x.count.Add(int64(at))
		buf, next, have = next, buf, more
	}
}

// fill reads until buf is full or nothing comes any more.
func (x *Stream) fill(h *pieceHasher, buf []byte, at int) (int, error) {
	for at < len(buf) {
		k, err := x.read(buf[at:min(at+readSize, len(buf))])
		if err != nil || k == 0 {
			return at, err
		}
		at += k
		h.land(buf, at)
	}
	return at, nil
}

// read returns 0 at the end only.
func (x *Stream) read(buf []byte) (int, error) {
	for {
		k, err := x.from.Read(buf)
		switch {
		case k > 0:
			return k, nil // an error comes again
		case errors.Is(err, io.EOF):
			return 0, nil
		case x.ctx.Err() != nil:
			return 0, fail(api.Draining, nil, "the export is being closed")
		case err != nil:
			return 0, err
		}
	}
}

// keep puts a piece into the spool, once there is room.
func (x *Stream) keep(n int64, v Value, zero bool, buf []byte) error {
	for {
		x.mu.Lock()
		room := n-x.done < x.spool.pieces
		news := x.news
		x.mu.Unlock()
		if room {
			break
		}
		x.mu.Lock()
		was := x.full
		x.mu.Unlock()
		if !was {
			x.change(func() { x.full = true })
			continue
		}
		select {
		case <-news:
		case <-x.ctx.Done():
			return fail(api.Draining, nil, "the export is being closed")
		}
	}
	x.change(func() { x.full = false })
	state := slotZero
	if !zero {
		state = slotData
		if err := x.spool.put(n, buf); err != nil {
			return err
		}
	}
	return local(x.values.put(n, v, state), "writing the spool")
}

// end asks the producer whether that was all.
func (x *Stream) end(size int64, digest string) error {
	if err := x.from.Finish(); err != nil {
		return err
	}
	x.count.Add(PieceLen(Pieces(size)-1, size))
	x.change(func() { x.ready, x.size, x.digest = Pieces(size), size, digest })
	return nil
}

// Size is -1 before the end.
func (x *Stream) Size() int64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.size
}

// Digest is "" before the end.
func (x *Stream) Digest() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.digest
}

// Check fails when the producer did.
func (x *Stream) Check() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.err
}

// Window writes the entries from piece from on as they come, see [Exporter], with
// at most n of them, fewer when there is no room for more before the reader says
// that it is done with some. Codes: bad_range, command_failed, io, draining.
func (x *Stream) Window(ctx context.Context, from, n, done int64, w io.Writer) error {
	if err := x.forget(done); err != nil {
		return err
	}
	if size := x.Size(); from < 0 || size >= 0 && from >= Pieces(size) || n < 1 || n > api.MaxWindow {
		return fail(api.BadRange, nil, "a window of %d pieces from %d", n, from)
	}
	if err := writeLines(w, streamLine()); err != nil {
		return err
	}
	err := x.entries(ctx, from, from+n, w)
	if err == nil || ctx.Err() != nil && codeOf(context.Cause(ctx)) == nil {
		return err
	}
	if werr := writeLines(w, errorLine(err)); werr != nil {
		return werr
	}
	return err
}

// forget gives up the content of the pieces before done.
func (x *Stream) forget(done int64) error {
	x.mu.Lock()
	before, bad := x.done, done < 0 || done > x.ready
	x.mu.Unlock()
	if bad {
		return fail(api.BadRange, nil, "done with %d pieces, of which there are not so many", done)
	}
	if done > before {
		x.spool.forget(before, done)
		// Whether it is still full the producer says.
		x.change(func() { x.done, x.full = max(x.done, done), false })
	}
	return nil
}

// entries writes the entries from at to limit, and the last line.
func (x *Stream) entries(ctx context.Context, at, limit int64, w io.Writer) error {
	for {
		ready, size, digest, err := x.wait(ctx, at, func() error { return writeLines(w, line{Kind: kindBeat}) })
		if err != nil {
			return err
		}
		short := at >= ready // there is no room for more
		var lines []line
		for ; at < min(ready, limit); at++ {
			v, state, err := x.values.get(at)
			if err == nil && state == slotUnknown {
				err = fmt.Errorf("slot %d is gone", at)
			}
			if err != nil {
				return local(err, "reading the spool")
			}
			lines = appendEntry(lines, Entry{N: at, Count: 1, Zero: state == slotZero, Value: v})
		}
		end := size >= 0 && at == Pieces(size)
		switch {
		case end:
			return writeLines(w, append(lines, endLine(size, digest))...)
		case at == limit || short:
			return writeLines(w, append(lines, windowLine(at))...)
		}
		if err := writeLines(w, lines...); err != nil {
			return err
		}
	}
}

// wait waits until piece at is ready, or nothing more comes before the reader is
// done with some, and calls beat when that lasts.
func (x *Stream) wait(ctx context.Context, at int64, beat func() error) (ready, size int64, digest string, err error) {
	silence := time.NewTimer(api.HeartbeatInterval)
	defer silence.Stop()
	for {
		x.mu.Lock()
		ready, size, digest, err = x.ready, x.size, x.digest, x.err
		full, news := x.full, x.news
		x.mu.Unlock()
		if err != nil || at < ready || full {
			return ready, size, digest, err
		}
		select {
		case <-ctx.Done():
			err = cancelled(ctx)
		case <-x.ctx.Done():
			err = fail(api.Draining, nil, "the export is being closed")
		case <-silence.C:
			err = beat()
			silence.Reset(api.HeartbeatInterval)
		case <-news:
		}
		if err != nil {
			return 0, 0, "", err
		}
	}
}

// Rehash reads a piece from the spool again.
func (x *Stream) Rehash(ctx context.Context, n int64, w io.Writer) error {
	x.mu.Lock()
	ready, size, digest := x.ready, x.size, x.digest
	x.mu.Unlock()
	if n < 0 || n >= ready {
		return fail(api.BadRange, nil, "piece %d of %d", n, ready)
	}
	_, state, err := x.values.get(n)
	if err != nil {
		return local(err, "reading the spool")
	}
	e := Entry{N: n, Count: 1, Zero: state == slotZero}
	if !e.Zero {
		buf := make([]byte, PieceLen(n, size))
		if err := x.piece(buf, n*PieceSize); err != nil {
			return err
		}
		e.Value = HashPiece(buf, n, Pieces(size) == 1)
	}
	last := windowLine(n + 1)
	if size >= 0 && n+1 == Pieces(size) {
		last = endLine(size, digest)
	}
	return writeLines(w, streamLine(), entryLine(e), last)
}

// piece reads bytes of one piece.
func (x *Stream) piece(buf []byte, off int64) error {
	_, state, err := x.values.get(off / PieceSize)
	if err != nil {
		return local(err, "reading the spool")
	}
	if state == slotZero && !x.spool.gone(off/PieceSize) {
		clear(buf)
		return nil
	}
	ok, err := x.spool.readAt(buf, off)
	if err == nil && !ok {
		err = fail(api.BadRange, nil, "the bytes from %d of the stream are gone: its reader was done with them", off)
	}
	return err
}

// Content returns bytes that are in the spool: those of pieces whose entries were
// sent and that no reader is done with. Codes: bad_range, command_failed, io.
func (x *Stream) Content(ctx context.Context, off, length int64) (io.ReadCloser, error) {
	x.mu.Lock()
	end, err := x.ready*PieceSize, x.err
	if x.size >= 0 {
		end = x.size
	}
	x.mu.Unlock()
	switch {
	case err != nil:
		return nil, err
	case off < 0 || length < 0 || off > end || length > end-off:
		return nil, fail(api.BadRange, nil, "bytes %d to %d of a stream that has %d so far", off, off+length, end)
	case length > 0 && x.spool.gone(off/PieceSize):
		return nil, x.piece(make([]byte, 1), off)
	}
	return &spooled{ctx: ctx, x: x, off: off, end: off + length}, nil
}

// spooled reads a range.
type spooled struct {
	ctx      context.Context
	x        *Stream
	off, end int64
}

// Read reads at most to the end of a piece.
func (c *spooled) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	if c.off >= c.end {
		return 0, io.EOF
	}
	n := min(int64(len(p)), c.end-c.off, PieceSize-c.off%PieceSize)
	if err := c.x.piece(p[:n], c.off); err != nil {
		return 0, err
	}
	c.off += n
	return int(n), nil
}

// Close does nothing: the spool belongs to the stream.
func (c *spooled) Close() error { return nil }

// Close stops the producer, waits for it and gives the spool back.
func (x *Stream) Close() error {
	x.stop()
	x.from.Stop()
	x.work.Wait()
	x.count.End()
	return errors.Join(x.spool.close(), x.values.close())
}
