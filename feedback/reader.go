package feedback

import (
	"fmt"
	"io"
	"iter"
)

// ReaderOptions of a Reader.
type ReaderOptions struct {
	ID      string             // the id that hello must carry; empty: any
	After   int64              // the greatest number that the caller has; the next is After + 1
	MaxLine int                // bytes of a line; 0 means MaxJobLine
	Check   func(Record) error // further demands of an operation on a record, such as a digest in its result; an error refuses the line
}

// A Reader reads a feed and checks it. It is for one goroutine.
type Reader struct{}

// NewReader returns a reader of r.
func NewReader(r io.Reader, o ReaderOptions) *Reader { return &Reader{} }

// Read returns the next complete record. After a final it returns io.EOF when
// the stream ends there; without one, io.ErrUnexpectedEOF. A refused line is a
// *FormatError, and final for this reader.
func (r *Reader) Read() (Record, error) { return Record{}, errSkeleton }

// All returns the records; the last pair has the error, if there is one.
func (r *Reader) All() iter.Seq2[Record, error] { return func(func(Record, error) bool) {} }

// Each calls fn for each record as it is complete. It returns nil after the
// final, the error of fn, or that of Read.
func (r *Reader) Each(fn func(Record) error) error { return errSkeleton }

// Last returns the greatest stored number read (or covered by a gap): what to
// give as After when attaching again.
func (r *Reader) Last() int64 { return 0 }

// FormatError is a refused line.
type FormatError struct {
	Seq  int64  // number of the line; where it has none, that of the last good one
	Rule string // what it breaks, in words
	Err  error  // nil or why
}

func (e *FormatError) Error() string {
	s := fmt.Sprintf("feed refused at record %d: %s", e.Seq, e.Rule)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns Err.
func (e *FormatError) Unwrap() error { return e.Err }

// Printable returns s with control characters and terminal escapes made
// visible.
func Printable(s string) string { return s }
