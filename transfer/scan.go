package transfer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"syscall"

	"gantry/api"

	"golang.org/x/sys/unix"
)

// source is a regular file whose state was recorded: every look at its bytes
// can be put between two checks.
type source struct {
	f      openFile
	id     identity
	device bool // a block device: only its size is compared
}

// An openFile is an *os.File, or a descriptor.
type openFile interface {
	io.ReaderAt
	io.Closer
	Fd() uintptr
}

// A descriptor is a regular file that is open for reading. An *os.File of one that
// was opened without waiting costs three system calls more: too many for a small
// file. Safe for concurrent use, but for Close.
type descriptor int

// ReadAt reads the bytes from off on.
func (d descriptor) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		k, err := unix.Pread(int(d), p[n:], off+int64(n))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return n, err
		case k == 0:
			return n, io.EOF
		default:
			n += k
		}
	}
	return n, nil
}

// Fd is the number.
func (d descriptor) Fd() uintptr { return uintptr(d) }

// Close closes the file.
func (d descriptor) Close() error { return unix.Close(int(d)) }

func newSource(f *os.File) (*source, error) {
	id, err := identify(int(f.Fd()), "")
	if err != nil {
		return nil, local(err, "looking at the source")
	}
	return &source{f: f, id: id}, nil
}

func (s *source) pieces() int64 { return Pieces(s.id.size) }

// check compares the file with its recorded state: device and inode cannot have
// changed, size and times may have.
func (s *source) check() error {
	if s.device {
		size, err := blockSizeOf(s.f.(*os.File)) // openBlock made it
		if err == nil && size != s.id.size {
			err = fail(api.SourceChanged, nil, "the device's size changed from %d to %d bytes", s.id.size, size)
		}
		return err
	}
	now, err := identify(int(s.f.Fd()), "")
	if err != nil {
		return local(err, "looking at the source")
	}
	return s.id.same(now)
}

// same says, as an error, whether now is the same state of the same file.
func (id identity) same(now identity) error {
	switch {
	case id.dev != now.dev || id.ino != now.ino || !id.btime.Equal(now.btime):
		return fail(api.SourceChanged, nil, "the source was replaced by another file")
	case id.size != now.size:
		return fail(api.SourceChanged, nil, "the source's size changed from %d to %d bytes", id.size, now.size)
	case !id.mtime.Equal(now.mtime) || !id.ctime.Equal(now.ctime):
		return fail(api.SourceChanged, nil, "the source was written to at %s", now.ctime.Format(timeFormat))
	}
	return nil
}

const timeFormat = "2006-01-02T15:04:05.000Z07:00"

// A scanner reads and hashes pieces of a source. Not safe for concurrent use.
type scanner struct {
	src   *source
	cache *Cache // knows the values of zero pieces; nil: none
	h     pieceHasher
	buf   []byte // see room
	data  int64  // offset of the next data as SEEK_DATA told, valid for offsets from seen to it
	seen  int64
}

// readSize is how much is read before it is hashed: it stays in the L2 cache.
const readSize = 256 << 10

// piece returns the value of piece n and whether it is all zero. The state of
// the source is checked before and after.
func (s *scanner) piece(ctx context.Context, n int64) (v Value, zero bool, err error) {
	if err := s.src.check(); err != nil {
		return v, false, err
	}
	v, zero, err = s.hash(ctx, n)
	if err == nil {
		err = s.src.check()
	}
	return v, zero, err
}

func (s *scanner) hash(ctx context.Context, n int64) (v Value, zero bool, err error) {
	off, length := n*PieceSize, PieceLen(n, s.src.id.size)
	whole := s.src.pieces() == 1
	if length > 0 && s.hole(off, length) {
		return s.cache.zero(n, length, whole), true, nil
	}
	zero = length > 0
	s.h.reset(n, whole)
	for at := int64(0); ; {
		if ctx.Err() != nil {
			return v, false, cancelled(ctx)
		}
		s.buf = room(s.buf, min(readSize, length-at)) // the same again and again
		if k, err := s.src.f.ReadAt(s.buf, off+at); errors.Is(err, io.EOF) {
			return v, false, fail(api.SourceChanged, nil, "the source ends at %d of %d bytes", off+at+int64(k), s.src.id.size)
		} else if err != nil {
			return v, false, local(err, "reading the source")
		}
		zero = zero && isZero(s.buf)
		if at += int64(len(s.buf)); at == length {
			return s.h.last(s.buf), zero, nil
		}
		s.h.add(s.buf)
	}
}

// hole says whether nothing is allocated in the range. Where the file system
// cannot tell there are no holes.
func (s *scanner) hole(off, length int64) bool {
	if id := &s.src.id; id.size <= PieceSize && id.blocks*512 >= id.size {
		return false // all of it is allocated: not worth a system call
	}
	if off < s.seen || off >= s.data {
		next, err := seek(s.src.f, off, unix.SEEK_DATA)
		switch {
		case errors.Is(err, syscall.ENXIO): // no data up to the end
			next = s.src.id.size
		case err != nil:
			return false
		}
		s.seen, s.data = off, next
	}
	return s.data >= off+length
}

// seek is lseek, which for SEEK_DATA and SEEK_HOLE changes nothing that pread
// and pwrite look at.
func seek(f openFile, off int64, whence int) (int64, error) {
	for {
		next, err := unix.Seek(int(f.Fd()), off, whence)
		if err != unix.EINTR {
			return next, err
		}
	}
}

var zeros [64 << 10]byte

// isZero compares in steps, so that a first byte that is not zero ends it.
func isZero(b []byte) bool {
	for len(b) > 0 {
		k := min(len(b), len(zeros))
		if !bytes.Equal(b[:k], zeros[:k]) {
			return false
		}
		b = b[k:]
	}
	return true
}

// Digest reads f, a regular file, from its start to its end and returns its
// digest and size, and keeps the values of pieces for later tasks; a nil cache
// keeps nothing. Progress is counted under item. With full what earlier tasks
// recorded of the file is dropped first, so that it is not believed any more even
// if this one fails. It fails with source_changed when the file changes
// meanwhile.
func (c *Cache) Digest(ctx context.Context, f *os.File, item string, r Reporter, full bool) (digest string, size int64, err error) {
	src, err := newSource(f)
	if err != nil {
		return "", 0, err
	}
	if !src.id.regular() {
		return "", 0, fail(api.NotRegular, nil, "%q is not a regular file", item)
	}
	if full {
		if err := c.forget(src.id); err != nil {
			return "", 0, err
		}
	}
	var keep *recorder
	if c.settled(src.id.mtime, src.id.ctime) {
		keep = c.recorder(src.id.size)
		defer keep.close()
	}
	return c.digestOf(ctx, src, keep, item, r)
}

func (c *Cache) digestOf(ctx context.Context, src *source, keep *recorder, item string, r Reporter) (digest string, size int64, err error) {
	counter := r.Progress(item, "hash", "bytes", src.id.size)
	defer counter.End()
	sc, tree := scanner{src: src, cache: c}, Tree{}
	for n := range src.pieces() {
		if ctx.Err() != nil {
			return "", 0, cancelled(ctx)
		}
		v, zero, err := sc.piece(ctx, n)
		if err != nil {
			return "", 0, err
		}
		tree.Add(v)
		keep.put(n, v, zero)
		counter.Add(PieceLen(n, src.id.size))
	}
	if err := keep.record(src.id); err != nil {
		r.Log("warn", item, "the values are not kept for later: "+err.Error())
	}
	return FormatDigest(tree.Root()), src.id.size, nil
}
