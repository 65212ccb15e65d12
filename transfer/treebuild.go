package transfer

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"sync/atomic"

	"gantry/api"

	"golang.org/x/sys/unix"
)

// building says that there is a stage: the new tree differs from the old one.
func (r *treeImport) building() bool { return r.made != nil }

// build takes up the stage of an earlier run or makes one, and brings what came
// so far into it. A tree that does not differ never gets that far.
func (r *treeImport) build(ctx context.Context) error {
	if r.building() || r.comparing() {
		return nil
	}
	if err := r.openStage(); err != nil {
		return err
	}
	if err := r.space(); err != nil {
		return err
	}
	at := int(r.stage.Fd())
	for _, name := range []string{stageNew, stageGone} {
		if err := unix.Mkdirat(at, name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return local(err, "making the stage")
		}
	}
	d, err := openDirAt(at, stageNew)
	if err != nil {
		return local(err, "opening the stage")
	}
	if err := d.Chmod(0o700); err != nil { // its mode may be the source's already
		d.Close()
		return local(err, "opening the stage")
	}
	r.made = newDirTree(d)
	return r.replay(ctx)
}

// openStage opens the recorded stage or makes one.
func (r *treeImport) openStage() error {
	rec, ok, err := readTreeStaged(r.Dir)
	if err != nil {
		return local(err, "opening the stage")
	}
	if ok {
		if r.stage, err = rec.open(r.stages); err != nil {
			return err
		}
	}
	if r.stage == nil {
		r.rec, r.stage, err = createTreeStage(r.stages, r.Dir, r.Task)
		return err
	}
	if holds, err := rec.holdsOld(r.stage); err != nil || holds {
		return errors.Join(err, fail(api.TargetChanged, nil, "%s/%s/%s is the old copy of the target, which an earlier attempt replaced: move it to a safe place", StageDir, rec.Name, stageNew))
	}
	r.resumed, r.before = true, readCounters(r.Dir)
	r.rec = treeStaged{V: rec.V, Name: rec.Name, Ino: rec.Ino, Btime: rec.Btime, Carried: rec.Carried}
	return nil
}

// found is where bytes count that an earlier run brought.
func (r *treeImport) found() *atomic.Int64 {
	if r.rec.Carried {
		return &r.bytes.carried
	}
	return &r.bytes.fetched
}

// holdsOld says that the stage has an old tree in the place of the new one.
func (rec *treeStaged) holdsOld(stage *os.File) (bool, error) {
	if rec.NewIno == 0 || rec.Settled {
		return false, nil
	}
	id, err := identify(int(stage.Fd()), stageNew)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && (id.ino != rec.NewIno || !id.btime.Equal(rec.NewBtime)), local(err, "looking at the stage")
}

// space refuses a tree that cannot fit. With an old tree nobody knows before.
func (r *treeImport) space() error {
	if r.old != nil || r.resumed || !r.header.Exact {
		return nil
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(r.stages.Fd()), &st); err != nil {
		return local(err, "asking for space")
	}
	if free := int64(st.Bavail) * st.Frsize; r.header.Size > free {
		return fail(api.NoSpace, nil, "%q needs %d bytes, %d are free", r.item, r.header.Size, free)
	}
	if st.Files > 0 && uint64(r.header.Entries) > st.Ffree {
		return fail(api.NoSpace, nil, "%q has %d entries, %d inodes are free", r.item, r.header.Entries, st.Ffree)
	}
	return nil
}

// replay brings the entries that came before the first difference into the
// stage: each of them is what the old tree has.
func (r *treeImport) replay(ctx context.Context) error {
	if err := r.spool.Flush(); err != nil {
		return local(err, "writing the spool of the manifest")
	}
	upto := r.n - 1 // without the one that differs
	switch {
	case r.heard: // none does: something is to be deleted
		upto = r.n
	case r.big != nil:
		upto = r.big.n
	}
	var start int64
	n := int64(-1)
	return r.spooled(r.n, func(l *TreeLine, off int64) error {
		if l.Kind == TreeKindEntry {
			n, start = n+1, off+int64(len(l.Raw))
		}
		if n >= upto {
			return errStop
		}
		return r.again(ctx, l, n, start)
	})
}

// errStop ends the reading of a spool.
var errStop = errors.New("enough")

// spooled reads the lines of the manifest that came, with the offset of each.
func (r *treeImport) spooled(entries int64, emit func(l *TreeLine, off int64) error) error {
	return r.spooledAt(new(TreeCursor), entries, emit)
}

// spooledAt is spooled with a cursor, which is at the start.
func (r *treeImport) spooledAt(c *TreeCursor, entries int64, emit func(l *TreeLine, off int64) error) error {
	if entries == 0 {
		return nil
	}
	end, err := r.lines.Seek(0, io.SeekEnd)
	if err != nil {
		return local(err, "reading the spool of the manifest")
	}
	err = ReadTreeLines(io.NewSectionReader(r.lines, 0, end), c, func(l TreeLine) error { return emit(&l, c.Bytes) })
	if errors.Is(err, errStop) {
		return nil
	}
	return local(err, "reading the spool of the manifest")
}

// again brings one entry of the old tree into the stage. start is where the
// lines of its pieces begin.
func (r *treeImport) again(ctx context.Context, l *TreeLine, n, start int64) error {
	e := &l.Entry
	switch {
	case l.Kind == TreeKindEntry && e.Type == TreeDir:
		return r.makeDir(e)
	case r.inPlace():
		return nil
	case l.Kind == TreeKindDigest:
		return r.againBig(ctx, e, n, start)
	case l.Kind != TreeKindEntry || e.Type != TreeFile || e.Size > PieceSize:
		return nil
	}
	_, look, err := r.kept.get(n)
	if err != nil {
		return err
	}
	return r.add(ctx, &r.olds, treeFile{TreeEntry: *e, n: n, line: l.N, old: origin{link: !r.KeepOld, look: look}, told: true})
}

func (r *treeImport) againBig(ctx context.Context, e *TreeEntry, n, start int64) error {
	_, look, err := r.kept.get(n)
	if err != nil {
		return err
	}
	b := &bigFile{TreeEntry: *e, n: n, start: start, look: look}
	b.users.Store(1)
	if b.old, _, err = r.openOld(e.Path); err != nil {
		return err
	}
	err = r.keepBig(ctx, b, true)
	b.ready.Store(err == nil)
	return errors.Join(err, r.release(b))
}

// carryOne brings an entry along. All but files are never written in place, so
// that even a kept old tree may share them. A file that the new tree has under
// another path is copied.
func (s *stranger) carryOne(d *os.File, name, p string, id identity) error {
	s.carried.add(p)
	to, toName, done, err := s.made.in(p)
	if isLink(err) || errors.Is(err, fs.ErrNotExist) {
		return inTheWay(p)
	}
	if err != nil {
		return local(err, "opening the folder of %.300q", p)
	}
	defer done()
	if s.resumed {
		if err := s.clear(to, toName); err != nil {
			return local(err, "clearing the place of %.300q", p)
		}
	}
	switch {
	case id.mode&unix.S_IFMT == unix.S_IFDIR:
		err = unix.Mkdirat(to, toName, 0o700)
	case id.regular() && (s.KeepOld || s.moves.took(id.ino)):
		err = s.copyStranger(d, name, to, toName, p)
	default:
		err = unix.Linkat(int(d.Fd()), name, to, toName, 0)
	}
	return local(err, "bringing %.300q along", p)
}

// copyStranger copies a file that must not share its inode.
func (s *stranger) copyStranger(d *os.File, name string, to int, toName, p string) error {
	from, id, err := openRegular(int(d.Fd()), name)
	if err != nil {
		return err
	}
	defer from.Close()
	fd, err := s.createAt(to, toName, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), p)
	defer f.Close()
	if _, err := io.Copy(f, from); err != nil {
		return err
	}
	after, err := identify(int(from.Fd()), "")
	if err == nil && after.look() != id.look() {
		err = oldChanged(p)
	}
	if err != nil {
		return err
	}
	return s.dressLike(f, p, id)
}

// dressLike gives f, which is or will be at path p of the new tree, the
// attributes of the old entry.
func (s *stranger) dressLike(f *os.File, p string, id identity) error {
	t, fd := TreeFile, int(f.Fd())
	if id.mode&unix.S_IFMT == unix.S_IFDIR {
		dir, done, err := s.made.dir(p)
		if err != nil {
			return unsafeWay(err, p)
		}
		defer done()
		t, fd = TreeDir, dir
	}
	if err := unix.Fchown(fd, int(id.uid), int(id.gid)); err != nil {
		s.lose("owner", p, err)
	}
	dir, name, done, err := s.old.in(p)
	if err != nil {
		return local(err, "opening the folder of %.300q", p)
	}
	defer done()
	all := TreePolicy{Xattrs: XattrsAll, SetID: SetIDKeep}
	xattrs, err := all.readXattrs(dir, name)
	if err != nil {
		return local(err, "reading the attributes of %.300q", p)
	}
	a := TreeAttrs{Mode: id.mode & maxPerm, MTime: id.mtime, Xattrs: xattrs}
	as := treeImport{Import: s.Import, Policy: all}
	as.lost = tally{say: func(string) {}}
	return as.dress(fd, p, t, &a)
}
