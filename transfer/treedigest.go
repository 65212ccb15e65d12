package transfer

import (
	"encoding/hex"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
	"lukechampine.com/blake3"
)

// TreeHash computes the digest of a tree: the BLAKE3 of its canonical entries,
// one line each, in path order:
//
//	TYPE MODE SIZE DIGEST PATH NUL TARGET LF
//
// TYPE is one of the [TreeType]s; MODE four octal digits, "-" for symlink and
// link, which have none of their own; SIZE in decimal, 0 for everything but a
// file; DIGEST that of a file, else "-"; TARGET that of a symlink or link,
// MAJOR:MINOR of a char or block, else empty. The fields are parted by one space
// each, except where NUL is named. Paths hold neither NUL nor LF, so no two trees
// have the same lines. Times, owners and attributes are no part of it, nor is the
// tree's root. The zero value is ready; not safe for concurrent use.
type TreeHash struct {
	h   *blake3.Hasher
	buf []byte
}

// Add appends the next entry; a file's Digest must be set.
func (t *TreeHash) Add(e *TreeEntry) {
	if t.h == nil {
		t.h = blake3.New(len(Value{}), nil)
	}
	t.buf = appendCanonical(t.buf[:0], e)
	t.h.Write(t.buf)
}

// Digest is that of the entries so far, as "b3:" and 64 hex digits.
func (t *TreeHash) Digest() string {
	if t.h == nil {
		t.h = blake3.New(len(Value{}), nil)
	}
	return FormatDigest(Value(t.h.Sum(nil)))
}

// appendCanonical appends the canonical line of e.
func appendCanonical(b []byte, e *TreeEntry) []byte {
	b = append(append(b, e.Type...), ' ')
	if e.Type == TreeSymlink || e.Type == TreeLink {
		b = append(b, '-')
	} else {
		for limit := uint32(0o1000); e.Mode < limit && limit > 1; limit >>= 3 {
			b = append(b, '0')
		}
		b = strconv.AppendUint(b, uint64(e.Mode), 8)
	}
	if e.Type == TreeFile {
		b = append(strconv.AppendInt(append(b, ' '), e.Size, 10), ' ')
		b = hex.AppendEncode(append(b, digestPrefix...), e.Digest[:])
	} else {
		b = append(b, " 0 -"...)
	}
	b = append(append(append(b, ' '), e.Path...), 0)
	switch e.Type {
	case TreeChar, TreeBlock:
		b = fmt.Appendf(b, "%d:%d", unix.Major(e.Rdev), unix.Minor(e.Rdev))
	default:
		b = append(b, e.Target...)
	}
	return append(b, '\n')
}

// ComparePaths orders paths as a tree's manifest does: depth first, siblings by
// the bytes of their names, a directory before what is in it.
func ComparePaths(a, b string) int {
	for i := range min(len(a), len(b)) {
		if x, y := a[i], b[i]; x != y {
			switch { // the separator is lower than every byte of a name
			case x == '/':
				return -1
			case y == '/' || x > y:
				return 1
			default:
				return -1
			}
		}
	}
	return len(a) - len(b)
}
