package feedback

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"iter"
)

// ReaderOptions of a Reader. The zero value reads any feed from its start.
type ReaderOptions struct {
	ID      string             // the id that hello must carry; empty: any
	After   int64              // the greatest number that the caller has; the next is After + 1
	MaxLine int                // bytes of a line with padding and newline; 0 means MaxJobLine
	Check   func(Record) error // further demands of an operation on a record, such as a digest in its result; an error refuses the line
}

// A Reader reads a feed and checks it. It holds at most one line and a few
// kilobytes beside it. It is for one goroutine.
type Reader struct {
	o    ReaderOptions
	in   lines
	seed maphash.Seed

	last  int64    // greatest number read or covered by a gap
	seen  []uint64 // hashes of the last lines with a number: seen[seq % seenLines]
	since int64    // first number whose hash is in seen
	hello bool     // the stream's hello was read
	final bool
	err   error // sticks
}

// seenLines is how far back a repeat can be told from a forgery: 8 bytes each.
const seenLines = 1024

// NewReader returns a reader of r.
func NewReader(r io.Reader, o ReaderOptions) *Reader {
	if o.MaxLine <= 0 || o.MaxLine > MaxJobLine {
		o.MaxLine = MaxJobLine
	}
	return &Reader{
		o: o, in: lines{r: r, max: o.MaxLine}, seed: maphash.MakeSeed(),
		last: o.After, since: o.After + 1,
	}
}

// Attach goes on with another stream of the same feed, after the last one
// broke. Numbers that were read already are dropped when their bytes are the
// same and refused when they are not. It forgets a refusal.
func (r *Reader) Attach(s io.Reader) {
	r.in = lines{r: s, max: r.o.MaxLine}
	r.hello, r.err = false, nil
}

// Last returns the greatest number read or covered by a gap: what to give as
// after when attaching again.
func (r *Reader) Last() int64 { return r.last }

// Read returns the next record as soon as its line is complete. Line and Body
// are the caller's.
//
// When the stream ends it returns io.EOF if a final was read and
// io.ErrUnexpectedEOF if not, also in the middle of a line; what the
// connection says after the final does not count. A refused line is a
// *FormatError. Errors stick until Attach.
func (r *Reader) Read() (Record, error) {
	for r.err == nil {
		b, err := r.in.next()
		if err != nil {
			r.err = r.ended(err)
			break
		}
		rec, drop, err := r.accept(b)
		if err != nil {
			r.err = err
		} else if !drop {
			return rec, nil
		}
	}
	return Record{}, r.err
}

// ended says what the end of the stream means.
func (r *Reader) ended(err error) error {
	switch {
	case errors.Is(err, errLong):
		return &FormatError{Seq: r.last, Rule: fmt.Sprintf("a line over %d bytes", r.o.MaxLine)}
	case r.final && r.in.buffered() > 0:
		return &FormatError{Seq: r.last, Rule: "something after the final record"}
	case r.final:
		return io.EOF
	case errors.Is(err, io.EOF):
		return io.ErrUnexpectedEOF
	}
	return fmt.Errorf("reading feed after record %d: %w", r.last, err)
}

// accept judges one line; drop says that it was read before.
func (r *Reader) accept(b []byte) (rec Record, drop bool, err error) {
	rec, err = Decode(bytes.Clone(b))
	if err != nil {
		return rec, false, r.refuse(err)
	}
	switch {
	case !r.hello && rec.Kind != KindHello:
		return rec, false, r.rule(rec, "the first line is not a hello")
	case r.hello && rec.Kind == KindHello:
		return rec, false, r.rule(rec, "a second hello")
	case rec.Kind == KindHello:
		return rec, false, r.acceptHello(rec)
	case rec.Seq != 0 && rec.Seq <= r.last:
		return rec, true, r.repeat(rec)
	case r.final:
		return rec, false, r.rule(rec, "something after the final record")
	case rec.Seq != 0 && rec.Seq != r.last+1:
		return rec, false, r.rule(rec, fmt.Sprintf("a number that should be %d", r.last+1))
	}
	if g, ok := rec.Body.(*Gap); ok && g.From != r.last+1 {
		return rec, false, r.rule(rec, fmt.Sprintf("a gap from %d that should be from %d", g.From, r.last+1))
	}
	if r.o.Check != nil {
		if err := r.o.Check(rec); err != nil {
			return rec, false, &FormatError{Seq: max(rec.Seq, r.last), Rule: "what the operation does not allow", Err: err}
		}
	}
	r.advance(rec)
	return rec, false, nil
}

func (r *Reader) acceptHello(rec Record) error {
	h := rec.Body.(*Hello)
	switch {
	case r.o.ID != "" && h.ID != r.o.ID:
		return r.rule(rec, "the feed of another id")
	case h.Last < r.last:
		return r.rule(rec, fmt.Sprintf("a feed that ends at %d", h.Last))
	}
	r.hello = true
	return nil
}

// advance counts a record that was accepted.
func (r *Reader) advance(rec Record) {
	if g, ok := rec.Body.(*Gap); ok {
		r.last, r.since = g.To, g.To+1
		return
	}
	if rec.Seq == 0 {
		return
	}
	if r.seen == nil {
		r.seen = make([]uint64, seenLines)
	}
	r.last = rec.Seq
	r.seen[rec.Seq%seenLines] = maphash.Bytes(r.seed, rec.Line)
	r.since = max(r.since, rec.Seq-seenLines+1)
	r.final = rec.Kind.Final()
}

// repeat refuses a number that was read already, unless its bytes are known
// to be the same.
func (r *Reader) repeat(rec Record) error {
	if rec.Seq < r.since {
		return r.rule(rec, fmt.Sprintf("a number that goes back from %d", r.last))
	}
	if r.seen[rec.Seq%seenLines] != maphash.Bytes(r.seed, rec.Line) {
		return r.rule(rec, "other bytes than before under the same number")
	}
	return nil
}

func (r *Reader) rule(rec Record, rule string) error {
	seq := rec.Seq
	if seq == 0 {
		seq = r.last
	}
	return &FormatError{Seq: seq, Rule: rule}
}

// refuse gives an error of Decode the number of the last good record, where
// the line has none of its own.
func (r *Reader) refuse(err error) error {
	var f *FormatError
	if errors.As(err, &f) && f.Seq < 1 {
		f.Seq = r.last
	}
	return err
}

// Each calls fn for each record as it is complete, and reads on to the end of
// the stream after a final, to refuse what may follow. It returns nil when a
// final was read and nothing followed, the error of fn, or that of Read.
func (r *Reader) Each(fn func(Record) error) error {
	for rec, err := range r.All() {
		if err != nil {
			return err
		}
		if err := fn(rec); err != nil {
			return err
		}
	}
	return nil
}

// All returns the records that are left. Unless a final was read and nothing
// followed, the last pair holds the error.
func (r *Reader) All() iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for {
			rec, err := r.Read()
			if err == io.EOF {
				return
			}
			if !yield(rec, err) || err != nil {
				return
			}
		}
	}
}

// FormatError is a refused line. The text of Err may quote the line: show it
// through [Printable].
type FormatError struct {
	Seq  int64  // number of the line; where it has none, that of the last good one
	Rule string // what it is, in words: "a duplicate key"
	Err  error  // why; may be nil
}

// Error names the number and the rule.
func (e *FormatError) Error() string {
	s := fmt.Sprintf("feed refused at record %d: %s", e.Seq, e.Rule)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns Err.
func (e *FormatError) Unwrap() error { return e.Err }
