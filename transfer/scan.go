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
	f  *os.File
	id identity
}

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
	src  *source
	h    pieceHasher
	buf  []byte // of PieceSize, made at the first piece with data
	data int64  // offset of the next data as SEEK_DATA told, valid for offsets from seen to it
	seen int64
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
		return ZeroValue(n, length, whole), true, nil
	}
	if s.buf == nil {
		s.buf = make([]byte, PieceSize)
	}
	buf := s.buf[:length]
	zero = length > 0
	s.h.reset(n, whole)
	for at := 0; at < len(buf); {
		if ctx.Err() != nil {
			return v, false, cancelled(ctx)
		}
		k, err := s.src.f.ReadAt(buf[at:min(at+readSize, len(buf))], off+int64(at))
		if errors.Is(err, io.EOF) && at+k < len(buf) {
			return v, false, fail(api.SourceChanged, nil, "the source ends at %d of %d bytes", off+int64(at+k), s.src.id.size)
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return v, false, local(err, "reading the source")
		}
		zero = zero && isZero(buf[at:at+k])
		at += k
		s.h.land(buf, at)
	}
	return s.h.sum(buf), zero, nil
}

// hole says whether nothing is allocated in the range. Where the file system
// cannot tell there are no holes.
func (s *scanner) hole(off, length int64) bool {
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
func seek(f *os.File, off int64, whence int) (int64, error) {
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
// digest and size. Progress is counted under item. It fails with source_changed
// when the file changes meanwhile.
func Digest(ctx context.Context, f *os.File, item string, r Reporter) (digest string, size int64, err error) {
	src, err := newSource(f)
	if err != nil {
		return "", 0, err
	}
	if !src.id.regular() {
		return "", 0, fail(api.NotRegular, nil, "%q is not a regular file", item)
	}
	counter := r.Progress(item, "hash", "bytes", src.id.size)
	defer counter.End()
	sc, tree := scanner{src: src}, Tree{}
	for n := range src.pieces() {
		if ctx.Err() != nil {
			return "", 0, cancelled(ctx)
		}
		v, _, err := sc.piece(ctx, n)
		if err != nil {
			return "", 0, err
		}
		tree.Add(v)
		counter.Add(PieceLen(n, src.id.size))
	}
	return FormatDigest(tree.Root()), src.id.size, nil
}
