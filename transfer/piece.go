package transfer

// PieceSize is the length of a piece in bytes: 4,096 BLAKE3 chunks, the unit of
// proof, fetching and resuming. Every piece but the last has this length.
const PieceSize = 4 << 20

// Value is the BLAKE3 chaining value of a piece's subtree, or, for a file of at
// most one piece, its root.
type Value [32]byte

// Pieces returns the number of pieces of a file of size bytes; an empty file
// has one, of length 0.
func Pieces(size int64) int64 { return max(1, (size+PieceSize-1)/PieceSize) }

// PieceLen returns the length of piece n of a file of size bytes.
func PieceLen(n, size int64) int64 { return min(PieceSize, size-n*PieceSize) }
