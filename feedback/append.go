package feedback

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"gantry/internal/atomicfile"
)

// journalFile is the file that a flusher appends to. A failed call sticks.
type journalFile interface {
	Append(p []byte) error
	Sync() error
	Close() error
}

func openJournal(path string) (journalFile, error) {
	return atomicfile.OpenAppender(path, journalPerm, "feedback.append")
}

// A batch is what one fsync makes durable: the records that came while the one
// before was on its way.
type batch struct {
	buf   []byte
	marks []mark // offsets in buf
	last  int64
	final Record // zero: none
	done  chan struct{}
	err   error // set before done is closed
}

// finalSize is the part of buf that the final has.
func (b *batch) finalSize() int {
	if b.final.Seq == 0 {
		return 0
	}
	return len(b.final.Line) + 1
}

// trimRequest asks the flusher to shorten the journal.
type trimRequest struct {
	what shorten
	done chan struct{}
}

// add gives a record its number and queues it. It returns the batch to wait for.
func (f *Feed) add(kind Kind, body any) (*batch, error) {
	var held int64 // bytes taken from the budget for this record
	for asked := false; ; {
		f.mu.Lock()
		b, n, err := f.tryAdd(kind, body, held)
		var wait chan struct{}
		if err == errWait {
			wait = f.pending.done
		}
		half, barren := f.end/2, f.barren
		f.mu.Unlock()
		switch {
		case err == nil:
			return b, nil
		case err == errWait:
			<-wait
		case err == ErrNoRoom && f.o.Budget.takeOrShed(n-held):
			held = n
		case err == ErrNoRoom && !asked && !barren:
			asked = true
			_ = f.trimNow(shorten{target: half, logs: true}) // tryAdd sees whether it helped
		default:
			f.o.Budget.add(-held)
			return nil, err
		}
	}
}

// errWait: too much is on its way to the disk.
var errWait = errors.New("wait for the pending batch")

// tryAdd is add with mu held; n is what the record needs of the budget, held
// what the caller has of that.
func (f *Feed) tryAdd(kind Kind, body any, held int64) (b *batch, n int64, err error) {
	if err := f.state(); err != nil {
		return nil, 0, err
	}
	if f.full && !kind.Final() {
		return nil, 0, ErrFull
	}
	rec := Record{Kind: kind, Seq: f.assigned + 1, Time: time.Now().UTC().Truncate(time.Millisecond), Body: body}
	rec.Line, err = Encode(rec)
	if err != nil {
		return nil, 0, err
	}
	n = int64(len(rec.Line)) + 1
	switch {
	case n > f.o.line():
		return nil, n, fmt.Errorf("encoding %s record: %w: %d bytes of %d", kind, errLong, n, f.o.line())
	case f.pending != nil && int64(len(f.pending.buf))+n > f.o.queue():
		return nil, n, errWait
	case !kind.Final() && !f.o.Budget.take(n-held): // a final has its room since Create
		return nil, n, ErrNoRoom
	}
	return f.queue(rec), n, nil
}

// queue puts an encoded record in the pending batch; mu is held.
func (f *Feed) queue(rec Record) *batch {
	b := f.pending
	if b == nil {
		b = &batch{done: make(chan struct{})}
		f.pending = b
	}
	if off := int64(len(b.buf)); len(b.marks) == 0 || off-b.marks[len(b.marks)-1].off >= f.o.markEvery() {
		b.marks = append(b.marks, mark{f.assigned, off})
	}
	b.buf = append(append(b.buf, rec.Line...), '\n')
	f.assigned, b.last = rec.Seq, rec.Seq
	f.barren = f.barren && rec.Kind != KindLog
	if rec.Kind.Final() {
		f.finishing, b.final = true, rec
	}
	f.startFlusher()
	return b
}

// state says why nothing can be added; mu is held.
func (f *Feed) state() error {
	switch {
	case f.err != nil:
		return f.err
	case f.finishing:
		return ErrFinished
	case f.closed:
		return ErrClosed
	}
	return nil
}

// startFlusher starts the flusher unless it runs; mu is held and closed is
// false.
func (f *Feed) startFlusher() {
	if !f.flushing {
		f.flushing = true
		f.flusher.Go(f.flush)
	}
}

// askTrim asks the flusher to shorten the journal; mu is held. The channel is
// closed when it has.
func (f *Feed) askTrim(s shorten) chan struct{} {
	if f.want == nil {
		f.want = &trimRequest{what: s, done: make(chan struct{})}
	}
	f.want.what = f.want.what.and(s)
	f.startFlusher()
	return f.want.done
}

// flush writes batches until there is none.
func (f *Feed) flush() {
	for {
		f.mu.Lock()
		b, want := f.pending, f.want
		f.pending, f.want = nil, nil
		if b == nil && want == nil {
			f.flushing = false
			f.mu.Unlock()
			return
		}
		f.mu.Unlock()
		if want != nil {
			_ = f.trim(want.what) // a failure breaks the feed, which whoever waits sees
			close(want.done)
		}
		if b != nil {
			f.write(b)
		}
	}
}

// write makes a batch durable and then shows it.
func (f *Feed) write(b *batch) {
	f.keepBound(int64(len(b.buf)))
	if b.err = f.Err(); b.err == nil {
		if b.err = f.writeOut(b); b.err != nil {
			b.err = fmt.Errorf("writing journal: %w", b.err)
			f.undo()
			f.fail(b.err)
		}
	}
	if b.err == nil {
		f.show(b)
	} else {
		f.o.Budget.add(-int64(len(b.buf) - b.finalSize()))
	}
	close(b.done)
}

func (f *Feed) writeOut(b *batch) error {
	if f.journal != nil {
		lines := b.split()
		return f.journal.Append(b.last-int64(len(lines))+1, lines)
	}
	if f.out == nil {
		out, err := f.o.openFile(f.path)
		if err != nil {
			return err
		}
		f.out = out
	}
	if err := f.out.Append(b.buf); err != nil {
		return err
	}
	return f.out.Sync()
}

// keepBound shortens the journal when n more bytes would not leave the room
// that it must have.
func (f *Feed) keepBound(n int64) {
	f.mu.Lock()
	end := f.end
	f.mu.Unlock()
	soft := f.o.soft()
	if end+n <= soft || f.trim(shorten{target: soft*3/4 - n}) != nil {
		return
	}
	f.mu.Lock()
	// Less than an eighth free is not worth another rewrite: only an ack helps.
	f.full = f.end+n > soft*7/8
	f.mu.Unlock()
}

// show lets readers see a batch that is on disk.
func (f *Feed) show(b *batch) {
	final := b.final.Seq != 0
	if final {
		f.closeFile()
	}
	f.mu.Lock()
	for _, m := range b.marks {
		if m.off += f.end; len(f.marks) == 0 || m.off-f.marks[len(f.marks)-1].off >= f.o.markEvery() {
			f.marks = append(f.marks, m)
		}
	}
	f.end += int64(len(b.buf))
	f.last = b.last
	if final {
		f.final = b.final
		f.final.Line = bytes.Clone(b.final.Line)
		f.marks = slices.Clip(f.marks)
		close(f.done)
		f.dropItems()
	}
	f.notify()
	f.mu.Unlock()
	if final {
		f.o.Budget.add(int64(b.finalSize()) - f.o.line())
		f.o.Budget.finished(f)
	}
}

// undo takes a batch that could not be made durable out of the file, so that
// it is not found there after a restart. Whether that reaches the disk is not
// known either, and does not matter: nobody has seen the batch.
func (f *Feed) undo() {
	if f.journal != nil {
		return // it keeps all of a batch or nothing
	}
	f.mu.Lock()
	end := f.end
	f.mu.Unlock()
	_ = os.Truncate(f.path, end)
}

// fail breaks the feed.
func (f *Feed) fail(err error) {
	f.mu.Lock()
	first := f.err == nil
	if first {
		f.err = err
		f.notify()
	}
	f.mu.Unlock()
	if first && f.o.OnBroken != nil {
		f.o.OnBroken(err)
	}
}

// closeFile closes the descriptor. Only the flusher calls it, or Close after it.
func (f *Feed) closeFile() {
	if f.out != nil {
		_ = f.out.Close() // what counts was synced
		f.out = nil
	}
}

// notify wakes the streams; mu is held.
func (f *Feed) notify() {
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
}

// wait returns a channel that is closed at the next change; mu is held.
func (f *Feed) wait() <-chan struct{} {
	if f.changed == nil {
		f.changed = make(chan struct{})
	}
	return f.changed
}
