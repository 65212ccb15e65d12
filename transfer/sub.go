package transfer

import (
	"context"
	"encoding/base64"
	"io"

	"gantry/api"
)

// PartSize is the length of a part of a piece in bytes: 64 BLAKE3 chunks. An
// importer that has an older copy of a piece asks for the values of the parts,
// and fetches only those that differ.
const PartSize = 64 << 10

const (
	pieceParts = PieceSize / PartSize
	partChunks = pieceChunks / pieceParts
)

// A Parter is an [Exporter] whose pieces have parts: of one file, with a size.
type Parter interface {
	// Sub reads the pieces again and writes the values of their parts: the first
	// line is file, then one line of kind parts per piece in the order of the
	// request, at last window, whose next is the piece after the last one; or
	// error. The pieces are 1 to api.MaxSub, ascending.
	Sub(ctx context.Context, pieces []int64, w io.Writer) error
}

var _ Parter = (*Export)(nil)

// parts returns the number of parts of a piece of length bytes.
func parts(length int64) int64 { return max(1, (length+PartSize-1)/PartSize) }

// A partHasher hashes a piece and its parts in one go: the value of the piece is
// combined from those of its parts. The zero value is ready.
type partHasher struct{ h pieceHasher }

// values appends the values of the parts of piece index, whose bytes are buf, to
// to. Each is the BLAKE3 chaining value of its subtree. A piece of one part has
// its own value as only one, with the root flag where it is the whole file.
func (p *partHasher) values(to []Value, buf []byte, index int64, whole bool) []Value {
	if len(buf) <= PartSize {
		p.h.reset(index, whole)
		return append(to, p.h.sum(buf))
	}
	return p.from(to, buf, 0, index)
}

// from appends the values of the parts of piece index that begin at byte at of
// buf, which has more than one part and ends with one.
func (p *partHasher) from(to []Value, buf []byte, at int, index int64) []Value {
	for ; at < len(buf); at += PartSize {
		p.h.reset(index, false)
		p.h.counter += uint64(at / PartSize * partChunks)
		to = append(to, p.h.sum(buf[at:min(at+PartSize, len(buf))]))
	}
	return to
}

// combineParts is the value of the piece whose parts have these values.
func combineParts(values []Value, whole bool) Value {
	if len(values) == 1 {
		return values[0]
	}
	var t Tree
	for _, v := range values {
		t.Add(v)
	}
	if whole {
		return t.Root()
	}
	return t.fold(0)
}

// Sub implements [Parter]. When a piece is no longer what the manifest says,
// every later request fails with source_changed. Other codes: bad_range.
func (x *Export) Sub(ctx context.Context, pieces []int64, w io.Writer) error {
	if err := checkPieces(pieces, x.src.pieces()); err != nil {
		return err
	}
	if err := x.write(w, fileLine(x.file())); err != nil {
		return err
	}
	var p partHasher
	buf := make([]byte, PieceSize)
	for _, n := range pieces {
		values, err := x.parts(ctx, n, &p, buf[:PieceLen(n, x.src.id.size)])
		if err != nil {
			return x.giveUp(ctx, x.broken(err), w)
		}
		if err := x.write(w, partsLine(n, values)); err != nil {
			return err
		}
	}
	return x.write(w, windowLine(pieces[len(pieces)-1]+1))
}

// checkPieces judges the numbers of a request.
func checkPieces(pieces []int64, of int64) error {
	if len(pieces) == 0 || len(pieces) > api.MaxSub {
		return fail(api.BadRange, nil, "parts of %d pieces, allowed are 1 to %d", len(pieces), api.MaxSub)
	}
	last := int64(-1)
	for _, n := range pieces {
		if n <= last || n >= of {
			return fail(api.BadRange, nil, "piece %d after %d of %d", n, last, of)
		}
		last = n
	}
	return nil
}

// parts hashes piece n between two looks at the source.
func (x *Export) parts(ctx context.Context, n int64, p *partHasher, buf []byte) ([]Value, error) {
	rc, err := x.Content(ctx, n*PieceSize, int64(len(buf)))
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	if _, err := io.ReadFull(rc, buf); err != nil {
		return nil, local(err, "reading the source")
	}
	if err := x.src.check(); err != nil {
		return nil, err
	}
	whole := x.src.pieces() == 1
	values := p.values(nil, buf, n, whole)
	old, state, err := x.spool.get(n)
	if err != nil {
		return nil, local(err, "reading the spool")
	}
	if state != slotUnknown && combineParts(values, whole) != old {
		return nil, fail(api.SourceChanged, nil, "piece %d of the source reads otherwise than before", n)
	}
	return values, nil
}

func partsLine(n int64, values []Value) line {
	raw := make([]byte, 0, len(values)*len(Value{}))
	for _, v := range values {
		raw = append(raw, v[:]...)
	}
	text := base64.StdEncoding.EncodeToString(raw)
	return line{Kind: kindParts, N: &n, Values: &text}
}
