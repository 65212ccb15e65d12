package transfer

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// last makes what has to come after all files.
func (r *treeImport) last(ctx context.Context) error {
	err := r.op("last")
	if err == nil {
		err = r.late.Flush()
	}
	if err != nil {
		return local(err, "writing the spool of the manifest")
	}
	if _, err := r.late.f.Seek(0, io.SeekStart); err != nil {
		return local(err, "reading the spool of the manifest")
	}
	tr := &treeReader{br: bufio.NewReaderSize(r.late.f, maxTreeLine)}
	var open []TreeEntry // directories from the top to the last entry
	leave := func(p string) error {
		for len(open) > 0 {
			d := &open[len(open)-1]
			if strings.HasPrefix(p, d.Path+"/") {
				return nil
			}
			if err := r.dressDir(d); err != nil {
				return err
			}
			open = open[:len(open)-1]
		}
		return nil
	}
	for {
		l, _, err := tr.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return local(err, "reading the spool of the manifest")
		}
		if ctx.Err() != nil {
			return cancelled(ctx)
		}
		e, err := l.kept()
		if err == nil {
			err = leave(e.Path)
		}
		if err == nil && e.Type == TreeDir {
			open = append(open, e)
		} else if err == nil {
			err = r.lastOne(&e)
		}
		if err != nil {
			return err
		}
	}
	if err := leave(""); err != nil || r.inPlace() {
		return err
	}
	return r.dress(int(r.made.top.Fd()), ".", TreeDir, &r.header.Root)
}

// kept is the entry of a line that was judged before it was kept.
func (l *treeLine) kept() (e TreeEntry, err error) {
	e = TreeEntry{Path: *l.Path, Type: *l.Type}
	if l.Mode != nil {
		e.TreeAttrs, err = treeAttrs(*l.Mode, *l.MTime, *l.UID, *l.GID, l.Xattrs)
	}
	if l.Target != nil {
		e.Target = *l.Target
	}
	if l.Rdev != nil {
		e.Rdev = *l.Rdev
	}
	return e, err
}

// dressDir gives a directory of the stage its attributes. Nobody works in it any
// more: it may be closed to ourselves.
func (r *treeImport) dressDir(e *TreeEntry) error {
	dir, done, err := r.made.dir(e.Path)
	if err != nil {
		return unsafeWay(err, e.Path)
	}
	defer done()
	return r.dress(dir, e.Path, TreeDir, &e.TreeAttrs)
}

// lastOne makes a link, a symbolic link or a special file.
func (r *treeImport) lastOne(e *TreeEntry) error {
	if r.inPlace() {
		// It may be in place already; a link only if its file stays too.
		_, all, _, err := r.same(e)
		if err != nil {
			return err
		}
		if all && (e.Type != TreeLink || !r.inStage(e.Target)) {
			return nil
		}
	}
	dir, name, done, err := r.made.in(e.Path)
	if err != nil {
		return unsafeWay(err, e.Path)
	}
	defer done()
	if r.resumed {
		if err := r.clear(dir, name); err != nil {
			return local(err, "clearing the place of %.300q", e.Path)
		}
	}
	switch e.Type {
	case TreeLink:
		return r.lastLink(e, dir, name)
	case TreeSymlink:
		if err := unix.Symlinkat(e.Target, dir, name); err != nil {
			return local(err, "making the symbolic link %.300q", e.Path)
		}
		return r.dressName(dir, name, e)
	}
	if err := unix.Mknodat(dir, name, typeBits[e.Type]|0o600, int(e.Rdev)); err != nil {
		if !errors.Is(err, fs.ErrPermission) {
			return local(err, "making the %s %.300q", e.Type, e.Path)
		}
		r.skip(e.Path, "denied", "the node's user may not make a "+string(e.Type))
		return nil
	}
	return r.dressName(dir, name, e)
}

// inStage says whether the stage has something at path.
func (r *treeImport) inStage(p string) bool {
	dir, name, done, err := r.made.in(p)
	if err != nil {
		return false
	}
	defer done()
	_, err = identify(dir, name)
	return err == nil
}

// lastLink makes a further name of a file, which must be one of the tree's.
func (r *treeImport) lastLink(e *TreeEntry, dir int, name string) error {
	if !r.seen.has(e.Target) {
		if r.count.Skipped > 0 {
			r.skip(e.Path, "changed", "the file that it is another name of is missing")
			return nil
		}
		return unsafeEntry(e.Path, "it links to %.80q, which is no file of the tree", e.Target)
	}
	tree := r.made
	if r.inPlace() && !r.inStage(e.Target) {
		tree = r.old
	}
	from, first, done, err := tree.in(e.Target)
	if err != nil {
		return unsafeWay(err, e.Target)
	}
	defer done()
	id, err := identify(from, first)
	if err == nil && !id.regular() {
		return unsafeEntry(e.Path, "it links to %.80q, which is no file", e.Target)
	}
	if err == nil {
		err = unix.Linkat(from, first, dir, name, 0)
	}
	return local(err, "linking %.300q", e.Path)
}

// leftovers removes what an earlier run made and this one does not have.
func (r *treeImport) leftovers(ctx context.Context) error {
	d, err := openDirAt(int(r.made.top.Fd()), ".")
	if err != nil {
		return local(err, "reading the stage")
	}
	defer d.Close()
	return r.leftIn(ctx, d, "")
}

func (r *treeImport) leftIn(ctx context.Context, d *os.File, dir string) error {
	var gone []string
	for {
		if ctx.Err() != nil {
			return cancelled(ctx)
		}
		names, err := d.Readdirnames(removeChunk)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return local(err, "reading the stage")
		}
		for _, name := range names {
			p := filepath.Join(dir, name)
			if known := r.seen.has(p); !known {
				_, there, err := r.oldEntry(p)
				if err != nil {
					return err
				}
				if !there || r.inPlace() || !r.carried.has(p) {
					gone = append(gone, name)
					continue
				}
			}
			sub, err := openDirAt(int(d.Fd()), name)
			if isLink(err) {
				continue
			}
			if err != nil {
				return local(err, "reading the stage")
			}
			err = r.leftIn(ctx, sub, p)
			sub.Close()
			if err != nil {
				return err
			}
		}
	}
	for _, name := range gone {
		if err := r.clear(int(d.Fd()), name); err != nil {
			return local(err, "removing what an earlier attempt left")
		}
	}
	return nil
}

// stillSame looks once more at old files that the new tree has: a program that
// writes to them in place would have changed both.
func (r *treeImport) stillSame() error {
	n := int64(-1)
	return r.spooled(r.n, func(l *TreeLine, _ int64) error {
		if l.Kind == TreeKindEntry {
			n++
		}
		if l.Entry.Type != TreeFile || (l.Kind == TreeKindEntry) != (l.Entry.Size <= PieceSize) || l.Kind != TreeKindEntry && l.Kind != TreeKindDigest {
			return nil
		}
		how, look, err := r.kept.get(n)
		if err != nil || how == keptNot || how == keptThere && !r.inPlace() {
			return err
		}
		tree := r.made
		if how == keptThere {
			tree = r.old
		}
		dir, name, done, err := tree.in(l.Entry.Path)
		if err != nil {
			return oldChanged(l.Entry.Path)
		}
		defer done()
		id, err := identify(dir, name)
		if err == nil && id.look() == look {
			return nil
		}
		// A further name that we gave it moves its ctime, too: then its content tells.
		if err == nil && id.nlink > 2 && sameContent(id.look(), look) {
			if v, err := hashFile(dir, name, make([]byte, PieceSize)); err == nil && v == l.Entry.Digest {
				return nil
			}
		}
		return oldChanged(l.Entry.Path)
	})
}

// hashFile reads a file and computes its root.
func hashFile(dir int, name string, buf []byte) (Value, error) {
	f, id, err := openRegular(dir, name)
	if err != nil {
		return Value{}, err
	}
	defer f.Close()
	return hashBack(f, id.size, buf)
}
