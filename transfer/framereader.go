package transfer

import (
	"encoding/binary"
	"errors"
	"io"
	"sync"

	"gantry/api"

	"github.com/klauspost/compress/zstd"
)

// A FrameReader reads frames and gives back the bytes of the ranges that were
// asked for, one after the other. It sees to form and length; whether they are
// the right bytes their reader has to prove. What follows the last frame is not
// read. Errors: io.EOF after the last byte, io.ErrUnexpectedEOF when the frames
// end before, code bad_frames when they break the protocol. Memory is bounded by
// two frames whatever comes. Not safe for concurrent use; NewFrameReader makes one.
type FrameReader struct {
	r      io.Reader
	due    []Range // what is not yet here; the first one shrinks
	raw    int     // bytes of an open frame of codecNone
	rest   []byte  // unpacked, not yet given on
	begun  bool
	plain  []byte
	packed []byte
}

// NewFrameReader reads the reply to a request for ranges.
func NewFrameReader(r io.Reader, ranges []Range) *FrameReader {
	return &FrameReader{r: r, due: append([]Range(nil), ranges...)}
}

// decoders are kept like encoders. They unpack into a buffer of the length that
// the header states, and no further.
var decoders = sync.Pool{New: func() any {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(maxFrame), zstd.WithDecoderMaxWindow(maxFrame), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		panic("zstd options: " + err.Error())
	}
	return dec
}}

func badFrames(format string, args ...any) error {
	return fail(api.BadFrames, nil, "frames of the source: "+format, args...)
}

// Read implements io.Reader.
func (f *FrameReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if f.raw == 0 && len(f.rest) == 0 {
		if len(f.due) == 0 {
			return 0, io.EOF
		}
		if err := f.next(); err != nil {
			return 0, err
		}
	}
	if len(f.rest) > 0 {
		n := copy(p, f.rest)
		f.rest = f.rest[n:]
		return n, nil
	}
	n, err := f.r.Read(p[:min(len(p), f.raw)])
	f.raw -= n
	if errors.Is(err, io.EOF) {
		if err = nil; n == 0 {
			err = io.ErrUnexpectedEOF
		}
	}
	return n, err
}

// full reads all of buf: an end within is unexpected.
func (f *FrameReader) full(buf []byte) error {
	_, err := io.ReadFull(f.r, buf)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// next reads a header, and the bytes too when they are packed.
func (f *FrameReader) next() error {
	var h [frameHeader]byte
	if !f.begun {
		if err := f.full(h[:len(framesMagic)]); err != nil {
			return err
		}
		if got := string(h[:len(framesMagic)]); got != framesMagic {
			return badFrames("they begin with %q", got)
		}
		f.begun = true
	}
	if err := f.full(h[:]); err != nil {
		return err
	}
	at, n := binary.LittleEndian.Uint64(h[:]), binary.LittleEndian.Uint32(h[8:])
	clen, codec := binary.LittleEndian.Uint32(h[12:]), h[16]
	d := &f.due[0]
	switch {
	case at != uint64(d.At):
		return badFrames("one is at %d where %d is due", at, d.At)
	case n == 0 || n > maxFrame || int64(n) > d.Len:
		return badFrames("one stands for %d bytes where at most %d are due", n, min(maxFrame, d.Len))
	case h[17]|h[18]|h[19] != 0:
		return badFrames("one has bits that are reserved")
	case codec == codecNone && clen != n, codec == codecZstd && (clen == 0 || clen >= n), codec > codecZstd:
		return badFrames("one of codec %d has %d bytes for %d", codec, clen, n)
	}
	if d.At, d.Len = d.At+int64(n), d.Len-int64(n); d.Len == 0 {
		f.due = f.due[1:]
	}
	if codec == codecNone {
		f.raw = int(n)
		return nil
	}
	return f.unpack(int(clen), int(n))
}

// unpack reads a packed frame of clen bytes that stands for n.
func (f *FrameReader) unpack(clen, n int) error {
	if f.plain == nil {
		f.plain, f.packed = make([]byte, maxFrame), make([]byte, maxFrame)
	}
	if err := f.full(f.packed[:clen]); err != nil {
		return err
	}
	dec := decoders.Get().(*zstd.Decoder)
	defer decoders.Put(dec)
	out, err := dec.DecodeAll(f.packed[:clen], f.plain[:0:n])
	if err != nil || len(out) != n {
		return badFrames("one does not unpack to its %d bytes", n)
	}
	f.rest = out
	return nil
}
