package transfer

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"hash/crc32"
	"io"
	"os"
	"strings"
	"time"

	"gantry/api"

	"golang.org/x/sys/unix"
	"lukechampine.com/blake3"
)

// An index says what every entry of a tree looked like when the numbered lines
// of its manifest were true of it: inode, size, times, mode and owner of each,
// in the manifest's order. While all of them look like that, and nothing else is
// there, the lines are true still, and a digest of them stands for all: two
// nodes that have an index of the same lines need not send any.
//
// There is none of a tree of which something was skipped or filtered out, that
// spans file systems, or that changed while it was walked. It costs nothing but
// time to lose one: it is not synced, and checksums tell what a crash left.
//
// The first indexHeadSize bytes are an indexHead as JSON, with spaces and a line
// feed at its end. A record is
//
//	depth (2) length of the name (1) state (64) name
const (
	indexSuffix   = ".index" // behind the place of what is known of the tree
	treeIndexFile = "tree.index"
	indexVersion  = 1
	indexHeadSize = 1024
	indexState    = 2*8 + 3*12 + 3*4
	indexRecord   = 2 + 1 + indexState
)

// indexHead is what an index says of the whole.
type indexHead struct {
	V       int         `json:"v"`
	Made    string      `json:"made"`   // by which rules
	Lines   string      `json:"lines"`  // digest of the numbered lines
	Digest  string      `json:"digest"` // of the tree
	Size    int64       `json:"size"`
	Entries api.Entries `json:"entries"`
	Sum     uint32      `json:"sum"`   // CRC-32C of the records
	Check   uint32      `json:"check"` // CRC-32C of this head with 0 here
}

// total is how many entries there are.
func (h *indexHead) total() int64 {
	e := &h.Entries
	return e.Files + e.Dirs + e.Links + e.Symlinks + e.Special
}

// encode returns the head as it is in the file, nil when it is too long.
func (h indexHead) encode() []byte {
	h.Check = 0
	data, err := json.Marshal(h)
	if err == nil {
		h.Check = crc32.Checksum(data, castagnoli)
		data, err = json.Marshal(h)
	}
	if err != nil || len(data) >= indexHeadSize {
		return nil
	}
	return append(append(data, bytes.Repeat([]byte{' '}, indexHeadSize-1-len(data))...), '\n')
}

// rules names what an index was made by: it is of use with the same alone.
func rules(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	sum := blake3.Sum256(data)
	return FormatDigest(sum)
}

// appendState appends what an entry looks like.
func appendState(b []byte, id *identity) []byte {
	le := binary.LittleEndian
	b = le.AppendUint64(le.AppendUint64(b, id.ino), uint64(id.size))
	for _, t := range [...]time.Time{id.mtime, id.ctime, id.btime} {
		b = le.AppendUint32(le.AppendUint64(b, uint64(t.Unix())), uint32(t.Nanosecond()))
	}
	return le.AppendUint32(le.AppendUint32(le.AppendUint32(b, id.mode), id.uid), id.gid)
}

// An indexWriter makes an index. A nil one does nothing, and one that is spoilt
// ends without a file. Not safe for concurrent use.
type indexWriter struct {
	head   indexHead
	f      *os.File
	w      *bufio.Writer
	lines  *blake3.Hasher
	top    identity
	before time.Time
	buf    []byte
	bad    bool
}

// newIndex begins an index at path, of the tree in top. An entry that was changed
// at before or later spoils it: another change might leave the same times.
func newIndex(path, made string, top identity, before time.Time) *indexWriter {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil
	}
	x := &indexWriter{f: f, w: bufio.NewWriterSize(f, 1<<16), lines: blake3.New(len(Value{}), nil), top: top, before: before}
	x.head = indexHead{V: indexVersion, Made: made}
	if _, err := x.w.Write(make([]byte, indexHeadSize)); err != nil || made == "" {
		x.bad = true
	}
	return x
}

// spoil says that there will be none.
func (x *indexWriter) spoil() {
	if x != nil {
		x.bad = true
	}
}

// line takes up a numbered line.
func (x *indexWriter) line(kind string, raw []byte) {
	if x == nil || x.bad {
		return
	}
	x.bad = kind == TreeKindSkipped || kind == TreeKindDropped
	x.lines.Write(raw)
}

// entry takes up what the entry at p looks like. Entries come in order.
func (x *indexWriter) entry(p string, t TreeType, id *identity) {
	if x == nil || x.bad {
		return
	}
	name, depth := p[strings.LastIndexByte(p, '/')+1:], strings.Count(p, "/")
	if !id.ctime.Before(x.before) || id.dev != x.top.dev || id.mount != x.top.mount || len(name) > maxPart {
		x.bad = true
		return
	}
	countEntry(&x.head.Entries, t)
	x.buf = binary.LittleEndian.AppendUint16(x.buf[:0], uint16(depth))
	x.buf = append(appendState(append(x.buf, byte(len(name))), id), name...)
	x.head.Sum = crc32.Update(x.head.Sum, castagnoli, x.buf)
	if _, err := x.w.Write(x.buf); err != nil {
		x.bad = true
	}
}

// end puts the index at path, in place of the one before. It may fail: then the
// lines are sent.
func (x *indexWriter) end(path, digest string, size int64) {
	if x == nil || x.f == nil {
		return
	}
	defer x.drop()
	x.head.Lines, x.head.Digest, x.head.Size = FormatDigest(Value(x.lines.Sum(nil))), digest, size
	head := x.head.encode()
	if x.bad || head == nil || x.w.Flush() != nil {
		return
	}
	if _, err := x.f.WriteAt(head, 0); err == nil {
		_ = os.Rename(x.f.Name(), path)
	}
}

// drop ends it without a file.
func (x *indexWriter) drop() {
	if x != nil && x.f != nil {
		x.f.Close()
		os.Remove(x.f.Name()) // gone, when it was renamed
		x.f = nil
	}
}

// An indexReader compares a tree with an index of it. Not safe for concurrent use.
type indexReader struct {
	head indexHead
	f    *os.File

	br    *bufio.Reader
	sum   uint32
	rec   [indexRecord + maxPart]byte
	top   identity
	since int // entries since alive was called
	alive func() error
	buf   []byte
}

// openIndex opens the index at path, nil when there is none that was made by the
// same rules.
func openIndex(path, made string) *indexReader {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	k := &indexReader{f: f}
	head := make([]byte, indexHeadSize)
	_, err = io.ReadFull(f, head)
	if err == nil {
		err = json.Unmarshal(head, &k.head)
	}
	if err != nil || made == "" || k.head.V != indexVersion || k.head.Made != made || !bytes.Equal(k.head.encode(), head) {
		f.Close()
		return nil
	}
	now := time.Now()
	_ = os.Chtimes(path, now, now) // it is used: see SweepKnown
	return k
}

func (k *indexReader) close() {
	if k != nil {
		k.f.Close()
	}
}

// holds says whether the tree below root is the one of the index: each entry looks
// as recorded, and there is no other. alive is called now and then, and may end
// it. An error of the tree means that it does not hold.
func (k *indexReader) holds(ctx context.Context, root int, alive func() error) bool {
	var err error
	if k.top, err = identify(root, ""); err != nil {
		return false
	}
	k.alive = func() error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return alive()
	}
	k.br, k.sum, k.buf = bufio.NewReaderSize(io.NewSectionReader(k.f, indexHeadSize, 1<<62), 1<<16), 0, make([]byte, 1<<15)
	b := below{root: root}
	defer b.close()
	if !k.dir(&b, "", 0) {
		return false
	}
	_, err = k.br.ReadByte()
	return err == io.EOF && k.sum == k.head.Sum
}

// dir compares what is in a directory.
func (k *indexReader) dir(b *below, path string, depth int) bool {
	var names nameList
	err := b.eachName(path, k.buf, func(name []byte) error {
		if depth > 0 || string(name) != StageDir {
			names.add(name)
		}
		return nil
	})
	if err != nil {
		return false
	}
	names.sort()
	fd, err := b.dir(path)
	if err != nil {
		return false
	}
	for _, at := range names.at {
		name := names.get(at)
		if !k.next(depth, name) {
			return false
		}
		st, err := statx(fd, string(name))
		if err != nil {
			return false
		}
		id := identityOf(&st)
		var state [indexState]byte
		if id.dev != k.top.dev || id.mount != k.top.mount || !bytes.Equal(appendState(state[:0], &id), k.rec[3:indexRecord]) {
			return false
		}
		if id.mode&unix.S_IFMT != unix.S_IFDIR {
			continue
		}
		if !k.dir(b, joinPath(path, string(name)), depth+1) {
			return false
		}
		if fd, err = b.dir(path); err != nil {
			return false
		}
	}
	return true
}

// next reads the next record into rec, and says whether it is that of name.
func (k *indexReader) next(depth int, name []byte) bool {
	if k.since++; k.since == 1024 {
		k.since = 0
		if k.alive() != nil {
			return false
		}
	}
	rec := k.rec[:indexRecord+len(name)]
	if _, err := io.ReadFull(k.br, rec); err != nil {
		return false
	}
	k.sum = crc32.Update(k.sum, castagnoli, rec)
	return int(binary.LittleEndian.Uint16(rec)) == depth && int(rec[2]) == len(name) && bytes.Equal(rec[indexRecord:], name)
}
