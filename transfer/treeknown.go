package transfer

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxKnown is how many trees a node remembers; the ones that were exported least recently go.
const maxKnown = 64

// knownTree is what is remembered of the last export of the same tree: its spool, read along with
// the walk, which has the same order. A file whose times, size and inode are those of its record is not read
// again. Records are not made durable: each has a checksum of itself and of its line, so that
// whatever a crash left is believed or not.
type knownTree struct {
	lines, files *os.File
	tr           *treeReader
	recs         *bufio.Reader

	// The file that the reading has come to; path is "" before the first.
	path  string
	rec   fileRecord
	value Value // its digest, when it has one piece
	ended bool
}

// knownPath is the beginning of the names of the files that remember x.
func (x *TreeExport) knownPath() string {
	o := x.record.Options
	if o.Known == "" || len(o.Filter) == 0 {
		return o.Known
	}
	sum := sha256.Sum256([]byte(strings.Join(o.Filter, "\n"))) // another choice is another tree
	return o.Known + "-" + hex.EncodeToString(sum[:8])
}

const (
	knownLines = ".lines"
	knownFiles = ".files"
)

// openKnown opens what is remembered of x; nil when there is nothing.
func openKnown(x *TreeExport) *knownTree {
	path := x.knownPath()
	if path == "" || x.record.Options.Checksum {
		return nil
	}
	k := &knownTree{}
	var err, err2 error
	k.lines, err = os.Open(path + knownLines)
	k.files, err2 = os.Open(path + knownFiles)
	if errors.Join(err, err2) != nil {
		k.close()
		return nil
	}
	k.tr = &treeReader{br: newTreeBuffer(k.lines)}
	k.recs = bufio.NewReader(k.files)
	return k
}

func (k *knownTree) close() {
	if k == nil {
		return
	}
	k.lines.Close() // of nil it is an error, and nothing else
	k.files.Close()
}

// find says whether the file at path is known. Paths come in order.
func (k *knownTree) find(path string) bool {
	if k == nil {
		return false
	}
	for !k.ended && (k.path == "" || ComparePaths(k.path, path) < 0) {
		k.ended = !k.next()
	}
	return !k.ended && k.path == path
}

// next goes on to the next file; what is not sound ends it.
func (k *knownTree) next() bool {
	for {
		l, raw, err := k.tr.next()
		if err != nil {
			return false
		}
		if l.Kind != TreeKindEntry || *l.Type != TreeFile {
			continue
		}
		var b [recordSize]byte
		if _, err := io.ReadFull(k.recs, b[:]); err != nil || !k.rec.parse(b[:]) || k.rec.sum != crc32.Checksum(raw, castagnoli) {
			return false
		}
		k.path = *l.Path
		if l.Digest != nil {
			k.value, _ = ParseDigest(*l.Digest)
		}
		return true
	}
}

// parts hands the lines of the large file that the reading has come to to fn, up to its
// digest. It fails when there is none.
func (k *knownTree) parts(fn func(*treeLine) error) error {
	tr := &treeReader{br: newTreeBuffer(io.NewSectionReader(k.lines, k.rec.off, 1<<62-k.rec.off))}
	for first := true; ; first = false {
		l, _, err := tr.next()
		if err != nil {
			return cutShort(err)
		}
		switch {
		case first:
		case l.Kind == TreeKindPiece, l.Kind == TreeKindZero, l.Kind == TreeKindDigest:
			if err := fn(l); err != nil || l.Kind == TreeKindDigest {
				return err
			}
		default:
			return errors.New("it was dropped")
		}
	}
}

// carry plans a file that need not be read, because it is known.
func (r *treeRun) carry(f found) (bool, error) {
	k := r.known
	if !k.find(f.e.Path) || k.rec.racy || k.rec.sameState(f.id) != nil {
		return false, nil
	}
	if k.rec.id.btime.IsZero() && k.rec.id.dev != f.id.dev {
		return false, nil // an inode of another file system
	}
	fd, err := r.walker.dir(parentPath(f.e.Path))
	if err != nil {
		return false, nil // the hasher says why
	}
	f.e.Xattrs, f.message = readXattrs(fd, filepath.Base(f.e.Path), r.x.record.Options.Xattrs)
	if f.e.Size > PieceSize {
		return r.carryLarge(f)
	}
	f.e.Digest = k.value
	return true, r.sendKnown(&treeJob{found: f, kind: jobFile}, f.e.Size)
}

// carryLarge plans a large file that is known to its end.
func (r *treeRun) carryLarge(f found) (bool, error) {
	var digest Value
	pieces := int64(0)
	err := r.known.parts(func(l *treeLine) error {
		switch l.Kind {
		case TreeKindPiece:
			pieces++
		case TreeKindZero:
			pieces += max(0, *l.Count)
		case TreeKindDigest:
			digest, _ = ParseDigest(*l.Digest)
		}
		return r.ctx.Err()
	})
	if err != nil || pieces != Pieces(f.e.Size) {
		return false, nil
	}
	l := &largeFile{e: f.e, carry: &digest, lost: f.message}
	if err := r.send(&treeJob{found: f, kind: jobLarge, large: l}, false); err != nil {
		return true, err
	}
	n := int64(0)
	return true, r.known.parts(func(line *treeLine) error {
		j := &treeJob{kind: jobPiece, large: l, piece: n}
		switch line.Kind {
		case TreeKindPiece:
			j.value, _ = parseValue(*line.Value)
			n++
			return r.sendKnown(j, PieceLen(j.piece, f.e.Size))
		case TreeKindDigest:
			return r.send(&treeJob{kind: jobFinish, large: l}, false)
		}
		for range *line.Count {
			j := &treeJob{kind: jobPiece, large: l, piece: n, zero: true}
			j.value = ZeroValue(n, PieceLen(n, f.e.Size), false)
			n++
			if err := r.sendKnown(j, PieceLen(j.piece, f.e.Size)); err != nil {
				return err
			}
		}
		return nil
	})
}

// sendKnown sends a job that has nothing to read.
func (r *treeRun) sendKnown(j *treeJob, bytes int64) error {
	if err := r.send(j, false); err != nil {
		return err
	}
	r.x.carried.Add(bytes)
	return nil
}

// remember keeps the spool for the next export of the same tree. It may fail: then everything is read.
func (x *TreeExport) remember() {
	path := x.knownPath()
	if path == "" || os.MkdirAll(filepath.Dir(path), 0o700) != nil {
		return
	}
	for from, to := range map[string]string{treeLinesFile: path + knownLines, treeFilesFile: path + knownFiles} {
		temp := filepath.Join(filepath.Dir(path), "new."+filepath.Base(to)) // two at once spoil each other's, and no more
		os.Remove(temp)
		if os.Link(filepath.Join(x.dir, from), temp) != nil || os.Rename(temp, to) != nil {
			return
		}
	}
	trimKnown(filepath.Dir(path))
}

// trimKnown removes what was not exported for the longest time.
func trimKnown(dir string) {
	names, err := filepath.Glob(filepath.Join(dir, "*"+knownLines))
	if err != nil || len(names) <= maxKnown {
		return
	}
	age := func(name string) int64 {
		info, err := os.Stat(name)
		if err != nil {
			return 0
		}
		return info.ModTime().UnixNano()
	}
	slices.SortFunc(names, func(a, b string) int { return int(min(1, max(-1, age(a)-age(b)))) })
	for _, name := range names[:len(names)-maxKnown] {
		os.Remove(name)
		os.Remove(strings.TrimSuffix(name, knownLines) + knownFiles)
		os.Remove(strings.TrimSuffix(name, knownLines) + indexSuffix)
	}
}

// forget removes what is remembered: something of it is wrong.
func (x *TreeExport) forget() {
	if path := x.knownPath(); path != "" {
		os.Remove(path + knownLines)
		os.Remove(path + knownFiles)
		os.Remove(path + indexSuffix)
	}
}

// Carried is how many bytes were not read, because nothing had changed since the last export.
func (x *TreeExport) Carried() int64 { return x.carried.Load() }
