package transfer

import (
	"context"
	"io"
	"os"
)

// Export is a regular file held open for reading. Its methods may be called
// concurrently; one hashing runs at a time.
type Export struct{}

// OpenExport opens the regular file name below root. Entries are spooled in the
// folder dir, which is the task's own, so that neither a second request nor a
// restart reads the file again. When dir holds the spool of an earlier run, the
// file must still be the same (CodeSourceChanged otherwise).
func OpenExport(root *os.Root, name, dir string, r Reporter) (*Export, error) {
	panic("skeleton")
}

// Size is the length of the file in bytes.
func (x *Export) Size() int64 { panic("skeleton") }

// Window writes the manifest window that starts at piece from and has at most n
// pieces to w. It hashes no further than from+n, and everything before it.
func (x *Export) Window(ctx context.Context, from, n int64, w io.Writer) error { panic("skeleton") }

// Rehash reads the given pieces (at most 64) again and writes a piece line for
// each, in the order given, between a file line and a window line.
func (x *Export) Rehash(ctx context.Context, pieces []int64, w io.Writer) error { panic("skeleton") }

// Content returns length bytes from off. Reading from it ends with an error
// whose code is CodeSourceChanged when the file changed meanwhile.
func (x *Export) Content(ctx context.Context, off, length int64) (io.ReadCloser, error) {
	panic("skeleton")
}

// Check compares the held file, and the file that now has its name, with the
// identity recorded when it was opened (CodeSourceChanged). A front that sends the file itself opens it
// by name, so ask before every request.
func (x *Export) Check() error { panic("skeleton") }

// Digest is the digest of the whole file once every piece was hashed, else "".
func (x *Export) Digest() string { panic("skeleton") }

// Close ends hashing and releases the file. The spool stays.
func (x *Export) Close() error { panic("skeleton") }

// Digest reads f, a regular file, from its start to its end and returns its
// digest and size. It fails when the file changes meanwhile.
func Digest(ctx context.Context, f *os.File, item string, r Reporter) (digest string, size int64, err error) {
	panic("skeleton")
}

// OpenFile opens the regular file name below root for reading, without
// following a symbolic link in its last part and without waiting for a fifo's
// writer. It refuses what [CheckName] refuses.
func OpenFile(root *os.Root, name string) (*os.File, error) { panic("skeleton") }

// CheckName says whether name may be used as a path below a root: relative,
// clean, valid UTF-8, no control characters, at most 4,096 bytes and 255 a part, no part `..` or
// `.gantry`. The error has CodeBadPath.
func CheckName(name string) error { panic("skeleton") }
