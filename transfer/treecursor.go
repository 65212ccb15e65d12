package transfer

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"gantry/api"

	"golang.org/x/sys/unix"
)

// TreeCursor is what the lines so far mean for the next one: a window may begin
// anywhere, within a file too. The zero value is the start of a manifest. After
// a restart feed it the lines that are kept, see [ReadTreeLines]. Not safe for
// concurrent use.
type TreeCursor struct {
	Next    int64 // number of the line that is due
	At      int64 // content offset that is due
	Entries int64 // without dropped files
	Skipped int64 // with dropped files
	Bytes   int64 // length of the lines taken, as they came

	last   string // path of the last entry or skipped one
	missed bool   // it was skipped
	bad    int64  // names that cannot be told, after it
	dir    string // directory that is open: the last entry, or its parent
	file   *TreeEntry
	done   int64 // pieces of file that are decided
	hash   TreeHash
}

// Digest is the digest of the entries so far.
func (c *TreeCursor) Digest() string { return c.hash.Digest() }

// Open says that the last file is not complete yet.
func (c *TreeCursor) Open() bool { return c.file != nil }

// take judges a numbered line and hands it on. c moves only when emit took it.
func (c *TreeCursor) take(l *treeLine, raw []byte, emit func(TreeLine) error) error {
	if l.N == nil || *l.N != c.Next {
		return badManifest("line of kind %q is not number %d", l.Kind, c.Next)
	}
	next := *c // what c is if emit takes the line
	var line TreeLine
	var err error
	switch l.Kind {
	case TreeKindEntry:
		line, err = next.entry(l)
	case TreeKindSkipped:
		line, err = next.skip(l)
	default:
		line, err = next.part(l)
	}
	if err != nil {
		return err
	}
	line.N, line.Kind, line.Raw = c.Next, l.Kind, raw
	if err := emit(line); err != nil {
		return err
	}
	// A digest covers all entries that were emitted: none is added before.
	if l.Kind == TreeKindEntry && next.file == nil || l.Kind == TreeKindDigest {
		next.hash.Add(&line.Entry)
	}
	next.Next++
	next.Bytes += int64(len(raw))
	*c = next
	return nil
}

// entry judges an entry line.
func (c *TreeCursor) entry(l *treeLine) (line TreeLine, err error) {
	if c.file != nil {
		return line, badManifest("an entry before the file %.80q was complete", c.file.Path)
	}
	if c.Entries++; c.Entries > MaxTreeEntries {
		return line, badManifest("more than %d entries", MaxTreeEntries)
	}
	e := TreeEntry{Path: *l.Path, Type: *l.Type}
	if err := c.follow(e.Path, false); err != nil {
		return line, err
	}
	if l.Mode != nil {
		if e.TreeAttrs, err = treeAttrs(*l.Mode, *l.MTime, *l.UID, *l.GID, l.Xattrs); err != nil {
			return line, err
		}
	}
	switch e.Type {
	case TreeDir:
		c.dir = e.Path
	case TreeFile:
		err = c.content(&e, l)
	case TreeSymlink, TreeLink:
		e.Target = *l.Target
		err = e.checkTarget()
	case TreeChar, TreeBlock:
		e.Rdev = *l.Rdev
		if unix.Major(e.Rdev) > 1<<12-1 || unix.Minor(e.Rdev) > 1<<20-1 || e.Rdev > MaxSize {
			err = unsafeEntry(e.Path, "it is device %d, which no kernel has", e.Rdev)
		}
	}
	return TreeLine{Entry: e}, err
}

// follow judges the path of an entry, or of a skipped one, by itself and by what
// came before it.
func (c *TreeCursor) follow(path string, skipped bool) error {
	if err := CheckName(path); err != nil {
		return unsafeEntry(path, "%s", strings.TrimPrefix(wireMessage(err), fmt.Sprintf("path %.80q ", path)))
	}
	// A directory that cannot be listed is an entry and is skipped, too.
	if order := ComparePaths(c.last, path); c.last != "" && (order > 0 || order == 0 && !skipped) {
		return unsafeEntry(path, "it comes after %.80q, which is the same or has to come later", c.last)
	}
	for c.dir != "" && !strings.HasPrefix(path, c.dir+"/") && !(skipped && path == c.dir) {
		c.dir = parentPath(c.dir)
	}
	if parent := parentPath(path); parent != c.dir && !(skipped && path == c.dir) {
		return unsafeEntry(path, "its directory was not announced before")
	}
	c.last, c.missed, c.bad = path, skipped, 0
	return nil
}

// parentPath is the path of the directory that path lies in, "" for the root.
func parentPath(path string) string { return path[:max(0, strings.LastIndexByte(path, '/'))] }

// content judges size, offset and digest of a file.
func (c *TreeCursor) content(e *TreeEntry, l *treeLine) error {
	e.Size, e.At = *l.Size, *l.At
	if e.Size < 0 || e.Size > MaxSize-c.At {
		return unsafeEntry(e.Path, "it has %d bytes, the files before it %d, all together may have %d", e.Size, c.At, int64(MaxSize))
	}
	if e.At != c.At {
		return badManifest("%.80q begins at byte %d, not at %d, where the file before it ends", e.Path, e.At, c.At)
	}
	c.At += e.Size
	if e.Size > PieceSize {
		c.file, c.done = e, 0
		return nil
	}
	var ok bool
	if e.Digest, ok = ParseDigest(*l.Digest); !ok {
		return badManifest("digest %.80q", *l.Digest)
	}
	return nil
}

// checkTarget judges what a symlink or a link leads to. Where a symlink leads is not looked
// at: it is data, nobody follows it.
func (e *TreeEntry) checkTarget() error {
	t := e.Target
	if e.Type == TreeSymlink {
		if t == "" || len(t) > maxTarget || !utf8.ValidString(t) || strings.ContainsFunc(t, isControl) {
			return unsafeEntry(e.Path, "its target is empty, longer than %d bytes or has characters that are not printed", maxTarget)
		}
		return nil
	}
	if err := CheckName(t); err != nil {
		return unsafeEntry(e.Path, "its target: %s", wireMessage(err))
	}
	if ComparePaths(t, e.Path) >= 0 {
		return unsafeEntry(e.Path, "it links to %.80q, which does not come before it", t)
	}
	return nil
}

// part judges a line of a file of several pieces.
func (c *TreeCursor) part(l *treeLine) (line TreeLine, err error) {
	if c.file == nil {
		return line, badManifest("line of kind %q without a file that it belongs to", l.Kind)
	}
	pieces := Pieces(c.file.Size)
	line = TreeLine{Entry: *c.file, Piece: c.done}
	var ok bool
	switch l.Kind {
	case TreeKindPiece:
		line.Count = 1
		if line.Value, ok = parseValue(*l.Value); !ok {
			return line, badManifest("a piece has the value %.80q", *l.Value)
		}
	case TreeKindZero:
		if line.Count = *l.Count; line.Count < 1 {
			return line, badManifest("a run of %d pieces", line.Count)
		}
	case TreeKindDigest:
		if line.Entry.Digest, ok = ParseDigest(*l.Digest); !ok || c.done != pieces {
			return line, badManifest("digest %.80q after %d of %d pieces", *l.Digest, c.done, pieces)
		}
		c.file = nil
		return line, nil
	case TreeKindDropped:
		line.Code, line.Message = *l.Code, *l.Message
		c.file = nil
		c.Entries--
		return line, c.miss(l)
	}
	if line.Count > pieces-c.done {
		return line, badManifest("%d pieces from %d of a file of %d", line.Count, c.done, pieces)
	}
	c.done += line.Count
	return line, nil
}

// miss judges why an entry is missing, and counts it.
func (c *TreeCursor) miss(l *treeLine) error {
	switch *l.Code {
	case SkipDenied, SkipVanished, SkipSpecial, SkipBadName, SkipChanged, SkipIO, SkipOther:
	default:
		return badManifest("an entry is missing with the code %.40q", *l.Code)
	}
	if len(*l.Message) > maxMessage {
		return badManifest("a message of %d bytes, %d are allowed", len(*l.Message), maxMessage)
	}
	if c.Skipped++; c.Skipped > MaxTreeEntries {
		return badManifest("more than %d skipped entries", MaxTreeEntries)
	}
	return nil
}

// skip judges a skipped line.
func (c *TreeCursor) skip(l *treeLine) (line TreeLine, err error) {
	if c.file != nil {
		return line, badManifest("a skipped entry before the file %.80q was complete", c.file.Path)
	}
	line = TreeLine{Path: *l.Path, Code: *l.Code, Message: *l.Message}
	if err := c.miss(l); err != nil {
		return line, err
	}
	if line.Code == SkipBadName { // it is not in order either
		if len(line.Path) > 4*api.MaxPath {
			return line, badManifest("an escaped path of %d bytes", len(line.Path))
		}
		c.bad++
		return line, nil
	}
	return line, c.follow(line.Path, true)
}

// unsafeEntry is the refusal of an entry that could do harm.
func unsafeEntry(path, format string, args ...any) error {
	return fail(api.UnsafeEntry, nil, "unsafe entry %.300q: "+format, append([]any{path}, args...)...)
}
