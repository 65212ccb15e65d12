package transfer

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"gantry/api"

	"github.com/klauspost/compress/zstd"
)

// A Range is a part of an export's content.
type Range struct{ At, Len int64 }

// Frames carry ranges of an export from gantry to gantry. The reply begins with
// framesMagic; then come frames, each a header and its bytes. A frame lies within
// one range; the frames of a range follow one another without a gap, and the
// ranges are those of the request in its order.
//
// A header has 20 bytes, little endian: at (8) and len (4), the plain bytes that
// the frame stands for; clen (4), the bytes that follow; codec (1), zero (3).
const (
	framesMagic = "gantryF\x01" // the last byte is the version
	frameHeader = 20
	// maxFrame bounds what one frame stands for, and so the memory of both ends;
	// it stays in the L2 cache.
	maxFrame = 256 << 10
)

// Codecs of a frame.
const (
	codecNone = 0 // clen is len
	codecZstd = 1 // clen is less than len
)

// Compression of a piece is tried with its first sampleSize bytes and pays when
// less than 8/10 of them are left: under that the receiver's time is worth more.
const sampleSize = 64 << 10

func pays(packed, plain int) bool { return packed*10 < plain*8 }

// CheckRanges judges the ranges of a request to an export of size bytes: 1 to
// api.MaxRanges, none empty, ascending without overlap, together at most
// api.MaxRange bytes. The code is bad_range.
func CheckRanges(ranges []Range, size int64) error {
	if len(ranges) == 0 || len(ranges) > api.MaxRanges {
		return fail(api.BadRange, nil, "%d ranges, allowed are 1 to %d", len(ranges), api.MaxRanges)
	}
	if size < 0 {
		size = MaxSize // a stream's is known at its end; what it has, Content knows
	}
	var end, sum int64
	for _, r := range ranges {
		if r.At < end || r.Len < 1 || r.Len > api.MaxRange || r.At > size-r.Len {
			return fail(api.BadRange, nil, "%d bytes at %d of %d: ranges ascend, do not overlap and have 1 to %d bytes", r.Len, r.At, size, int64(api.MaxRange))
		}
		end, sum = r.At+r.Len, sum+r.Len
	}
	if sum > api.MaxRange {
		return fail(api.BadRange, nil, "ranges of together %d bytes, allowed are %d", sum, int64(api.MaxRange))
	}
	return nil
}

// A frameWriter has the buffers of one reply.
type frameWriter struct {
	plain  [frameHeader + maxFrame]byte
	packed []byte
	enc    *zstd.Encoder
}

// frameWriters are kept, because an encoder is dear to make.
var frameWriters = sync.Pool{New: func() any {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(maxFrame), zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(false))
	if err != nil {
		panic("zstd options: " + err.Error())
	}
	return &frameWriter{enc: enc}
}}

// WriteFrames writes the ranges of x as frames, each with one call of w.Write;
// with compress those pieces are packed of which a sample says that it pays. The
// first call has the magic before its frame, so that an error before it can be
// told otherwise; a later one can only break the reply off, which its reader
// sees. Codes: bad_range and those of x.Content.
func WriteFrames(ctx context.Context, x Exporter, ranges []Range, compress bool, w io.Writer) error {
	if err := CheckRanges(ranges, x.Size()); err != nil {
		return err
	}
	f := frameWriters.Get().(*frameWriter)
	defer frameWriters.Put(f)
	out := &magicWriter{w: w}
	for _, r := range ranges {
		if err := f.write(ctx, x, r, compress, out); err != nil {
			return err
		}
	}
	return nil
}

// magicWriter puts the magic before the first frame.
type magicWriter struct {
	w     io.Writer
	begun bool
}

func (m *magicWriter) Write(p []byte) (int, error) {
	if m.begun {
		return m.w.Write(p)
	}
	m.begun = true
	_, err := m.w.Write(append([]byte(framesMagic), p...))
	return len(p), err
}

func (f *frameWriter) write(ctx context.Context, x Exporter, r Range, compress bool, w io.Writer) error {
	content, err := x.Content(ctx, r.At, r.Len)
	if err != nil {
		return err
	}
	defer content.Close()
	pack, sampled := false, int64(-1)
	for at, end := r.At, r.At+r.Len; at < end; {
		n := min(maxFrame, end-at)
		buf := f.plain[frameHeader : frameHeader+n]
		if _, err := io.ReadFull(content, buf); err != nil {
			return fmt.Errorf("reading what is sent: %w", err)
		}
		if p := at / PieceSize; compress && p != sampled {
			f.packed = f.enc.EncodeAll(buf[:min(len(buf), sampleSize)], f.packed[:0])
			pack, sampled = pays(len(f.packed), min(len(buf), sampleSize)), p
		}
		if _, err := w.Write(f.frame(at, int(n), pack)); err != nil {
			return fmt.Errorf("sending frames: %w", err)
		}
		at += n
	}
	return nil
}

// frame returns the frame of the n bytes that are in plain.
func (f *frameWriter) frame(at int64, n int, pack bool) []byte {
	out, codec := f.plain[:frameHeader+n], byte(codecNone)
	if pack {
		f.packed = f.enc.EncodeAll(f.plain[frameHeader:frameHeader+n], append(f.packed[:0], make([]byte, frameHeader)...))
		if pays(len(f.packed)-frameHeader, n) {
			out, codec = f.packed, codecZstd
		}
	}
	binary.LittleEndian.PutUint64(out, uint64(at))
	binary.LittleEndian.PutUint32(out[8:], uint32(n))
	binary.LittleEndian.PutUint32(out[12:], uint32(len(out)-frameHeader))
	out[16], out[17], out[18], out[19] = codec, 0, 0, 0
	return out
}
