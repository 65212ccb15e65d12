package transfer

import (
	"encoding/binary"
	"encoding/hex"

	"lukechampine.com/blake3/guts"
)

// PieceSize is the length of a piece in bytes: 4,096 BLAKE3 chunks, the unit of
// proof, fetching and resuming. Every piece but the last has this length.
const PieceSize = 4 << 20

const (
	pieceChunks = PieceSize / guts.ChunkSize
	// blockSize is what one SIMD call hashes: 16 chunks.
	blockSize = guts.MaxSIMD * guts.ChunkSize
)

// Value is the BLAKE3 chaining value of a piece's subtree, or, for a file of at
// most one piece, its root.
type Value [32]byte

// String returns 64 lower-case hex digits.
func (v Value) String() string { return hex.EncodeToString(v[:]) }

// Pieces returns the number of pieces of a file of size bytes; an empty file
// has one, of length 0.
func Pieces(size int64) int64 { return max(1, (size+PieceSize-1)/PieceSize) }

// PieceLen returns the length of piece n of a file of size bytes.
func PieceLen(n, size int64) int64 { return min(PieceSize, size-n*PieceSize) }

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
// are still in the processor's cache. It works on the caller's goroutine:
// guts.CompressEigentree would start 256 for each piece. The zero value needs
// reset.
type pieceHasher struct {
	counter uint64 // of the next chunk
	whole   bool
	done    int // bytes hashed, a multiple of blockSize
	tree    Tree
	scratch [blockSize]byte // a short last block: the SIMD code reads a whole one
}

func (h *pieceHasher) reset(index int64, whole bool) {
	h.counter = uint64(index) * pieceChunks
	h.whole, h.done, h.tree = whole, 0, Tree{}
}

// land hashes the whole blocks of buf[:n], those that it has not hashed yet. The
// last block waits for sum: only then is it known whether it is the root.
func (h *pieceHasher) land(buf []byte, n int) {
	for ; h.done+blockSize < n; h.done += blockSize {
		block := (*[blockSize]byte)(buf[h.done:])
		h.tree.add(guts.ChainingValue(guts.CompressBuffer(block, blockSize, &guts.IV, h.counter, 0)))
		h.counter += guts.MaxSIMD
	}
}

// sum hashes the rest of buf, which is now complete, and returns the value.
func (h *pieceHasher) sum(buf []byte) Value {
	h.land(buf, len(buf))
	n := copy(h.scratch[:], buf[h.done:])
	node := guts.CompressBuffer(&h.scratch, n, &guts.IV, h.counter, 0)
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
	var h pieceHasher // its scratch is zero
	h.reset(index, whole)
	for ; int64(h.done)+blockSize < length; h.done += blockSize {
		h.tree.add(guts.ChainingValue(guts.CompressBuffer(&h.scratch, blockSize, &guts.IV, h.counter, 0)))
		h.counter += guts.MaxSIMD
	}
	rest := h.scratch[:length-int64(h.done)]
	h.done = 0
	return h.sum(rest)
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
