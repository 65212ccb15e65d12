package transfer

import (
	"bufio"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"syscall"

	"gantry/api"

	"golang.org/x/sys/unix"
)

// An oldFile is what a file of the old tree looked like when its content was
// known: its content is the same as long as it looks like this.
type oldFile struct {
	ino          uint64
	size         int64
	mtime, ctime int64 // Unix nanoseconds
}

func (id identity) look() oldFile {
	return oldFile{id.ino, id.size, id.mtime.UnixNano(), id.ctime.UnixNano()}
}

// kept is a file of one slot per entry of the manifest, by number: which old
// files have the content of the new ones, and what they looked like then. It is
// for one run; a crash costs that they are looked at again.
type kept struct{ f *os.File }

const keptSize = 40

// How an entry of the old tree is kept.
const (
	keptNot    = iota
	keptThere  // it is the source's, and where it is
	keptLinked // it has a second name, in the stage
	keptMoved  // it is new, and was renamed to its place at the resource's root
)

func openKept(path string) (*kept, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	return &kept{f}, err
}

// put notes how entry n is kept. from is 0, or 1 + the offset of the record of the
// old file of another path that it is a name of.
func (k *kept) put(n int64, how byte, from int64, o oldFile) error {
	var b [keptSize]byte
	binary.LittleEndian.PutUint64(b[:], uint64(from)<<8|uint64(how))
	for i, v := range []uint64{o.ino, uint64(o.size), uint64(o.mtime), uint64(o.ctime)} {
		binary.LittleEndian.PutUint64(b[8+8*i:], v)
	}
	_, err := k.f.WriteAt(b[:], n*keptSize)
	return local(err, "noting a kept file")
}

func (k *kept) get(n int64) (how byte, o oldFile, err error) {
	var b [keptSize]byte
	if _, err := k.f.ReadAt(b[:], n*keptSize); errors.Is(err, io.EOF) {
		return keptNot, o, nil
	} else if err != nil {
		return keptNot, o, local(err, "reading the notes of kept files")
	}
	v := func(i int) uint64 { return binary.LittleEndian.Uint64(b[8+8*i:]) }
	return b[0], oldFile{v(0), int64(v(1)), int64(v(2)), int64(v(3))}, nil
}

// from returns what put was told.
func (k *kept) from(n int64) (int64, error) {
	var b [8]byte
	_, err := k.f.ReadAt(b[:], n*keptSize)
	return int64(binary.LittleEndian.Uint64(b[:]) >> 8), local(err, "reading the notes of kept files")
}

// Records of what files of a tree were when their digests were computed, one
// after the other in the manifest's order:
//
//	CRC-32C of the rest (4) length of the path (2) ino size mtime ctime (8 each) digest (32) path
//
// They save reading, nothing else: what does not look exactly as recorded is
// read. So they are not synced, and a torn one ends the list.
const recordHead = 4 + 2 + 4*8 + 32

type lookRecord struct {
	path   string
	look   oldFile
	digest Value
}

func (k *lookRecord) append(b []byte) []byte {
	at := len(b)
	b = append(b, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(k.path)))
	for _, v := range []uint64{k.look.ino, uint64(k.look.size), uint64(k.look.mtime), uint64(k.look.ctime)} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	b = append(append(b, k.digest[:]...), k.path...)
	binary.LittleEndian.PutUint32(b[at:], crc32.Checksum(b[at+4:], castagnoli))
	return b
}

// lookReader reads records along with a manifest.
type lookReader struct {
	f    *os.File
	br   *bufio.Reader
	next lookRecord
	off  int64 // of next
	size int64 // of next, in the file
	end  bool
}

// openLooks opens the records, nil when there are none.
func openLooks(path string) *lookReader {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	k := &lookReader{f: f, br: bufio.NewReaderSize(f, 1<<16)}
	k.read()
	return k
}

func (k *lookReader) read() {
	var ok bool
	k.off += k.size
	k.next, k.size, ok = readLook(k.br)
	k.end = !ok
}

// at returns the record at an offset.
func (k *lookReader) at(off int64) (lookRecord, bool) {
	rec, _, ok := readLook(io.NewSectionReader(k.f, off, recordHead+1<<16))
	return rec, ok
}

// readLook reads a record and says how long it is. It is not ok when there is none,
// or a torn one.
func readLook(r io.Reader) (k lookRecord, n int64, ok bool) {
	var head [recordHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return k, 0, false
	}
	path := make([]byte, binary.LittleEndian.Uint16(head[4:]))
	if _, err := io.ReadFull(r, path); err != nil {
		return k, 0, false
	}
	sum := crc32.Update(crc32.Checksum(head[4:], castagnoli), castagnoli, path)
	if sum != binary.LittleEndian.Uint32(head[:]) {
		return k, 0, false
	}
	v := func(i int) uint64 { return binary.LittleEndian.Uint64(head[6+8*i:]) }
	k = lookRecord{path: string(path), look: oldFile{v(0), int64(v(1)), int64(v(2)), int64(v(3))}}
	copy(k.digest[:], head[38:])
	return k, int64(recordHead + len(path)), true
}

// find returns the record of path. Paths must come in the manifest's order.
func (k *lookReader) find(path string) (lookRecord, bool) {
	for k != nil && !k.end {
		switch c := ComparePaths(k.next.path, path); {
		case c == 0:
			return k.next, true
		case c > 0:
			return lookRecord{}, false
		}
		k.read()
	}
	return lookRecord{}, false
}

func (k *lookReader) close() {
	if k != nil {
		k.f.Close()
	}
}

// oldEntry looks at an entry of the old tree; ok is false when there is none, or
// its way there is not one of directories.
func (r *treeImport) oldEntry(path string) (id identity, ok bool, err error) {
	if r.old == nil {
		return id, false, nil
	}
	dir, name, done, err := r.old.in(path)
	if err == nil {
		defer done()
		id, err = identify(dir, name)
	}
	if errors.Is(err, fs.ErrNotExist) || isLink(err) {
		return id, false, nil
	}
	return id, err == nil, local(err, "looking at %.300q of the old copy", path)
}

// openOld opens a regular file of the old tree for reading.
func (r *treeImport) openOld(path string) (*os.File, identity, error) {
	dir, name, done, err := r.old.in(path)
	if err != nil {
		return nil, identity{}, local(err, "opening %.300q of the old copy", path)
	}
	defer done()
	f, id, err := openRegular(dir, name)
	return f, id, local(err, "opening %.300q of the old copy", path)
}

// openRegular opens name in dir for reading if it is a regular file.
func openRegular(dir int, name string) (*os.File, identity, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, identity{}, err
	}
	f := os.NewFile(uintptr(fd), name)
	id, err := identify(fd, "")
	if err == nil && !id.regular() {
		err = fail(api.NotRegular, nil, "%.300q is not a regular file", name)
	}
	if err != nil {
		f.Close()
		return nil, id, err
	}
	return f, id, nil
}

// readOld reads a small file of the old tree into buf and returns its value and
// what it looked like before and after; ok is false when it is not what look says.
func (r *treeImport) readOld(path string, buf []byte) (v Value, look oldFile, ok bool, err error) {
	f, before, err := r.openOld(path)
	if err != nil {
		if c := codeOf(err); c == api.NotRegular || c == api.NotFound || c == api.Denied {
			return v, look, false, nil // then it is fetched
		}
		return v, look, false, err
	}
	defer f.Close()
	if before.size != int64(len(buf)) {
		return v, look, false, nil
	}
	if _, err := io.ReadFull(f, buf); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.EIO) {
			return v, look, false, nil
		}
		return v, look, false, local(err, "reading %.300q of the old copy", path)
	}
	after, err := identify(int(f.Fd()), "")
	if err != nil {
		return v, look, false, local(err, "looking at %.300q of the old copy", path)
	}
	return HashPiece(buf, 0, true), after.look(), before.look() == after.look(), nil
}

// same says whether the old tree has the entry: with its content (content), and
// with its attributes too (all). look is that of a file's content.
func (r *treeImport) same(e *TreeEntry) (content, all bool, look oldFile, err error) {
	here, ok, err := r.oldEntry(e.Path)
	r.here = here
	if e.Type != TreeDir && here.mode&unix.S_IFMT == unix.S_IFDIR {
		r.turned.add(e.Path)
	}
	if err != nil || !ok || here.mode&unix.S_IFMT != typeBits[e.Type] {
		return false, false, look, err
	}
	switch e.Type {
	case TreeFile:
		content, look, err = r.sameFile(e, here)
	case TreeSymlink:
		content, err = r.sameTarget(e)
	case TreeLink:
		first, ok, ferr := r.oldEntry(e.Target)
		content, err = ok && first.ino == here.ino && first.dev == here.dev, ferr
	case TreeChar, TreeBlock:
		content, err = r.sameDevice(e)
	default:
		content = true
	}
	if err != nil || !content {
		return false, false, look, err
	}
	all, err = r.alikeOld(e.Path, e, here)
	return content, all, look, err
}

// typeBits are the file types of entries; a link is one of a file.
var typeBits = map[TreeType]uint32{
	TreeDir: unix.S_IFDIR, TreeFile: unix.S_IFREG, TreeLink: unix.S_IFREG, TreeSymlink: unix.S_IFLNK,
	TreeFifo: unix.S_IFIFO, TreeSocket: unix.S_IFSOCK, TreeChar: unix.S_IFCHR, TreeBlock: unix.S_IFBLK,
}

// alikeOld compares the attributes of the old entry at path.
func (r *treeImport) alikeOld(path string, e *TreeEntry, here identity) (bool, error) {
	ok, err := r.Policy.alike(e, here, func() (map[string][]byte, error) {
		dir, name, done, err := r.old.in(path)
		if err != nil {
			return nil, err
		}
		defer done()
		return r.Policy.readXattrs(dir, name)
	})
	return ok, local(err, "reading the attributes of %.300q", path)
}

// sameFile compares the content of a file of one piece: by its record, else by
// reading it.
func (r *treeImport) sameFile(e *TreeEntry, here identity) (bool, oldFile, error) {
	known, ok := r.known.find(e.Path)
	if here.size != e.Size {
		return false, oldFile{}, nil
	}
	if ok && !r.Checksum && known.look == here.look() {
		return known.digest == e.Digest, known.look, nil
	}
	if err := r.readsOld(); err != nil {
		return false, oldFile{}, err
	}
	r.oldBuf = room(r.oldBuf, e.Size)
	v, look, ok, err := r.readOld(e.Path, r.oldBuf)
	return ok && v == e.Digest, look, err
}

// readsOld notes that a record did not save reading.
func (r *treeImport) readsOld() error {
	r.reads++
	return local(r.op("readold"), "reading the old copy")
}

func (r *treeImport) sameTarget(e *TreeEntry) (bool, error) {
	dir, name, done, err := r.old.in(e.Path)
	if err != nil {
		return false, local(err, "opening the folder of %.300q", e.Path)
	}
	defer done()
	target, err := readLink(dir, name)
	return target == e.Target, local(err, "reading the link %.300q", e.Path)
}

func readLink(dir int, name string) (string, error) {
	b := make([]byte, maxTarget+1)
	n, err := unix.Readlinkat(dir, name, b)
	return string(b[:max(0, n)]), err
}

func (r *treeImport) sameDevice(e *TreeEntry) (bool, error) {
	dir, name, done, err := r.old.in(e.Path)
	if err != nil {
		return false, local(err, "opening the folder of %.300q", e.Path)
	}
	defer done()
	var st unix.Stat_t
	err = unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return uint64(st.Rdev) == e.Rdev, local(err, "looking at %.300q", e.Path)
}

// oldChanged: a file of the old copy changed since it was compared.
func oldChanged(path string) error {
	return fail(api.TargetChanged, nil, "%.300q of the target changed while the new tree was made; nothing is published", path)
}
