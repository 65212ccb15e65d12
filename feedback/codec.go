package feedback

import "errors"

var errSkeleton = errors.New("not written yet")

// Encode returns the line of rec, without newline.
func Encode(rec Record) ([]byte, error) { return nil, errSkeleton }

// Decode reads one line, without newline. Errors are *FormatError.
func Decode(line []byte) (Record, error) { return Record{}, errSkeleton }
