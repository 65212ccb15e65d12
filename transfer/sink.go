package transfer

import (
	"context"

	"gantry/api"
)

// A sink receives the proved pieces of one content. begin comes first; then has,
// clear, read, write and note are called by several goroutines at the same time,
// though for one piece by one, and checkpoint at any time; finish comes after
// all of them, when the digest of the whole is the one that the source stated.
// Whatever they return has a code.
type sink interface {
	// begin makes ready for what the first line of the manifest describes; of a
	// stream the size is not known before finish.
	begin(file File) error
	// has says whether the piece is known to be in place, durably.
	has(p part) (bool, error)
	// read reads what is in place of a piece, to be hashed before it is fetched;
	// ok is false when nothing there can be of use.
	read(p part, buf []byte) (ok bool, err error)
	// clear makes pieces read as zeros. Every piece before them is already with
	// those who fetch, so it may wait for them.
	clear(ctx context.Context, p part) error
	// write puts a proved piece in its place. Pieces are begun in order, so it may
	// wait for those before. The bytes are the caller's again when it returns.
	write(ctx context.Context, p part, buf []byte) error
	// note remembers that a piece is in place: after write, or because what read
	// returned is it.
	note(p part) error
	// checkpoint makes durable what was noted. It is called when the pull ends
	// too, however it ends. Whenever pieces that were noted have become durable
	// the sink says so to run.durable.
	checkpoint() error
	// finish makes the content the target, durably.
	finish(ctx context.Context) (api.ImportResult, error)
	// failed is told the error with which the import ends, and returns it, with
	// what went wrong when the sink gives back what nobody can use any more.
	failed(err error) error
	// earlier are the counters of earlier starts, carried says whether what is in
	// place came from another task.
	earlier() counters
	carried() bool
	close()
}

// A part is an entry with the size of the whole, in bytes, as far as it is known
// when the entry comes.
type part struct {
	Entry
	size int64
	line int64 // of a tree: the number of its line
}

// off is where the part begins.
func (p part) off() int64 { return p.N * PieceSize }

// len is the length of all its pieces.
func (p part) len() int64 {
	last := p.N + p.Count - 1
	return (last-p.N)*PieceSize + PieceLen(last, p.size)
}

// whole says that there is no other piece.
func (p part) whole() bool { return Pieces(p.size) == 1 }
