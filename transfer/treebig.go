package transfer

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"sync/atomic"
	"syscall"

	"gantry/api"

	"golang.org/x/sys/unix"
)

// A bigFile is a file of several pieces that is under way. Its content is
// compared with the old tree's as far as that goes; with the first difference it
// is made in the stage.
type bigFile struct {
	TreeEntry
	n      int64
	start  int64 // of its pieces' lines in the spool
	sum    Tree
	wait   bool // a record says what the old file's digest is: decide when the digest is here
	cmp    bool // every piece so far is the old file's
	old    *os.File
	look   oldFile
	from   origin // with a path: old is of another one
	record Value
	parts  []part // of a job in the making

	f     *os.File
	users atomic.Int64 // jobs under way, and the plan
	ready atomic.Bool  // all of it is with its users
	gone  atomic.Bool  // it is none, after all
}

// close closes the files.
func (b *bigFile) close() {
	if b.f != nil {
		b.f.Close()
	}
	if b.old != nil {
		b.old.Close()
	}
}

// release is called by each user; the last one gives the file its attributes, or
// removes it.
func (r *treeImport) release(b *bigFile) (err error) {
	if b.users.Add(-1) > 0 {
		return nil
	}
	defer b.close()
	switch {
	case b.f == nil:
	case b.gone.Load():
		dir, name, done, err := r.made.in(b.Path)
		if err != nil {
			return unsafeWay(err, b.Path)
		}
		defer done()
		return local(unix.Unlinkat(dir, name, 0), "removing %.300q", b.Path)
	case b.ready.Load():
		return r.dress(int(b.f.Fd()), b.Path, TreeFile, &b.TreeAttrs)
	}
	return nil
}

// openBig takes up a large file.
func (r *treeImport) openBig(e *TreeEntry, n int64) error {
	if err := r.spool.Flush(); err != nil {
		return local(err, "writing the spool of the manifest")
	}
	start, err := r.lines.Seek(0, io.SeekCurrent)
	if err != nil {
		return local(err, "writing the spool of the manifest")
	}
	b := &bigFile{TreeEntry: *e, n: n, start: start}
	b.users.Store(1)
	r.big = b
	known, ok := r.known.find(e.Path)
	here, there, err := r.oldEntry(e.Path)
	if here.mode&unix.S_IFMT == unix.S_IFDIR {
		r.turned.add(e.Path)
	}
	if err != nil || !there || !here.regular() {
		return err
	}
	f, id, err := r.openOld(e.Path)
	if err != nil {
		return nil // it is fetched
	}
	b.old, b.look = f, id.look()
	if id.size == e.Size {
		b.wait = ok && !r.Checksum && known.look == b.look
		b.record, b.cmp = known.digest, true
		if !b.wait {
			return r.readsOld()
		}
	}
	return nil
}

// piece takes up a piece, or a run of zero ones, of the large file.
func (r *treeImport) piece(ctx context.Context, l *TreeLine) error {
	b := r.big
	p := part{Entry{N: l.Piece, Count: l.Count, Value: l.Value, Zero: l.Kind == TreeKindZero}, b.Size, l.N}
	for n := p.N; n < p.N+p.Count; n++ {
		v := p.Value
		if p.Zero {
			if ctx.Err() != nil {
				return cancelled(ctx)
			}
			v = ZeroValue(n, PieceLen(n, b.Size), false)
		}
		b.sum.Add(v)
	}
	if p.N == 0 && !b.wait && !b.cmp {
		if err := r.movedBig(ctx, b, p); err != nil {
			return err
		}
	}
	switch {
	case b.wait:
		return nil
	case b.cmp:
		same, err := r.oldHas(ctx, b, p)
		if same || err != nil {
			return err
		}
		b.cmp = false
		return r.redo(ctx, b)
	}
	return r.placePart(ctx, b, p)
}

// oldHas says whether the old file has the piece, by reading it.
func (r *treeImport) oldHas(ctx context.Context, b *bigFile, p part) (bool, error) {
	for n := p.N; n < p.N+p.Count; n++ {
		if ctx.Err() != nil {
			return false, cancelled(ctx)
		}
		r.oldBuf = room(r.oldBuf, PieceLen(n, b.Size))
		buf := r.oldBuf
		if _, err := b.old.ReadAt(buf, n*PieceSize); err != nil {
			return false, nil
		}
		v := p.Value
		if p.Zero {
			v = ZeroValue(n, int64(len(buf)), false)
		}
		if HashPiece(buf, n, false) != v {
			return false, nil
		}
	}
	return true, nil
}

// redo takes up the pieces that came so far once more, to make them.
func (r *treeImport) redo(ctx context.Context, b *bigFile) error {
	if r.comparing() && !r.DryRun {
		return fail(api.Exists, nil, "target %q is there with other content: %.300q differs", r.item, b.Path)
	}
	if !r.comparing() && !r.building() {
		if err := r.build(ctx); err != nil {
			return err
		}
	}
	if err := r.spool.Flush(); err != nil {
		return local(err, "writing the spool of the manifest")
	}
	end, err := r.lines.Seek(0, io.SeekCurrent)
	if err != nil {
		return local(err, "reading the spool of the manifest")
	}
	return readParts(io.NewSectionReader(r.lines, b.start, end-b.start), b.Size, func(p part) error {
		return r.placePart(ctx, b, p)
	})
}

// placePart makes a piece, or queues it.
func (r *treeImport) placePart(ctx context.Context, b *bigFile, p part) error {
	if r.comparing() {
		if !r.DryRun {
			return fail(api.Exists, nil, "target %q is there with other content: %.300q differs", r.item, b.Path)
		}
		return r.comparePart(ctx, b, p)
	}
	if !r.building() {
		if err := r.build(ctx); err != nil {
			return err
		}
	}
	if err := r.makeBig(b); err != nil {
		return err
	}
	if k := len(b.parts); k > 0 && (k == requestPieces || p.Zero) {
		if err := r.queueParts(ctx, b); err != nil {
			return err
		}
	}
	if p.Zero {
		if err := r.zero(b, p); err != nil {
			return err
		}
		r.bytes.hole.Add(p.len())
		r.gain(p.len())
		return nil
	}
	b.parts = append(b.parts, p)
	return nil
}

// comparePart counts where a piece would come from.
func (r *treeImport) comparePart(ctx context.Context, b *bigFile, p part) error {
	origin := &r.bytes.fetched
	switch has, err := false, error(nil); {
	case p.Zero:
		origin = &r.bytes.hole
	case b.old != nil:
		if has, err = r.oldHas(ctx, b, p); err != nil {
			return err
		}
		if has {
			origin = &r.bytes.copied
		}
	}
	origin.Add(p.len())
	r.gain(p.len())
	return nil
}

// zero makes a hole, where an earlier run may have left something.
func (r *treeImport) zero(b *bigFile, p part) error {
	if !r.resumed {
		return nil
	}
	err := unix.Fallocate(int(b.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, p.off(), p.len())
	if errors.Is(err, syscall.EOPNOTSUPP) {
		err = (&stage{f: b.f}).zero(p.off(), p.len())
	}
	return local(err, "clearing pieces of %.300q", b.Path)
}

// queueParts hands pieces to the workers.
func (r *treeImport) queueParts(ctx context.Context, b *bigFile) error {
	if len(b.parts) == 0 {
		return nil
	}
	j := bringJob{big: b, parts: b.parts}
	b.parts = nil
	b.users.Add(1)
	if err := r.hand(ctx, j); err != nil {
		return errors.Join(err, r.release(b))
	}
	return nil
}

// makeBig makes the file in the stage, or opens what an earlier run made. It is
// never a name of an old file: pieces are written in it.
func (r *treeImport) makeBig(b *bigFile) error {
	if b.f != nil {
		return nil
	}
	dir, name, done, err := r.made.in(b.Path)
	if err != nil {
		return unsafeWay(err, b.Path)
	}
	defer done()
	fd := -1
	if r.resumed {
		fd = r.openOwn(dir, name)
	}
	if fd < 0 {
		if fd, err = r.createAt(dir, name, 0o600); err != nil {
			return local(err, "creating %.300q", b.Path)
		}
	}
	b.f = os.NewFile(uintptr(fd), b.Path)
	return local(b.f.Truncate(b.Size), "giving %.300q its size", b.Path)
}

// openOwn opens a regular file that was made in the stage for writing, -1 if it
// is none.
func (r *treeImport) openOwn(dir int, name string) int {
	fd, err := unix.Openat(dir, name, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	if id, err := identify(fd, ""); err != nil || !id.regular() || !r.own(id) {
		unix.Close(fd)
		return -1
	}
	return fd
}

// whole takes up the digest of the large file: it is complete.
func (r *treeImport) whole(ctx context.Context, l *TreeLine) error {
	b := r.big
	b.Digest = l.Entry.Digest
	if b.sum.Root() != b.Digest {
		return badManifest("the digest of %.300q is not that of its pieces", b.Path)
	}
	if b.wait && b.record != b.Digest {
		b.wait, b.cmp = false, false
		if err := r.redo(ctx, b); err != nil {
			return err
		}
	}
	r.big = nil
	r.tell(TreeFile)
	r.seen.add(b.Path)
	err := error(nil)
	switch {
	case b.cmp:
		err = r.sameBig(ctx, b)
	case !r.comparing():
		err = r.queueParts(ctx, b)
	}
	b.ready.Store(err == nil)
	return errors.Join(err, r.release(b))
}

// sameBig settles a large file whose content the old tree has.
func (r *treeImport) sameBig(ctx context.Context, b *bigFile) error {
	id, err := identify(int(b.old.Fd()), "")
	if err != nil {
		return local(err, "looking at %.300q of the old copy", b.Path)
	}
	if id.look() != b.look {
		return oldChanged(b.Path)
	}
	if b.from.path != "" {
		return r.settleMoved(ctx, b, id)
	}
	all, err := r.alikeOld(b.Path, &b.TreeEntry, id)
	own := !all || err != nil || r.claimOwn(b.Path)
	switch {
	case err != nil:
		return err
	case r.comparing():
		if all {
			r.count.Unchanged++
			r.index.entry(b.Path, TreeFile, &id)
		}
		return r.compare(&b.TreeEntry, true, all)
	case !all:
		return r.copyBig(ctx, b)
	}
	r.count.Unchanged++
	r.index.entry(b.Path, TreeFile, &id)
	if err := r.kept.put(b.n, keptThere, 0, b.look); err != nil {
		return err
	}
	if !r.building() || r.inPlace() {
		r.carry(&b.TreeEntry)
		return nil
	}
	if !own {
		return r.copyBig(ctx, b)
	}
	return r.keepBig(ctx, b, false)
}

// keepBig brings an unchanged large file into the stage.
func (r *treeImport) keepBig(ctx context.Context, b *bigFile, told bool) error {
	if !r.KeepOld {
		ok, err := r.link(&treeFile{TreeEntry: b.TreeEntry, n: b.n, old: origin{path: b.from.path, off: b.from.off, look: b.look}, told: told})
		if ok || err != nil {
			return err
		}
	}
	if told {
		r.bytes.carried.Add(-b.Size)
		r.gain(-b.Size)
	}
	return r.copyBig(ctx, b)
}

// copyBig makes a large file whose pieces the old one has.
func (r *treeImport) copyBig(ctx context.Context, b *bigFile) error {
	b.cmp = false
	if err := r.redo(ctx, b); err != nil {
		return err
	}
	return r.queueParts(ctx, b)
}

// dropped takes up that the large file is none: what was made of it is removed
// when nobody works on it any more.
func (r *treeImport) dropped(l *TreeLine) error {
	b := r.big
	r.big = nil
	r.skip(b.Path, l.Code, l.Message)
	b.gone.Store(true)
	return r.release(b)
}

// readParts reads the lines of pieces that were kept, up to the end of the file.
func readParts(rd io.Reader, size int64, emit func(part) error) error {
	tr := &treeReader{br: bufio.NewReaderSize(rd, maxTreeLine)}
	var at int64
	for {
		l, _, err := tr.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return local(err, "reading the spool of the manifest")
		}
		p := part{Entry: Entry{N: at, Count: 1}, size: size}
		if l.N != nil {
			p.line = *l.N
		}
		switch l.Kind {
		case TreeKindPiece:
			p.Value, _ = parseValue(*l.Value)
		case TreeKindZero:
			p.Count, p.Zero = *l.Count, true
		default:
			return nil
		}
		at += p.Count
		if err := emit(p); err != nil {
			return err
		}
	}
}
