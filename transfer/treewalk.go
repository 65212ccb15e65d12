package transfer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unicode/utf8"

	"gantry/api"

	"golang.org/x/sys/unix"
)

// maxOpenDirs bounds the directories that one walker or hasher holds open.
const maxOpenDirs = 32

// below opens directories below a held one and never follows a symbolic link:
// every part is opened by itself. It holds the directories on the way to the last one.
// Not safe for concurrent use.
type below struct {
	root int
	open []openDir // each is below the one before it
}

type openDir struct {
	path string
	fd   int
}

// dir returns a descriptor of the directory at path, "" for the root, that is valid until
// the next call.
func (b *below) dir(path string) (int, error) {
	for k := len(b.open); k > 0; k-- {
		top := b.open[k-1]
		if path == top.path || strings.HasPrefix(path, top.path+"/") {
			break
		}
		unix.Close(top.fd)
		b.open = b.open[:k-1]
	}
	fd, at := b.root, ""
	if k := len(b.open); k > 0 {
		fd, at = b.open[k-1].fd, b.open[k-1].path
	}
	for at != path {
		part, _, _ := strings.Cut(strings.TrimPrefix(path[len(at):], "/"), "/")
		next, err := openat(fd, part, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return -1, err
		}
		at = joinPath(at, part)
		if k := len(b.open); k == maxOpenDirs { // the lower ones stay, to come back to
			unix.Close(b.open[k-1].fd)
			b.open = b.open[:k-1]
		}
		b.open = append(b.open, openDir{at, next})
		fd = next
	}
	return fd, nil
}

func (b *below) close() {
	for _, d := range b.open {
		unix.Close(d.fd)
	}
	b.open = nil
}

// openat opens name in the directory fd, following no link and waiting for nobody.
func openat(fd int, name string, flags int) (int, error) {
	for {
		got, err := unix.Openat(fd, name, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return got, err
		}
	}
}

func joinPath(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// A nameList holds the names of one directory: a million of them in blocks of bytes, not in
// a million strings.
type nameList struct {
	blocks [][]byte // each name behind its length, one byte
	count  int
	at     []uint32 // block number and offset of each, 16 bits each; made by index
}

const nameBlock = 1 << 16

func (l *nameList) add(name []byte) {
	k := len(l.blocks) - 1
	if k < 0 || len(l.blocks[k])+1+len(name) > nameBlock {
		size := 0 // the first grows from nothing: most directories are small
		if k >= 0 {
			size = nameBlock
		}
		l.blocks = append(l.blocks, make([]byte, 0, size))
		k++
	}
	l.count++
	l.blocks[k] = append(append(l.blocks[k], byte(len(name))), name...)
}

func (l *nameList) get(at uint32) []byte {
	b := l.blocks[at>>16][at&0xffff:]
	return b[1 : 1+int(b[0])]
}

// index makes at, of the length that it needs: growing it would take several times its memory.
func (l *nameList) index() {
	l.at = make([]uint32, 0, l.count)
	for k, b := range l.blocks {
		for off := 0; off < len(b); off += 1 + int(b[off]) {
			l.at = append(l.at, uint32(k)<<16|uint32(off))
		}
	}
}

func (l *nameList) sort() {
	l.index()
	slices.SortFunc(l.at, func(a, b uint32) int { return bytes.Compare(l.get(a), l.get(b)) })
}

// eachName calls fn with the names in the directory at path, as the kernel has them; name
// is valid during the call.
func (b *below) eachName(path string, buf []byte, fn func(name []byte) error) error {
	held, err := b.dir(path)
	if err != nil {
		return err
	}
	fd, err := openat(held, ".", unix.O_RDONLY|unix.O_DIRECTORY) // with a position of its own
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for {
		n, err := unix.Getdents(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return err
		}
		for rest := buf[:n]; len(rest) > 0; {
			length := int(binary.NativeEndian.Uint16(rest[16:])) // struct linux_dirent64
			name, _, _ := bytes.Cut(rest[19:length], []byte{0})
			rest = rest[length:]
			if s := string(name); s == "." || s == ".." {
				continue
			}
			if err := fn(name); err != nil {
				return err
			}
		}
	}
}

// Values of TreeOptions.Xattrs.
const (
	XattrsNone = "none"
	XattrsUser = "user" // those below "user."
	XattrsAll  = "all"  // what the node's user can read, ACLs too
)

// found is what a walk comes to: an entry without digest and offset, or one that is skipped.
type found struct {
	e             TreeEntry
	id            identity
	linked        bool   // a file that has other names too
	code, message string // why it is skipped
}

// walker finds the entries of a tree in path order.
type walker struct {
	below
	cross, special bool
	xattrs         string
	filter         *Filter
	yield          func(found) error // an error ends the walk

	// Where an earlier walk ended: what is not after it is not told again.
	after     string
	afterSkip bool  // it was told as skipped, too
	badNames  int64 // bad names after it that were told

	top identity
	buf []byte
}

// walk finds everything. Its error is yield's, or that of the root.
func (w *walker) walk() error {
	var err error
	if w.top, err = identify(w.root, ""); err != nil {
		return err
	}
	w.buf = make([]byte, 64<<10)
	defer w.close()
	return w.list("")
}

// list goes through a directory.
func (w *walker) list(dir string) error {
	var names nameList
	err := w.eachName(dir, w.buf, func(name []byte) error {
		if dir != "" || string(name) != StageDir {
			names.add(name)
		}
		return nil
	})
	if err != nil && dir == "" {
		return err
	}
	if err != nil {
		return w.missed(dir, err, "reading the directory")
	}
	names.sort()
	for _, at := range names.at {
		if err := w.name(dir, string(names.get(at))); err != nil {
			return err
		}
	}
	return nil
}

// tell yields what an earlier walk has not told.
func (w *walker) tell(f found) error {
	switch {
	case f.code == SkipBadName && w.badNames > 0:
		w.badNames--
		return nil
	case f.code != "" && w.afterSkip && f.e.Path == w.after:
		return nil
	}
	return w.yield(f)
}

// name looks at one name of a directory.
func (w *walker) name(dir, name string) error {
	p := joinPath(dir, name)
	told := w.after != "" && ComparePaths(p, w.after) <= 0
	if told && p != w.after && !strings.HasPrefix(w.after, p+"/") {
		return nil
	}
	if bad := badName(p, name); bad != "" {
		return w.tell(found{e: TreeEntry{Path: escapePath(p)}, code: SkipBadName, message: bad})
	}
	fd, err := w.dir(dir)
	var st unix.Statx_t
	if err == nil {
		st, err = statx(fd, name)
	}
	isDir := err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
	if !w.filter.Includes(p, isDir) {
		return nil
	}
	if err != nil {
		return w.missed(p, err, "looking at it")
	}
	return w.entry(fd, p, &st, told)
}

// entry tells of p, and of what is in it.
func (w *walker) entry(fd int, p string, st *unix.Statx_t, told bool) error {
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	id := identityOf(st)
	crossing := !w.cross && (id.dev != w.top.dev || id.mount != w.top.mount)
	if !told {
		f, lost := w.describe(fd, p, st)
		if crossing && !isDir {
			f = found{e: TreeEntry{Path: p}, code: SkipOther, message: "it lies on another file system"}
		}
		if err := w.tell(f); err != nil {
			return err
		}
		if lost != "" && f.code == "" && f.e.Type != TreeFile {
			if err := w.tell(found{e: TreeEntry{Path: p}, code: SkipIO, message: lost}); err != nil {
				return err
			}
		}
	}
	switch {
	case !isDir:
		return nil
	case crossing:
		return w.tell(found{e: TreeEntry{Path: p}, code: SkipOther, message: "what is in it lies on another file system"})
	}
	return w.list(p)
}

// describe makes the entry of a name. lost says which of its attributes are missing.
func (w *walker) describe(fd int, p string, st *unix.Statx_t) (f found, lost string) {
	f = found{id: identityOf(st), e: TreeEntry{Path: p, TreeAttrs: attrsOf(st)}}
	e, name := &f.e, path.Base(p)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		e.Type, e.Size, f.linked = TreeFile, int64(st.Size), st.Nlink > 1
		if e.Size > MaxSize {
			f.code, f.message = SkipIO, fmt.Sprintf("it has %d bytes, more than %d", e.Size, int64(MaxSize))
		}
	case unix.S_IFDIR:
		e.Type = TreeDir
	case unix.S_IFLNK:
		e.Type = TreeSymlink
		f.readLink(fd, name)
	default:
		e.Type = map[uint16]TreeType{unix.S_IFIFO: TreeFifo, unix.S_IFSOCK: TreeSocket, unix.S_IFCHR: TreeChar, unix.S_IFBLK: TreeBlock}[st.Mode&unix.S_IFMT]
		e.Rdev = unix.Mkdev(st.Rdev_major, st.Rdev_minor)
		if !w.special || e.Type == "" {
			f.code, f.message = SkipSpecial, "it is a "+string(e.Type)+`, and special = "keep" is not set`
		}
	}
	if f.code == "" && f.e.Type != TreeFile { // a file's are read when it is hashed
		e.Xattrs, lost = readXattrs(fd, name, w.xattrs)
	}
	return f, lost
}

// readLink reads the target of a symbolic link.
func (f *found) readLink(fd int, name string) {
	buf := make([]byte, maxTarget+1)
	n, err := unix.Readlinkat(fd, name, buf)
	switch target := string(buf[:max(0, n)]); {
	case err != nil:
		f.code, f.message = skipCode(err), "reading the link: "+err.Error()
	case n == 0 || n > maxTarget || !utf8.ValidString(target) || strings.ContainsFunc(target, isControl):
		f.code, f.message = SkipBadName, "its target has characters that are not printed, or none, or too many"
		f.e.Path = escapePath(f.e.Path)
	default:
		f.e.Target = target
	}
}

// attrsOf is what statx tells of an entry's attributes.
func attrsOf(st *unix.Statx_t) TreeAttrs {
	return TreeAttrs{Mode: uint32(st.Mode) & maxPerm, MTime: identityOf(st).mtime, UID: st.Uid, GID: st.Gid}
}

// missed tells of an entry that cannot be looked at.
func (w *walker) missed(p string, err error, what string) error {
	return w.tell(found{e: TreeEntry{Path: p}, code: skipCode(err), message: what + ": " + err.Error()})
}

// count goes through a directory without an order, to estimate what a walk will find.
func (w *walker) count(dir string, add func(bytes int64) error) error {
	var dirs nameList
	err := w.eachName(dir, w.buf, func(name []byte) error {
		p := joinPath(dir, string(name))
		fd, err := w.dir(dir)
		if err != nil || dir == "" && string(name) == StageDir {
			return err
		}
		st, err := statx(fd, string(name))
		isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
		if err != nil || !w.filter.Includes(p, isDir) {
			return nil
		}
		if id := identityOf(&st); isDir && (w.cross || id.dev == w.top.dev && id.mount == w.top.mount) {
			dirs.add(name)
		}
		size := int64(st.Size)
		if st.Mode&unix.S_IFMT != unix.S_IFREG {
			size = 0
		}
		return add(size)
	})
	if err != nil {
		return err
	}
	dirs.index()
	for _, at := range dirs.at {
		err := w.count(joinPath(dir, string(dirs.get(at))), add)
		if _, ok := errors.AsType[syscall.Errno](err); err != nil && !ok {
			return err
		}
	}
	return nil
}

// skipCode names why an entry cannot be read.
func skipCode(err error) string {
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ELOOP):
		return SkipVanished // or something else has its name now
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return SkipDenied
	}
	return SkipIO
}

// badName says why a path cannot be told to the reader, or nothing.
func badName(p, name string) string {
	switch {
	case !utf8.ValidString(name):
		return "its name is not valid UTF-8"
	case strings.ContainsFunc(name, isControl):
		return "its name has a control character"
	case name == StageDir:
		return "its name is gantry's own"
	case len(p) > api.MaxPath:
		return fmt.Sprintf("its path is longer than %d bytes", api.MaxPath)
	}
	return ""
}

// escapePath is a path for people.
func escapePath(p string) string {
	s := strconv.Quote(p[:min(len(p), api.MaxPath-1)])
	return s[1 : len(s)-1]
}

// readXattrs reads the extended attributes of name in fd as policy says. lost says what is
// missing of them, or nothing.
func readXattrs(fd int, name, policy string) (got map[string][]byte, lost string) {
	if policy != XattrsUser && policy != XattrsAll {
		return nil, ""
	}
	p := fmt.Sprintf("/proc/self/fd/%d/%s", fd, name) // no call reads a link's own by descriptor
	buf := make([]byte, maxXattrs+1)
	n, err := unix.Llistxattr(p, buf)
	if err != nil && !errors.Is(err, syscall.ENOTSUP) {
		return nil, "reading its extended attributes: " + err.Error()
	}
	size := 0
	for key := range strings.SplitSeq(string(buf[:max(0, n)]), "\x00") {
		if key == "" || policy == XattrsUser && !strings.HasPrefix(key, "user.") {
			continue
		}
		k, err := unix.Lgetxattr(p, key, buf)
		if errors.Is(err, syscall.ENODATA) {
			continue
		}
		size += len(key) + max(0, k)
		bad := !utf8.ValidString(key) || strings.ContainsFunc(key, isControl)
		if err != nil || bad || size > maxXattrs || len(got) == maxXattrCount {
			lost = fmt.Sprintf("its extended attribute %q is not copied: it cannot be read, or all together have more than %d bytes", key, maxXattrs)
			continue
		}
		if got == nil {
			got = map[string][]byte{}
		}
		got[key] = bytes.Clone(buf[:k])
	}
	return got, lost
}
