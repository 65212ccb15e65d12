package transfer

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"slices"

	"gantry/api"
)

// Bounds of looking for renamed files: of a tree with more recorded files than
// maxMoves only the first ones are found, of more than maxTwins of the same
// content only so many are looked at.
const (
	maxMoves = 1 << 21
	maxTwins = 8
	// moveBits is how much of a key an index keeps, offsetBits is for the place of
	// its record.
	moveBits   = 28
	offsetBits = 64 - moveBits
)

// moves finds old files by their content, so that one that has another path now
// is not fetched. It knows those that a record tells of, 8 bytes for each; what
// it finds is looked at, and read where it is not linked. Used by the plan alone.
type moves struct {
	known   *lookReader
	digests []uint64 // by the start of the digest, then the record's offset
	sizes   []uint64 // of files of several pieces, by their size
	claimed []uint64 // bits, by offset: the file has its one name in the stage
	inodes  []uint64 // bits, by a hash of the inode: the name has another path
}

// inodeBits is how many bits moves.inodes has.
const inodeBits = 1 << 23

// An origin is the old file that a new one is taken from.
type origin struct {
	path string // "" for that of the new one
	off  int64  // of its record
	link bool   // the new file can be a name of it
	look oldFile
}

// openMoves reads the records once.
func openMoves(known *lookReader) *moves {
	m := &moves{known: known}
	br := bufio.NewReaderSize(io.NewSectionReader(known.f, 0, 1<<offsetBits-1), 1<<16)
	var at int64
	for len(m.digests)+len(m.sizes) < maxMoves {
		k, n, ok := readLook(br)
		if !ok {
			break
		}
		switch {
		case k.look.size > PieceSize:
			m.sizes = append(m.sizes, moveKey(mix(uint64(k.look.size)))|uint64(at))
		case k.look.size > 0:
			m.digests = append(m.digests, moveKey(binary.BigEndian.Uint64(k.digest[:]))|uint64(at))
		}
		at += n
	}
	slices.Sort(m.digests)
	slices.Sort(m.sizes)
	m.claimed, m.inodes = make([]uint64, at/recordHead/64+1), make([]uint64, inodeBits/64)
	return m
}

// moveKey keeps the first moveBits.
func moveKey(k uint64) uint64 { return k >> offsetBits << offsetBits }

// claim says whether the file of the record at off got no name in the stage
// before. Records are longer than recordHead, so each has a bit of its own.
func (m *moves) claim(off int64) bool {
	k := off / recordHead
	bit := uint64(1) << (k % 64)
	free := m.claimed[k/64]&bit == 0
	m.claimed[k/64] |= bit
	return free
}

// isClaimed says whether claim was called.
func (m *moves) isClaimed(off int64) bool {
	k := off / recordHead
	return m.claimed[k/64]&(1<<(k%64)) != 0
}

// take is claim for a file that gets another path.
func (m *moves) take(o origin) bool {
	if !m.claim(o.off) {
		return false
	}
	k := mix(o.look.ino) % inodeBits
	m.inodes[k/64] |= 1 << (k % 64)
	return true
}

// took says whether the inode may be that of a file that got another path.
func (m *moves) took(ino uint64) bool {
	k := mix(ino) % inodeBits
	return m != nil && m.inodes[k/64]&(1<<(k%64)) != 0
}

// each calls fn with records that may be those of the key, until it returns false.
func (m *moves) each(index []uint64, key uint64, fn func(k lookRecord, off int64) bool) {
	key = moveKey(key)
	i, _ := slices.BinarySearch(index, key)
	for n := 0; i < len(index) && moveKey(index[i]) == key && n < maxTwins; i, n = i+1, n+1 {
		off := int64(index[i] &^ key)
		k, ok := m.known.at(off)
		if !ok || !fn(k, off) {
			return
		}
	}
}

// movable returns the index, made when it is asked for first; nil when nothing can
// be found.
func (r *treeImport) movable() *moves {
	if r.moves == nil && r.known != nil && r.old != nil && (r.DryRun || !r.comparing()) {
		r.moves = openMoves(r.known)
	}
	return r.moves
}

// claimOwn says whether an unchanged file may have a second name in the stage: an
// entry of another path may have taken it.
func (r *treeImport) claimOwn(path string) bool {
	if r.movable() == nil {
		return true
	}
	_, ok := r.known.find(path)
	return !ok || r.moves.claim(r.known.off)
}

// moved looks for an old file with the content of e, a file of one piece.
func (r *treeImport) moved(e *TreeEntry) (o origin, ok bool, err error) {
	m := r.movable()
	if m == nil || e.Size == 0 {
		return o, false, nil
	}
	m.each(m.digests, binary.BigEndian.Uint64(e.Digest[:]), func(k lookRecord, off int64) bool {
		if k.digest != e.Digest || k.look.size != e.Size || ok && m.isClaimed(off) {
			return true
		}
		here, there, ferr := r.oldEntry(k.path)
		if err = ferr; err != nil || !there || here.look() != k.look {
			return err == nil
		}
		o, ok = origin{path: k.path, off: off, look: k.look}, true
		if m.isClaimed(off) {
			return true // another one could be linked
		}
		o.link, err = r.mayMove(e, o, here)
		return false
	})
	if ok && err == nil {
		r.renamed.Add(1)
		if o.link {
			m.take(o)
		}
	}
	return o, ok, err
}

// mayMove says whether e can be a name of an old file of another path: that one's
// name must go, or programs that write to one of them in place would change both.
func (r *treeImport) mayMove(e *TreeEntry, o origin, here identity) (bool, error) {
	if r.KeepOld || r.Checksum || r.inPlace() || r.Extraneous != api.ExtraneousDelete {
		return false, nil
	}
	return r.alikeOld(o.path, e, here)
}

// movedBig looks for an old file whose first pieces are those of a large file that
// begins with p. The rest of it is compared as it comes.
func (r *treeImport) movedBig(ctx context.Context, b *bigFile, p part) (err error) {
	m := r.movable()
	if m == nil {
		return nil
	}
	before := b.old
	m.each(m.sizes, mix(uint64(b.Size)), func(k lookRecord, off int64) bool {
		if k.look.size != b.Size {
			return true
		}
		f, id, ferr := r.openOld(k.path)
		if ferr != nil {
			return true
		}
		same := false
		if id.look() == k.look {
			b.old = f
			same, err = r.oldHas(ctx, b, p)
		}
		if !same || err != nil {
			f.Close()
			b.old = before
			return err == nil
		}
		if before != nil {
			before.Close()
		}
		b.look, b.cmp, b.from = k.look, true, origin{path: k.path, off: off, look: k.look}
		return false
	})
	return err
}

// settleMoved settles a large file whose content is that of an old one of another
// path.
func (r *treeImport) settleMoved(ctx context.Context, b *bigFile, here identity) error {
	r.renamed.Add(1)
	if r.comparing() {
		return r.compare(&b.TreeEntry, true, false)
	}
	link, err := r.mayMove(&b.TreeEntry, b.from, here)
	if err == nil {
		err = r.build(ctx)
	}
	switch {
	case err != nil:
		return err
	case link && r.moves.take(b.from):
		return r.keepBig(ctx, b, false)
	}
	return r.copyBig(ctx, b)
}
