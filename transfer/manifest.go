package transfer

import (
	"io"
	"time"
)

// File is what the first line of a window says about the source.
type File struct {
	Size  int64
	MTime time.Time
}

// Entry is a piece, or a run of pieces that hold only zeros.
type Entry struct {
	N     int64 // first piece
	Count int64 // number of pieces, 1 unless Zero
	Zero  bool
	Value Value // unset when Zero
}

// Window is the outcome of a window that was received whole.
type Window struct {
	File   File
	Next   int64  // first piece after the window
	End    bool   // the last piece is in it
	Digest string // of the whole file, "b3:" and 64 hex digits, only when End
}

// ReadWindow reads the window that starts at piece from and has at most n
// pieces, and hands its entries to emit as they come. A window that ended
// without its last line is io.ErrUnexpectedEOF; one that breaks the protocol is
// an [Error] with CodeBadManifest; an error line of the source is an [Error]
// with the code of the source.
func ReadWindow(r io.Reader, from, n int64, emit func(File, Entry) error) (Window, error) {
	panic("skeleton")
}
