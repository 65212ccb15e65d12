package transfer

import (
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

// Lines that the exporter writes.

func (l treeLine) append(b []byte) []byte {
	if out, ok := l.appendPlain(b); ok {
		return out
	}
	out, err := json.Marshal(l, json.Deterministic(true))
	if err != nil {
		panic("manifest line does not marshal: " + err.Error()) // names are proved, messages made valid
	}
	return append(append(b, out...), '\n')
}

// rfcTime writes a time as the manifest has it. RFC 3339 has four digits for the
// year, a file's time has more: such a time becomes 1970.
func rfcTime(t time.Time) string {
	if y := t.UTC().Year(); y < 1 || y > 9999 {
		t = time.Unix(0, 0)
	}
	return t.UTC().Format(time.RFC3339Nano)
}

func treeHeaderLine(h TreeHeader) treeLine {
	v, piece, mtime := int64(treeVersion), int64(PieceSize), rfcTime(h.Root.MTime)
	root := &treeRoot{Mode: &h.Root.Mode, MTime: &mtime, UID: &h.Root.UID, GID: &h.Root.GID, Xattrs: h.Root.Xattrs}
	return treeLine{Kind: kindTree, V: &v, Root: root, Size: &h.Size, Entries: &h.Entries, Exact: &h.Exact, Piece: &piece, Filter: h.Filter}
}

// treeEntryLine is the line of an entry. A file of one piece has its digest.
func treeEntryLine(n int64, e TreeEntry) treeLine {
	l := treeLine{Kind: TreeKindEntry, N: &n, Path: &e.Path, Type: &e.Type}
	if e.Type != TreeLink {
		mtime := rfcTime(e.MTime)
		l.Mode, l.MTime, l.UID, l.GID, l.Xattrs = &e.Mode, &mtime, &e.UID, &e.GID, e.Xattrs
	}
	switch e.Type {
	case TreeFile:
		l.Size, l.At = &e.Size, &e.At
		if e.Size <= PieceSize {
			digest := FormatDigest(e.Digest)
			l.Digest = &digest
		}
	case TreeSymlink, TreeLink:
		l.Target = &e.Target
	case TreeChar, TreeBlock:
		l.Rdev = &e.Rdev
	}
	return l
}

// treePartLine is a line of a file of several pieces: zero when count is not 0.
func treePartLine(n int64, v Value, count int64) treeLine {
	if count > 0 {
		return treeLine{Kind: TreeKindZero, N: &n, Count: &count}
	}
	value := v.String()
	return treeLine{Kind: TreeKindPiece, N: &n, Value: &value}
}

func treeDigestLine(n int64, v Value) treeLine {
	digest := FormatDigest(v)
	return treeLine{Kind: TreeKindDigest, N: &n, Digest: &digest}
}

// treeMissLine is a skipped line, or without a path a dropped one.
func treeMissLine(n int64, path, code, message string) treeLine {
	message = strings.ToValidUTF8(message, "�")
	if len(message) > maxMessage {
		message = strings.ToValidUTF8(message[:maxMessage], "") // a character may be cut
	}
	l := treeLine{Kind: TreeKindDropped, N: &n, Code: &code, Message: &message}
	if path != "" {
		l.Kind, l.Path = TreeKindSkipped, &path
	}
	return l
}

func treeEndLine(c *TreeCursor) treeLine {
	digest := c.Digest()
	return treeLine{Kind: kindEnd, Size: &c.At, Digest: &digest, Entries: &c.Entries, Skipped: &c.Skipped}
}
