package feedback

import (
	"bytes"
	"errors"
	"fmt"
)

// A Journal keeps the stored lines of one feed somewhere else than in a file of
// its own: see [OpenJournal]. Lines are the exact bytes of records, without
// newline. A Journal numbers nothing and understands nothing but lines.
//
// Append and Trim are never called concurrently with each other for one feed;
// Read is called at any time, by many.
type Journal interface {
	// Load says what the journal holds when a feed is opened.
	Load() (Held, error)
	// Append makes lines durable, numbered consecutively from seq on: all of
	// them or none. It keeps nothing of lines after it returns. What a failed
	// Append leaves is not known, so the feed makes no further call of it.
	Append(seq int64, lines [][]byte) error
	// Read hands the lines from number seq on to fn, in order, until about max
	// bytes were read or there are no more, and leaves out those that are gone.
	// It returns the number to go on from: one more than the greatest there is
	// when it came to the end. fn may keep nothing of line, and may wait: Read
	// holds nothing up meanwhile. An error of fn ends it.
	Read(seq int64, max int, fn func(seq int64, line []byte) error) (next int64, err error)
	// Trim deletes the lines with these numbers, ascending, durably. The
	// greatest number stays what it was, even if its line goes.
	Trim(seqs []int64) error
}

// Held is what a Journal holds.
type Held struct {
	Last  int64  // greatest number; 0: nothing was ever stored
	Bytes int64  // of the lines, each with one more for its newline
	Final []byte // the line of the final record; nil: there is none
}

// OpenJournal returns the feed whose lines j keeps: like one made by Create
// where j holds nothing, else like one that Open opened. One feed at a time may
// be open on a journal. Options.ID is not checked.
func OpenJournal(j Journal, o Options) (*Feed, error) {
	o = o.withDefaults()
	held, err := j.Load()
	if err != nil {
		return nil, fmt.Errorf("opening journal: %w", err)
	}
	f := &Feed{journal: j, o: o, done: make(chan struct{}), assigned: held.Last, last: held.Last, end: held.Bytes}
	if held.Final != nil {
		rec, err := Decode(bytes.Clone(held.Final))
		if err != nil {
			return nil, fmt.Errorf("opening journal: its final record: %w", err)
		}
		if !rec.Kind.Final() || rec.Seq != held.Last {
			return nil, fmt.Errorf("opening journal: record %d of %d is no final", rec.Seq, held.Last)
		}
		f.final, f.finishing = rec, true
		close(f.done)
		o.Budget.add(f.end)
		o.Budget.finished(f)
		return f, nil
	}
	if held.Last == 0 && !o.Budget.takeOrShed(o.line()) {
		return nil, ErrNoRoom
	} else if held.Last != 0 {
		o.Budget.add(f.end + o.line()) // it is there, whether there is room or not
	}
	return f, nil
}

// split returns the lines of a batch.
func (b *batch) split() [][]byte {
	lines := make([][]byte, 0, bytes.Count(b.buf, []byte{'\n'}))
	for line := range bytes.Lines(b.buf) {
		lines = append(lines, line[:len(line)-1])
	}
	return lines
}

// readJournal is read of a feed that is kept by a Journal.
func (c *cursor) readJournal(line func(b []byte, final bool) error) (more bool, err error) {
	last, final, err := c.f.durable()
	if err != nil || c.seq >= last {
		return false, err
	}
	before := c.seq
	var stopped error // what line returned: no fault of the journal
	hand := func(b []byte, final bool) error {
		stopped = line(b, final)
		return stopped
	}
	next, err := c.f.journal.Read(c.seq+1, chunk, func(seq int64, b []byte) error {
		if seq > last {
			return errShown // on disk, and not to be seen before whoever waits for it knows
		}
		if seq > c.seq+1 {
			if err := c.skip(seq-1, hand); err != nil {
				return err
			}
		}
		if err := hand(b, final != 0 && seq == final); err != nil {
			return err
		}
		c.seq = seq
		return nil
	})
	switch {
	case stopped != nil:
		return false, stopped
	case errors.Is(err, errShown): // the end, for now
		next, err = last+1, nil
	case err != nil:
		return false, fmt.Errorf("reading journal: %w", err)
	}
	if next > last && c.seq < last {
		err = c.skip(last, line)
	} else if c.seq == before {
		err = fmt.Errorf("reading journal: nothing follows %d of %d", c.seq, last)
	}
	return true, err
}

var errShown = errors.New("not shown yet")

// skip hands a gap up to seq on.
func (c *cursor) skip(seq int64, line func(b []byte, final bool) error) error {
	b, err := Encode(Record{Kind: KindGap, Body: &Gap{From: c.seq + 1, To: seq, Why: WhyTrimmed}})
	if err != nil {
		return err
	}
	if err := line(b, false); err != nil {
		return err
	}
	c.seq = seq
	return nil
}

// durable returns the greatest number that may be shown, and that of the final.
func (f *Feed) durable() (last, final int64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil && f.closed {
		return 0, 0, ErrClosed
	}
	return f.last, f.final.Seq, f.err
}

// trimJournal is trim of a feed that is kept by a Journal.
func (f *Feed) trimJournal(s shorten, end int64) error {
	var all []stored
	for seq, last := int64(1), f.Last(); seq <= last; {
		next, err := f.journal.Read(seq, chunk, func(seq int64, b []byte) error {
			l, err := describe(b)
			l.from, l.to, l.n = seq, seq, int64(len(b))+1
			all = append(all, l)
			return err
		})
		if err != nil {
			return err
		}
		if next <= seq {
			return fmt.Errorf("nothing follows %d of %d", seq-1, last)
		}
		seq = next
	}
	choose(all, end, s)
	var drop []int64
	var saved int64
	for _, l := range all {
		if l.drop {
			drop, saved = append(drop, l.from), saved+l.n
		}
	}
	if saved > 0 {
		if err := f.journal.Trim(drop); err != nil {
			return err
		}
	}
	f.mu.Lock()
	f.end -= saved
	f.barren = saved == 0
	f.mu.Unlock()
	f.o.Budget.add(-saved)
	return nil
}
