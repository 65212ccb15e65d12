package transfer

import (
	"errors"
	"io"
	"os"

	"gantry/api"

	"golang.org/x/sys/unix"
)

// oldCopy is the file that the import will replace, as a place to take bytes
// from. They are proved like those of the source: each piece is hashed in memory
// before it is written, so that a file that changes meanwhile costs time and
// nothing else.
//
// Where the file system can share blocks, f is a private clone of the old file:
// nobody can change it between hashing a piece and sharing it with the stage.
type oldCopy struct {
	f      *os.File
	direct *os.File // the same file, for reads past the page cache; or nil
	size   int64
	clone  bool
	known  *slots // values to believe, of the state that was cloned; nil: none
}

// openOld opens the target as an old copy; nil when it cannot be read, which the
// report says. The clone has no name: nothing of it is left after a crash.
func (r *fileSink) openOld() *oldCopy {
	f, err := openAt(r.dir, r.base, r.Name)
	if err == nil {
		var id identity
		if id, err = identify(int(f.Fd()), ""); err == nil {
			o := &oldCopy{f: f, size: id.size}
			if r.stages != nil {
				r.clone(o, id)
			}
			if !r.Cached {
				o.direct = openDirect(o.f, unix.O_RDONLY)
			}
			return o
		}
		f.Close()
	}
	if codeOf(err) != api.NotFound {
		r.Report.Log("warn", r.Name, "the old copy cannot be read, everything is fetched: "+err.Error())
	}
	return nil
}

// clone makes a clone of the old copy, and looks up what is known of it. It is
// known only when the file was in one state before and after.
func (r *fileSink) clone(o *oldCopy, id identity) {
	file := o.f
	if !o.snapshot(r.stages) {
		return
	}
	defer file.Close()
	if !r.TrustMTime {
		return
	}
	if now, err := identify(int(file.Fd()), ""); err == nil && id.same(now) == nil {
		o.known = r.Cache.lookup(id)
	}
}

// snapshot puts a clone in the place of f, if the file system has such.
func (o *oldCopy) snapshot(stages *os.File) bool {
	fd, err := unix.Openat(int(stages.Fd()), ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return false
	}
	c := os.NewFile(uintptr(fd), "clone of the old copy")
	id := identity{}
	if err = unix.IoctlFileClone(fd, int(o.f.Fd())); err == nil {
		id, err = identify(fd, "")
	}
	if err != nil {
		c.Close()
		return false
	}
	o.f, o.size, o.clone = c, id.size, true
	return true
}

// read reads what the old copy has in place of a piece; what is beyond its end
// are zeros. ok is false when all of the piece is beyond.
func (o *oldCopy) read(p part, buf []byte) (ok bool, err error) {
	if p.off() >= o.size {
		return false, nil
	}
	n, err := o.readAt(buf, p.off())
	if errors.Is(err, io.EOF) {
		clear(buf[n:])
		err = nil
	}
	return err == nil, err
}

// values is read, with the values of the parts of what it reads. What is in the
// page cache is hashed while it comes, so that it is still in the processor's.
func (o *oldCopy) values(p part, buf []byte, h *partHasher) (values []Value, ok bool, err error) {
	at, end := 0, 0
	if len(buf) > PartSize && p.off()+int64(len(buf)) <= o.size {
		for ; at < len(buf); at = end {
			end = min(at+readSize, len(buf))
			if !o.inMemory(buf[at:end], p.off()+int64(at)) {
				break
			}
			values = h.from(values, buf[:end], at, p.N)
		}
	}
	switch {
	case at == 0:
		if ok, err = o.read(p, buf); ok {
			values = h.values(nil, buf, p.N, p.whole())
		}
		return values, ok, err
	case at < len(buf):
		if _, err := o.readAt(buf[at:], p.off()+int64(at)); err != nil {
			return nil, false, err
		}
		values = h.from(values, buf, at, p.N)
	}
	return values, true, nil
}

// inMemory reads what is in the page cache; it says no when that is not all.
func (o *oldCopy) inMemory(buf []byte, off int64) bool {
	n, err := unix.Preadv2(int(o.f.Fd()), [][]byte{buf}, off, unix.RWF_NOWAIT)
	return err == nil && n == len(buf)
}

// readAt reads from memory what is there, else past the page cache: an old copy
// is read once, and the machine's other files are wanted longer.
func (o *oldCopy) readAt(buf []byte, off int64) (int, error) {
	if o.direct != nil && aligned(buf) && off+int64(len(buf)) <= o.size {
		if o.inMemory(buf, off) {
			return len(buf), nil
		}
		if n, err := o.direct.ReadAt(buf, off); err == nil {
			return n, nil
		}
	}
	return o.f.ReadAt(buf, off)
}

// share gives the stage the blocks of the clone that piece p lies in.
func (o *oldCopy) share(to *os.File, p part) bool {
	if !o.clone {
		return false
	}
	length := p.len()
	if length%directAlign != 0 && (p.off()+length != o.size || o.size != p.size) {
		return false // blocks are shared as wholes, only the end of both files may be none
	}
	err := unix.IoctlFileCloneRange(int(to.Fd()), &unix.FileCloneRange{
		Src_fd: int64(o.f.Fd()), Src_offset: uint64(p.off()), Src_length: uint64(length), Dest_offset: uint64(p.off()),
	})
	return err == nil
}

func (o *oldCopy) close() {
	if o == nil {
		return
	}
	o.f.Close()
	if o.direct != nil {
		o.direct.Close()
	}
	if o.known != nil {
		o.known.close()
	}
}
