package transfer

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"time"

	"gantry/api"
	"gantry/feedback"

	"github.com/go-json-experiment/json"
)

// Limits of a tree's manifest.
const (
	treeVersion = 1
	// maxTreeLine is the longest line, with newline and a front's padding: it
	// fits into one FastCGI record.
	maxTreeLine = 56 << 10
	// MaxTreeEntries is the most entries, and the most skipped ones, of a tree.
	MaxTreeEntries = 1 << 27
	// maxTarget is the longest target of a symbolic link: PATH_MAX with its NUL.
	maxTarget = 4095
	// maxXattrs is the most bytes that names and values of an entry's extended
	// attributes have together, maxXattrCount the most attributes, maxXattrName
	// the longest name (XATTR_NAME_MAX). With a path and a target that need
	// escaping the line is still below maxTreeLine.
	maxXattrs     = 26 << 10
	maxXattrCount = 256
	maxXattrName  = 255
	// maxFilter is the most bytes of all filter rules together, api.MaxFilter
	// their number.
	maxFilter = 8 << 10
	// maxPerm is all permission bits with setuid, setgid and sticky.
	maxPerm = 0o7777
)

// A TreeType is what an entry of a tree is.
type TreeType string

// The types of entries. A link is another name of an earlier file.
const (
	TreeDir     TreeType = "dir"
	TreeFile    TreeType = "file"
	TreeSymlink TreeType = "symlink"
	TreeLink    TreeType = "link"
	TreeFifo    TreeType = "fifo"
	TreeSocket  TreeType = "socket"
	TreeChar    TreeType = "char"
	TreeBlock   TreeType = "block"
)

// TreeAttrs is what a file system keeps beside the content.
type TreeAttrs struct {
	Mode     uint32 // permission bits, setuid, setgid, sticky
	MTime    time.Time
	UID, GID uint32
	Xattrs   map[string][]byte // nil when there are none, or none were asked for
}

// TreeEntry is an entry of a tree.
type TreeEntry struct {
	Path      string // passes CheckName
	Type      TreeType
	TreeAttrs        // a link has none: they are those of its target
	Size      int64  // of a file
	At        int64  // of a file: its offset in the tree's content
	Digest    Value  // of a file of one piece; of a larger one when its digest line came
	Target    string // of a symlink as it is read; of a link the path of the first name
	Rdev      uint64 // of char and block, as unix.Mkdev makes it
}

// TreeHeader is what the first line of a window says.
type TreeHeader struct {
	Root    TreeAttrs
	Size    int64 // bytes of all files
	Entries int64
	Exact   bool     // Size and Entries are no estimates
	Filter  []string // the rules that chose the entries, in order
}

// Kinds of numbered lines of a tree's manifest.
const (
	TreeKindEntry   = "entry"   // an entry; a file of several pieces goes on
	TreeKindPiece   = "piece"   // a piece of the last file
	TreeKindZero    = "zero"    // a run of pieces of the last file that hold only zeros
	TreeKindDigest  = "digest"  // the last file is complete
	TreeKindDropped = "dropped" // the last file is none: it could not be read to its end
	TreeKindSkipped = "skipped" // an entry that is not in the tree
)

// TreeLine is a numbered line.
type TreeLine struct {
	N     int64
	Kind  string
	Entry TreeEntry // of the line itself, or the file that the line belongs to; unset when skipped
	// Piece is the number within its file of the first of Count pieces.
	Piece, Count int64
	Value        Value // of a piece
	// Path is that of a skipped entry. It passes CheckName, unless the code is
	// bad_name: then it is an escaped form for people.
	Path          string
	Code, Message string // of skipped and dropped
	Raw           []byte // the line as it came, with its newline; valid until emit returns
}

// TreeWindow is the outcome of a window that was received whole.
type TreeWindow struct {
	Header TreeHeader
	Next   int64 // first line after the window
	End    bool  // the last line is in it
	Digest string
	// Size is the length of the content, dropped files included; Entries and
	// Skipped are the numbers of each. Only when End.
	Size, Entries, Skipped int64
}

// treeLine is the union of all lines; each kind has exactly its own keys.
type treeLine struct {
	Kind      string            `json:"kind"`
	V         *int64            `json:"v,omitzero"`
	Root      *treeRoot         `json:"root,omitzero"`
	N         *int64            `json:"n,omitzero"`
	Path      *string           `json:"path,omitzero"`
	Type      *TreeType         `json:"type,omitzero"`
	Mode      *uint32           `json:"mode,omitzero"`
	MTime     *string           `json:"mtime,omitzero"`
	UID       *uint32           `json:"uid,omitzero"`
	GID       *uint32           `json:"gid,omitzero"`
	Size      *int64            `json:"size,omitzero"`
	At        *int64            `json:"at,omitzero"`
	Piece     *int64            `json:"piece,omitzero"`
	Value     *string           `json:"value,omitzero"`
	Count     *int64            `json:"count,omitzero"`
	Next      *int64            `json:"next,omitzero"`
	Digest    *string           `json:"digest,omitzero"`
	Target    *string           `json:"target,omitzero"`
	Rdev      *uint64           `json:"rdev,omitzero"`
	Xattrs    map[string][]byte `json:"xattrs,omitzero"`
	Entries   *int64            `json:"entries,omitzero"`
	Skipped   *int64            `json:"skipped,omitzero"`
	Exact     *bool             `json:"exact,omitzero"`
	Filter    []string          `json:"filter,omitzero"`
	Code      *string           `json:"code,omitzero"`
	Message   *string           `json:"message,omitzero"`
	Retryable *bool             `json:"retryable,omitzero"`
}

// treeRoot is the root's attributes in the first line.
type treeRoot struct {
	Mode   *uint32           `json:"mode,omitzero"`
	MTime  *string           `json:"mtime,omitzero"`
	UID    *uint32           `json:"uid,omitzero"`
	GID    *uint32           `json:"gid,omitzero"`
	Xattrs map[string][]byte `json:"xattrs,omitzero"`
}

// Kinds of lines that have no number, beside those of a file's manifest.
const kindTree = "tree"

// Keys of lines that a kind must have, or must not; those that may be missing are
// none of them: xattrs, filter, and the digest of an entry.
const (
	keyV = 1 << iota
	keyRoot
	keyN
	keyPath
	keyType
	keyMode
	keyMTime
	keyUID
	keyGID
	keySize
	keyAt
	keyPiece
	keyValue
	keyCount
	keyNext
	keyDigest
	keyTarget
	keyRdev
	keyEntries
	keySkipped
	keyExact
	keyCode
	keyMessage
	keyRetryable
)

// keyNames are the names of the keys, in their order.
var keyNames = strings.Fields("v root n path type mode mtime uid gid size at piece value count next digest target rdev entries skipped exact code message retryable")

const keysEntry = keyN | keyPath | keyType | keyMode | keyMTime | keyUID | keyGID

// treeKeys are the keys of each kind but entries.
var treeKeys = map[string]int{
	kindTree:        keyV | keyRoot | keySize | keyPiece | keyEntries | keyExact,
	TreeKindPiece:   keyN | keyValue,
	TreeKindZero:    keyN | keyCount,
	TreeKindDigest:  keyN | keyDigest,
	TreeKindDropped: keyN | keyCode | keyMessage,
	TreeKindSkipped: keyN | keyPath | keyCode | keyMessage,
	kindBeat:        0,
	kindSame:        keyDigest,
	kindWindow:      keyNext,
	kindEnd:         keySize | keyDigest | keyEntries | keySkipped,
	kindError:       keyCode | keyMessage | keyRetryable,
}

// treeEntryKeys are those of entries, by type.
var treeEntryKeys = map[TreeType]int{
	TreeDir:     keysEntry,
	TreeFile:    keysEntry | keySize | keyAt,
	TreeSymlink: keysEntry | keyTarget,
	TreeLink:    keyN | keyPath | keyType | keyTarget,
	TreeFifo:    keysEntry,
	TreeSocket:  keysEntry,
	TreeChar:    keysEntry | keyRdev,
	TreeBlock:   keysEntry | keyRdev,
}

// keys are the keys that the kind of the line has.
func (l *treeLine) keys() (want int, known bool) {
	if l.Kind == TreeKindEntry {
		if l.Type == nil {
			return 0, false
		}
		want, known = treeEntryKeys[*l.Type]
		return want, known
	}
	want, known = treeKeys[l.Kind]
	return want, known
}

// present are the keys that the line has.
func (l *treeLine) present() (keys int) {
	for i, is := range [...]bool{
		l.V != nil, l.Root != nil, l.N != nil, l.Path != nil, l.Type != nil, l.Mode != nil, l.MTime != nil, l.UID != nil, l.GID != nil,
		l.Size != nil, l.At != nil, l.Piece != nil, l.Value != nil, l.Count != nil, l.Next != nil,
		l.Digest != nil && l.Kind != TreeKindEntry,
		l.Target != nil, l.Rdev != nil, l.Entries != nil, l.Skipped != nil, l.Exact != nil, l.Code != nil, l.Message != nil, l.Retryable != nil,
	} {
		if is {
			keys |= 1 << i
		}
	}
	return keys
}

// nameKeys lists keys for people.
func nameKeys(keys int) string {
	var names []string
	for i, name := range keyNames {
		if keys&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, " ")
}

// form checks that the line has exactly the keys of its kind.
func (l *treeLine) form() error {
	want, known := l.keys()
	if has := l.present(); !known || has != want {
		return badManifest("line of kind %.20q has the keys %q, not %q", l.Kind, nameKeys(has), nameKeys(want))
	}
	attrs := l.Mode != nil // a link has none
	if l.Xattrs != nil && !attrs || l.Filter != nil && l.Kind != kindTree {
		return badManifest("line of kind %.20q has xattrs or filter", l.Kind)
	}
	if file := l.Size != nil && *l.Size <= PieceSize; l.Kind == TreeKindEntry && (l.Digest != nil) != file {
		return badManifest("an entry has a digest if, and only if, it is a file of at most %d bytes", PieceSize)
	}
	return nil
}

// treeReader reads the lines of a tree's manifest and checks their form.
type treeReader struct {
	br    *bufio.Reader
	beats int
}

func newTreeBuffer(r io.Reader) *bufio.Reader { return bufio.NewReaderSize(r, maxTreeLine) }

// next returns the next line that is no heartbeat, and its bytes.
func (tr *treeReader) next() (*treeLine, []byte, error) {
	for {
		raw, err := tr.br.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull) || len(raw) > maxTreeLine:
			return nil, nil, badManifest("a line is longer than %d bytes", maxTreeLine)
		case errors.Is(err, io.EOF) && len(raw) == 0:
			return nil, nil, io.EOF
		case errors.Is(err, io.EOF):
			return nil, nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, nil, err
		}
		l := parsePlain(raw)
		if l == nil {
			l = new(treeLine)
			if err := json.Unmarshal(raw, l, json.RejectUnknownMembers(true)); err != nil {
				return nil, nil, fail(api.BadManifest, err, "manifest line %.80q does not parse", raw)
			}
		}
		if err := l.form(); err != nil {
			return nil, nil, err
		}
		if l.Kind != kindBeat {
			return l, raw, nil
		}
		if tr.beats++; tr.beats > maxBeats {
			return nil, nil, badManifest("more than %d heartbeats in a window", maxBeats)
		}
	}
}

// ReadTreeWindow reads the window that starts at line c.Next and has at most n
// lines, and hands them to emit as they come; an error of emit ends it. c moves
// past each line that emit took, so that a window that was cut can be asked for
// again from there. A window that ended without its last line is
// io.ErrUnexpectedEOF, one that breaks the protocol has the code bad_manifest,
// an entry that could do harm unsafe_entry, and an error line of the source is a
// *[feedback.Error]. Every entry is proved here as far as the lines before it
// tell: form, limits, path, order, directory, offset, and at the end the
// digest of the tree. That the value of each piece and the digest of a large file agree
// with each other and with the content, and that the target of a link is a
// file, is for the caller to prove. Memory is bounded whatever r delivers.
func ReadTreeWindow(r io.Reader, c *TreeCursor, n int64, emit func(TreeHeader, TreeLine) error) (TreeWindow, error) {
	tr := &treeReader{br: newTreeBuffer(r)}
	w := TreeWindow{Next: c.Next}
	l, _, err := tr.next()
	if err != nil {
		return w, cutShort(err)
	}
	if w.Header, err = l.header(); err != nil {
		return w, err
	}
	for limit := c.Next + n; ; {
		l, raw, err := tr.next()
		if err != nil {
			return w, cutShort(err)
		}
		switch l.Kind {
		case kindWindow:
			if *l.Next != c.Next || c.Next != limit {
				return w, badManifest("the window ends at line %d, %d came, %d were due", *l.Next, c.Next, limit)
			}
			return w, tr.end()
		case kindEnd:
			if err := w.finish(c, l); err != nil {
				return w, err
			}
			return w, tr.end()
		case kindError:
			return w, l.wire()
		}
		if c.Next >= limit {
			return w, badManifest("more than the %d lines that were asked for", n)
		}
		if err := c.take(l, raw, func(line TreeLine) error { return emit(w.Header, line) }); err != nil {
			return w, err
		}
		w.Next = c.Next
	}
}

// ReadTreeLines reads numbered lines that were kept, up to the end of r, and
// moves c past them. A torn last line is io.ErrUnexpectedEOF; then c.Bytes is the
// length of what is whole. emit may be nil.
func ReadTreeLines(r io.Reader, c *TreeCursor, emit func(TreeLine) error) error {
	if emit == nil {
		emit = func(TreeLine) error { return nil }
	}
	tr := &treeReader{br: newTreeBuffer(r)}
	for {
		l, raw, err := tr.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := c.take(l, raw, emit); err != nil {
			return err
		}
	}
}

// cutShort: a window without its last line was cut, wherever.
func cutShort(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// end sees to it that nothing follows the last line.
func (tr *treeReader) end() error {
	if _, err := tr.br.ReadByte(); err == nil {
		return badManifest("bytes after the last line")
	}
	return nil
}

// wire is the error that the source reports.
func (l *treeLine) wire() error {
	return &feedback.Error{Code: *l.Code, Message: "source: " + *l.Message, Retryable: *l.Retryable}
}

// header judges the first line.
func (l *treeLine) header() (TreeHeader, error) {
	switch {
	case l.Kind == kindError:
		return TreeHeader{}, l.wire()
	case l.Kind != kindTree:
		return TreeHeader{}, badManifest("the first line is of kind %q", l.Kind)
	case *l.V != treeVersion:
		return TreeHeader{}, badManifest("version %d is not %d", *l.V, treeVersion)
	case *l.Piece != PieceSize:
		return TreeHeader{}, badManifest("pieces of %d bytes, not %d", *l.Piece, PieceSize)
	case *l.Size < 0 || *l.Size > MaxSize:
		return TreeHeader{}, badManifest("a size of %d bytes", *l.Size)
	case *l.Entries < 0 || *l.Entries > MaxTreeEntries:
		return TreeHeader{}, badManifest("%d entries, at most %d are allowed", *l.Entries, MaxTreeEntries)
	}
	r := l.Root
	if r.Mode == nil || r.MTime == nil || r.UID == nil || r.GID == nil {
		return TreeHeader{}, badManifest("the root needs mode, mtime, uid and gid")
	}
	rules := 0
	for _, rule := range l.Filter {
		if rules += len(rule); rules > maxFilter || len(l.Filter) > api.MaxFilter {
			return TreeHeader{}, badManifest("more than %d filter rules or %d bytes of them", api.MaxFilter, maxFilter)
		}
	}
	attrs, err := treeAttrs(*r.Mode, *r.MTime, *r.UID, *r.GID, r.Xattrs)
	return TreeHeader{Root: attrs, Size: *l.Size, Entries: *l.Entries, Exact: *l.Exact, Filter: l.Filter}, err
}

// treeAttrs judges attributes.
func treeAttrs(mode uint32, when string, uid, gid uint32, xattrs map[string][]byte) (TreeAttrs, error) {
	a := TreeAttrs{Mode: mode, UID: uid, GID: gid, Xattrs: xattrs}
	if mode > maxPerm {
		return a, badManifest("mode %#o has more than the bits %#o", mode, uint32(maxPerm))
	}
	mtime, err := time.Parse(time.RFC3339Nano, when)
	var form [len(time.RFC3339Nano)]byte
	if err != nil || mtime.Year() < 1 || string(mtime.UTC().AppendFormat(form[:0], time.RFC3339Nano)) != when {
		return a, badManifest("mtime %.80q is not in UTC and its shortest form", when)
	}
	a.MTime = mtime.UTC()
	size := 0
	for name, value := range xattrs {
		size += len(name) + len(value)
		if name == "" || len(name) > maxXattrName || strings.ContainsFunc(name, isControl) {
			return a, badManifest("an extended attribute has the name %.80q", name)
		}
	}
	if size > maxXattrs || len(xattrs) > maxXattrCount {
		return a, badManifest("more than %d extended attributes or %d bytes of them", maxXattrCount, maxXattrs)
	}
	return a, nil
}

func isControl(r rune) bool { return r < 0x20 || r == 0x7f }

// Codes of skipped and dropped lines.
const (
	SkipDenied   = "denied"   // the node's user may not read it
	SkipVanished = "vanished" // it was there when its directory was read
	SkipSpecial  = "special"  // neither file, directory nor link, and not wanted
	SkipBadName  = "bad_name" // its name or target cannot be told
	SkipChanged  = "changed"  // it changed while it was read, twice
	SkipIO       = "io"       // reading it failed
	SkipOther    = "crossing" // it lies on another file system
)

// finish judges the last line of the last window.
func (w *TreeWindow) finish(c *TreeCursor, l *treeLine) error {
	switch {
	case c.file != nil:
		return badManifest("it ends within the file %.80q", c.file.Path)
	case *l.Size != c.At || *l.Entries != c.Entries || *l.Skipped != c.Skipped:
		return badManifest("it ends with %d bytes, %d entries and %d skipped, where %d, %d and %d came",
			*l.Size, *l.Entries, *l.Skipped, c.At, c.Entries, c.Skipped)
	case *l.Digest != c.Digest():
		return badManifest("the digest %.80q is not that of its entries", *l.Digest)
	}
	w.End, w.Digest, w.Size, w.Entries, w.Skipped = true, *l.Digest, *l.Size, *l.Entries, *l.Skipped
	return nil
}

// wireMessage is what err says to people, without its cause.
func wireMessage(err error) string {
	if e, ok := errors.AsType[*feedback.Error](err); ok {
		return e.Message
	}
	return err.Error()
}
