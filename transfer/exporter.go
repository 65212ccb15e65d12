package transfer

import (
	"context"
	"io"
)

// An Exporter is something that is held open for its reader, of any kind. Its
// methods may be called concurrently. Numbers of pieces and offsets are those of
// its content, which for a tree is the concatenation of its files.
type Exporter interface {
	// Window writes the part of the manifest that starts at entry from and has at
	// most n entries. The reader has everything before entry done on disk, so a
	// source that cannot be read twice may forget it.
	Window(ctx context.Context, from, n, done int64, w io.Writer) error
	// Rehash reads piece n again and writes its entry.
	Rehash(ctx context.Context, n int64, w io.Writer) error
	// Content returns the bytes from off to off+length.
	Content(ctx context.Context, off, length int64) (io.ReadCloser, error)
	// Size is the length of the content in bytes, -1 as long as it is unknown.
	Size() int64
	// Digest is the digest of the whole, "" as long as it is unknown.
	Digest() string
	// Check fails with source_changed when the source is not what it was.
	Check() error
	// Close ends all work and releases the source.
	Close() error
}

var _ Exporter = (*Export)(nil)
