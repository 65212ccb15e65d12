package transfer

import (
	"encoding/binary"
	"encoding/hex"

	"gantry/internal/blake3"

	"lukechampine.com/blake3/guts"
)

// PieceSize is the length of a piece in bytes: 4,096 BLAKE3 chunks, the unit of
// proof, fetching and resuming. Every piece but the last has this length.
const PieceSize = 4 << 20

const pieceChunks = PieceSize / guts.ChunkSize

// Value is the BLAKE3 chaining value of a piece's subtree, or, for a file of at
// most one piece, its root.
type Value [32]byte

// String returns 64 lower-case hex digits.
func (v Value) String() string { return hex.EncodeToString(v[:]) }

// Pieces returns the number of pieces of a file of size bytes; an empty file
// has one, of length 0. One whose size is unknown (negative) may have as many as
// the largest.
func Pieces(size int64) int64 {
	if size < 0 {
		size = MaxSize
	}
	return max(1, (size+PieceSize-1)/PieceSize)
}

// PieceLen returns the length of piece n of a file of size bytes. Where the size
// is unknown (negative) it is not the last piece.
func PieceLen(n, size int64) int64 {
	if size < 0 {
		return PieceSize
	}
	return min(PieceSize, size-n*PieceSize)
}

// HashPiece returns the value of a piece whose bytes are buf (at most
// PieceSize). index is the number of the piece; whole says that the file has no
// other piece.
func HashPiece(buf []byte, index int64, whole bool) Value {
	var h pieceHasher
	h.reset(index, whole)
	h.land(buf, len(buf))
	return h.sum(buf)
}

// A pieceHasher hashes a piece while it lands in its buffer, so that the bytes
// are still in the processor's cache. It works on the caller's goroutine. The
// zero value needs reset.
type pieceHasher struct {
	counter uint64 // of the next chunk
	whole   bool
	done    int // bytes hashed, a multiple of blake3.GroupLen
	tree    Tree
}

func (h *pieceHasher) reset(index int64, whole bool) {
	h.counter = uint64(index) * pieceChunks
	h.whole, h.done, h.tree = whole, 0, Tree{}
}

// land hashes the whole groups of buf[:n], those that it has not hashed yet. The
// last one waits for sum: only then is it known whether it is the root.
func (h *pieceHasher) land(buf []byte, n int) {
	if n > h.done {
		whole := (n - h.done - 1) / blake3.GroupLen * blake3.GroupLen
		h.add(buf[h.done : h.done+whole])
		h.done += whole
	}
}

// sum hashes the rest of buf, which is now complete, and returns the value.
func (h *pieceHasher) sum(buf []byte) Value { return h.last(buf[h.done:]) }

// add hashes the next bytes of the piece: whole groups, and not the last of all.
func (h *pieceHasher) add(b []byte) {
	for ; len(b) > 0; b = b[blake3.GroupLen:] {
		h.group((*[blake3.GroupLen]byte)(b))
	}
}

func (h *pieceHasher) group(buf *[blake3.GroupLen]byte) {
	h.tree.add(blake3.Group(buf, h.counter))
	h.counter += blake3.GroupChunks
}

// last hashes the last bytes of the piece and returns its value.
func (h *pieceHasher) last(b []byte) Value {
	if len(b) > blake3.GroupLen {
		whole := (len(b) - 1) / blake3.GroupLen * blake3.GroupLen
		h.add(b[:whole])
		b = b[whole:]
	}
	return h.end(b)
}

// end hashes the last group.
func (h *pieceHasher) end(rest []byte) Value {
	node := blake3.Tail(rest, h.counter)
	if h.tree.n == 0 {
		if h.whole {
			node.Flags |= guts.FlagRoot
		}
		return toValue(guts.ChainingValue(node))
	}
	h.tree.add(guts.ChainingValue(node))
	if h.whole {
		return h.tree.fold(guts.FlagRoot)
	}
	return h.tree.fold(0)
}

// ZeroValue returns the value of piece index when its length bytes are all zero.
// It costs as much as hashing them, but reads no memory.
func ZeroValue(index, length int64, whole bool) Value {
	var h pieceHasher
	h.reset(index, whole)
	for ; length > blake3.GroupLen; length -= blake3.GroupLen {
		h.group(&zeros)
	}
	return h.end(zeros[:length])
}

// A Tree combines values into the one of the tree above them, in memory that
// grows with the logarithm of their number. The zero value is empty.
type Tree struct {
	stack [56][8]uint32 // complete subtrees, left to right; 2^54 chunks are 2^64 bytes
	depth int
	n     uint64 // values added
}

// Add appends the value of the next piece.
func (t *Tree) Add(v Value) { t.add(toWords(v)) }

// Root returns the root, which is what b3sum prints. A file of at most one piece
// has its root as only value.
func (t *Tree) Root() Value {
	if t.n == 1 {
		return toValue(t.stack[0])
	}
	return t.fold(guts.FlagRoot)
}

// add is lazy by one: subtrees are joined when the next value comes, because
// the last join of all may be the root, which has a flag of its own.
func (t *Tree) add(cv [8]uint32) {
	for n := t.n; n != 0 && n&1 == 0; n >>= 1 {
		t.depth--
		t.stack[t.depth-1] = parent(t.stack[t.depth-1], t.stack[t.depth], 0)
	}
	t.stack[t.depth] = cv
	t.depth++
	t.n++
}

// fold joins what is left, from the right, and gives flags to the topmost node.
// There must be two values at least.
func (t *Tree) fold(flags uint32) Value {
	cv := t.stack[t.depth-1]
	for i := t.depth - 2; i > 0; i-- {
		cv = parent(t.stack[i], cv, 0)
	}
	return toValue(parent(t.stack[0], cv, flags))
}

func parent(left, right [8]uint32, flags uint32) [8]uint32 {
	return guts.ChainingValue(guts.ParentNode(left, right, &guts.IV, flags))
}

func toValue(cv [8]uint32) (v Value) {
	for i, w := range cv {
		binary.LittleEndian.PutUint32(v[4*i:], w)
	}
	return v
}

func toWords(v Value) (cv [8]uint32) {
	for i := range cv {
		cv[i] = binary.LittleEndian.Uint32(v[4*i:])
	}
	return cv
}

// digestPrefix names the algorithm in a digest.
const digestPrefix = "b3:"

// FormatDigest writes a root as "b3:" and 64 lower-case hex digits.
func FormatDigest(root Value) string { return digestPrefix + root.String() }

// ParseDigest is the reverse of FormatDigest.
func ParseDigest(s string) (root Value, ok bool) {
	if len(s) != len(digestPrefix)+2*len(root) || s[:len(digestPrefix)] != digestPrefix {
		return root, false
	}
	return parseValue(s[len(digestPrefix):])
}

// parseValue accepts exactly 64 lower-case hex digits: one spelling per value.
func parseValue(s string) (v Value, ok bool) {
	if len(s) != 2*len(v) {
		return v, false
	}
	for i := range s {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return v, false
		}
	}
	_, err := hex.Decode(v[:], []byte(s))
	return v, err == nil
}
