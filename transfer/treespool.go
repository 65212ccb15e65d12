package transfer

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"time"

	"gantry/api"

	"github.com/go-json-experiment/json"
	"golang.org/x/sys/unix"
)

// Files of a tree's export in its task's folder.
const (
	treeRecordFile = "tree.json"
	treeLinesFile  = "tree.lines" // the numbered lines, as they are sent
	treeFilesFile  = "tree.files" // a fileRecord for each file among them, in order
	treeLinksFile  = "tree.links"
)

// markEvery is how many lines there are between two whose offset is kept in memory.
const markEvery = 64

// fileRecord is what is known of a file in the manifest: where it is in the content, and
// the state in which it was hashed.
type fileRecord struct {
	at, size int64
	off      int64 // of its entry's line
	id       identity
	linked   bool   // it has other names
	racy     bool   // it was so new that another write might not show
	sum      uint32 // CRC-32C of its entry's line
}

// recordSize is the length of a fileRecord: at, size, off, dev, ino (8 each), btime, mtime,
// ctime (12 each), flags (4), sum (4), CRC-32C of all that (4).
const recordSize = 5*8 + 3*12 + 3*4

func (r *fileRecord) append(b []byte) []byte {
	start := len(b)
	le := binary.LittleEndian
	for _, v := range []uint64{uint64(r.at), uint64(r.size), uint64(r.off), r.id.dev, r.id.ino} {
		b = le.AppendUint64(b, v)
	}
	for _, t := range []time.Time{r.id.btime, r.id.mtime, r.id.ctime} {
		b = le.AppendUint32(le.AppendUint64(b, uint64(t.Unix())), uint32(t.Nanosecond()))
	}
	var flags uint32
	if r.linked {
		flags |= 1
	}
	if r.racy {
		flags |= 2
	}
	b = le.AppendUint32(le.AppendUint32(b, flags), r.sum)
	return le.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// parse reads a record; it is false for one that was never written whole.
func (r *fileRecord) parse(b []byte) bool {
	le := binary.LittleEndian
	if len(b) < recordSize || crc32.Checksum(b[:recordSize-4], castagnoli) != le.Uint32(b[recordSize-4:]) {
		return false
	}
	num := func(i int) uint64 { return le.Uint64(b[8*i:]) }
	when := func(i int) time.Time {
		return time.Unix(int64(le.Uint64(b[40+12*i:])), int64(le.Uint32(b[48+12*i:]))).UTC()
	}
	flags := le.Uint32(b[76:])
	*r = fileRecord{
		at: int64(num(0)), size: int64(num(1)), off: int64(num(2)),
		id:     identity{dev: num(3), ino: num(4), btime: when(0), mtime: when(1), ctime: when(2), size: int64(num(1))},
		linked: flags&1 != 0, racy: flags&2 != 0, sum: le.Uint32(b[80:]),
	}
	return true
}

// readRecord reads record k of a file of them.
func readRecord(f *os.File, k int64) (r fileRecord, err error) {
	var b [recordSize]byte
	if _, err := f.ReadAt(b[:], k*recordSize); err != nil {
		return r, fmt.Errorf("reading the record of a file: %w", err)
	}
	if !r.parse(b[:]) {
		return r, errors.New("the record of a file is torn")
	}
	return r, nil
}

// sameState says, as an error, whether a file is in the state of r. The number of a device may
// change when the machine restarts.
func (r *fileRecord) sameState(now identity) error {
	was := r.id
	was.dev = now.dev
	return was.same(now)
}

// treeSpool keeps the lines of a manifest and the records of its files, append-only. What a
// crash tore is cut off at the next start.
type treeSpool struct {
	lines, files *os.File
	c            TreeCursor
	count        int64 // of file records
	tree         Tree  // of the pieces of a file that is not complete
	marks        []int64
	buf, recs    []byte // taken, not yet written
	wrote        int64  // bytes of lines that are in the file
	index        *indexWriter
}

func openTreeSpool(dir string) (*treeSpool, error) {
	s := &treeSpool{}
	var err error
	s.lines, err = os.OpenFile(filepath.Join(dir, treeLinesFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the spool: %w", err)
	}
	s.files, err = os.OpenFile(filepath.Join(dir, treeFilesFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		s.lines.Close()
		return nil, fmt.Errorf("opening the spool: %w", err)
	}
	return s, nil
}

// load takes over what an earlier run wrote. each gets the record of every file, and a second time that of
// one that was dropped.
func (s *treeSpool) load(each func(r fileRecord, dropped bool) error) error {
	torn := errors.New("torn")
	recs := bufio.NewReaderSize(io.NewSectionReader(s.files, 0, 1<<62), 64<<10)
	var r fileRecord
	err := ReadTreeLines(io.NewSectionReader(s.lines, 0, 1<<62), &s.c, func(l TreeLine) error {
		if l.Kind == TreeKindDropped {
			if err := each(r, true); err != nil {
				return err
			}
		}
		if l.Kind == TreeKindEntry && l.Entry.Type == TreeFile {
			var b [recordSize]byte
			if _, err := io.ReadFull(recs, b[:]); err != nil || !r.parse(b[:]) || r.sum != crc32.Checksum(l.Raw, castagnoli) {
				return torn
			}
			if err := each(r, false); err != nil {
				return err
			}
			s.count++
		}
		s.grown(l.N, s.c.Bytes)
		s.piece(l)
		return nil
	})
	if err != nil && !errors.Is(err, torn) && !errors.Is(err, io.ErrUnexpectedEOF) && codeOf(err) != api.BadManifest {
		return err
	}
	s.wrote = s.c.Bytes
	if err := errors.Join(s.lines.Truncate(s.wrote), s.files.Truncate(s.count*recordSize)); err != nil {
		return fmt.Errorf("cutting off what a crash tore: %w", err)
	}
	return nil
}

// grown notes where line n begins.
func (s *treeSpool) grown(n, off int64) {
	if n%markEvery == 0 {
		s.marks = append(s.marks[:n/markEvery], off)
	}
}

// piece follows the pieces of a large file.
func (s *treeSpool) piece(l TreeLine) {
	switch l.Kind {
	case TreeKindEntry:
		s.tree = Tree{}
	case TreeKindPiece:
		s.tree.Add(l.Value)
	case TreeKindZero:
		for k := range l.Count {
			s.tree.Add(ZeroValue(l.Piece+k, PieceLen(l.Piece+k, l.Entry.Size), false))
		}
	}
}

// put takes the next line, proved by the rules of its reader. rec belongs to
// the entry of a file. A line that its reader would refuse is never sent.
func (s *treeSpool) put(l treeLine, rec *fileRecord) error {
	n, start := s.c.Next, len(s.buf)
	l.N = &n
	s.buf = l.append(s.buf)
	raw, off := s.buf[start:], s.c.Bytes
	if len(raw) > maxTreeLine {
		s.buf = s.buf[:start]
		return fmt.Errorf("line %d of the manifest has %d bytes", n, len(raw))
	}
	if err := s.c.take(&l, raw, func(TreeLine) error { return nil }); err != nil {
		s.buf = s.buf[:start]
		return fmt.Errorf("the manifest would be refused: %w", err)
	}
	s.grown(n, off)
	s.index.line(l.Kind, raw)
	if rec != nil {
		rec.off, rec.sum = off, crc32.Checksum(raw, castagnoli)
		s.recs = rec.append(s.recs)
		s.count++
	}
	return nil
}

// flush writes what was taken: the records first, because lines without records are cut
// off at a restart, records without lines too.
func (s *treeSpool) flush() error {
	if len(s.recs) > 0 {
		if _, err := s.files.WriteAt(s.recs, s.count*recordSize-int64(len(s.recs))); err != nil {
			return fmt.Errorf("writing the spool: %w", err)
		}
		s.recs = s.recs[:0]
	}
	if len(s.buf) > 0 {
		if _, err := s.lines.WriteAt(s.buf, s.wrote); err != nil {
			return fmt.Errorf("writing the spool: %w", err)
		}
		s.wrote += int64(len(s.buf))
		s.buf = s.buf[:0]
	}
	return nil
}

// last returns the record of the last file.
func (s *treeSpool) last() (fileRecord, error) { return readRecord(s.files, s.count-1) }

// A lineBuffer reads lines of a spool by their offset, neighbours with one system call. Not
// safe for concurrent use.
type lineBuffer struct {
	f   *os.File
	buf []byte
	at  int64
}

// line returns the whole line at off, valid until the next call.
func (l *lineBuffer) line(off int64) ([]byte, error) {
	for fresh := false; ; fresh = true {
		if at := off - l.at; at >= 0 && at < int64(len(l.buf)) {
			if i := bytes.IndexByte(l.buf[at:], '\n'); i >= 0 {
				return l.buf[at : at+int64(i)+1], nil
			}
		}
		if fresh {
			return nil, errors.New("a line of the spool is not there")
		}
		if l.buf == nil {
			l.buf = make([]byte, 2*maxTreeLine)
		}
		n, err := l.f.ReadAt(l.buf[:cap(l.buf)], off)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("reading the spool: %w", err)
		}
		l.at, l.buf = off, l.buf[:n]
	}
}

// pathOf returns the path of the entry whose line is at off.
func (l *lineBuffer) pathOf(off int64) (string, error) {
	raw, err := l.line(off)
	if err != nil {
		return "", err
	}
	if path, ok := plainPath(raw); ok {
		return path, nil
	}
	var line treeLine
	if err := json.Unmarshal(raw, &line); err != nil || line.Path == nil {
		return "", errors.Join(errors.New("a line of the spool is no entry"), err)
	}
	return *line.Path, nil
}

// plainPath is the path of a line that treeEntryLine made, if nothing in it is escaped.
func plainPath(raw []byte) (string, bool) {
	rest, ok := bytes.CutPrefix(raw, []byte(`{"kind":"entry","n":`))
	if !ok {
		return "", false
	}
	rest = bytes.TrimLeft(rest, "0123456789")
	if rest, ok = bytes.CutPrefix(rest, []byte(`,"path":"`)); !ok {
		return "", false
	}
	path, _, ok := bytes.Cut(rest, []byte{'"'})
	return string(path), ok && bytes.IndexByte(path, '\\') < 0
}

func (s *treeSpool) close() error { return errors.Join(s.lines.Close(), s.files.Close()) }

// dirSource opens files of a tree.
type dirSource struct {
	below
	xattrs string
}

// open opens the file at path and describes it as it is now.
func (d *dirSource) open(path string) (*source, found, error) {
	parent, base := parentPath(path), path[len(parentPath(path)):]
	if parent != "" {
		base = base[1:]
	}
	fd, err := d.dir(parent)
	if err != nil {
		return nil, found{}, err
	}
	got, err := openat(fd, base, unix.O_RDONLY)
	if err != nil {
		return nil, found{}, err
	}
	f := descriptor(got)
	st, err := statx(got, "")
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = unix.ENOENT // something else has its name now
	}
	if err != nil {
		f.Close()
		return nil, found{}, err
	}
	w := found{id: identityOf(&st), linked: st.Nlink > 1}
	w.e = TreeEntry{Path: path, Type: TreeFile, TreeAttrs: attrsOf(&st), Size: int64(st.Size)}
	var lost string
	w.e.Xattrs, lost = readXattrs(fd, base, d.xattrs)
	w.message = lost
	return &source{f: f, id: w.id}, w, nil
}
