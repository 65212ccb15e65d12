package transfer

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"gantry/api"
	"gantry/internal/atomicfile"
	"gantry/internal/failpoint"

	"golang.org/x/sys/unix"
)

// reopen takes up, after a crash, the manifest and the stage of a publication at
// a resource's root.
func (r *treeImport) reopen() (err error) {
	if r.lines, err = os.Open(filepath.Join(r.Dir, treeLines)); err != nil {
		return local(err, "opening the spool of the manifest")
	}
	d, err := openDirAt(int(r.stage.Fd()), stageNew)
	if err != nil {
		return local(err, "opening the stage")
	}
	r.made = newDirTree(d)
	if err := r.openOldTree(); err != nil {
		return err
	}
	r.n = MaxTreeEntries
	if err := r.guard(r.rec.Filter); err != nil {
		return err
	}
	return r.spooled(r.n, func(l *TreeLine, _ int64) error {
		switch {
		case r.counts(l):
			r.seen.add(l.Entry.Path)
		case l.Kind == TreeKindSkipped && leftOut(l.Code):
			r.shut.add(l.Path)
		case l.Kind == TreeKindEntry && special(l.Entry.Type):
			r.shut.add(l.Entry.Path)
		}
		return nil
	})
}

// counts says whether the line completes an entry that the tree has.
func (r *treeImport) counts(l *TreeLine) bool {
	e := &l.Entry
	switch l.Kind {
	case TreeKindDigest:
		return true
	case TreeKindEntry:
		return !(e.Type == TreeFile && e.Size > PieceSize) && !(special(e.Type) && r.Policy.Special == SpecialSkip)
	}
	return false
}

// merge publishes at the resource's root: each entry that the stage has is
// renamed to its place, in the manifest's order; then come deletions. Doing any
// of it twice changes nothing, so after a crash all of it is done again.
func (r *treeImport) merge() error {
	if r.old == nil { // the root was empty
		d, err := r.openTarget()
		if err != nil {
			return err
		}
		if r.oldID, err = identify(int(d.Fd()), ""); err != nil {
			d.Close()
			return local(err, "looking at the target")
		}
		r.old = newDirTree(d)
	}
	moved := 0
	err := r.mergeAll(&moved)
	if err == nil && r.rec.Delete {
		d, derr := openDirAt(int(r.old.top.Fd()), ".")
		if derr != nil {
			return local(derr, "reading the target")
		}
		defer d.Close()
		err = r.deleteIn(d, "")
	}
	if err != nil && !errors.Is(err, ErrUnsettled) {
		return local(fmt.Errorf("after %d entries: %w", moved, err), "publishing: a part of the tree is in place, the rest is as it was")
	}
	return err
}

func (r *treeImport) mergeAll(moved *int) error {
	var open []TreeEntry
	leave := func(p string) error {
		for len(open) > 0 {
			d := &open[len(open)-1]
			if strings.HasPrefix(p, d.Path+"/") {
				return nil
			}
			if err := r.mergeDirEnd(d); err != nil {
				return err
			}
			open = open[:len(open)-1]
		}
		return nil
	}
	n := int64(-1)
	err := r.spooled(r.n, func(l *TreeLine, _ int64) error {
		if l.Kind == TreeKindEntry {
			n++
		}
		if !r.counts(l) {
			return nil
		}
		e := &l.Entry
		if err := leave(e.Path); err != nil {
			return err
		}
		*moved++
		if e.Type == TreeDir {
			open = append(open, *e)
			return r.mergeDir(e)
		}
		return r.mergeOne(e, n)
	})
	if err != nil {
		return err
	}
	return leave("")
}

// mergeDir makes a directory at the root, if it is not there.
func (r *treeImport) mergeDir(e *TreeEntry) error {
	dir, name, done, err := r.old.in(e.Path)
	if err != nil {
		return unsafeWay(err, e.Path)
	}
	defer done()
	err = unix.Mkdirat(dir, name, 0o700)
	if !errors.Is(err, fs.ErrExist) {
		return local(err, "making the directory %.300q", e.Path)
	}
	id, err := identify(dir, name)
	if err != nil || id.mode&unix.S_IFMT == unix.S_IFDIR {
		return local(err, "looking at %.300q", e.Path)
	}
	if err := r.aside(dir, name); err != nil {
		return local(err, "moving %.300q out of the way", e.Path)
	}
	return local(unix.Mkdirat(dir, name, 0o700), "making the directory %.300q", e.Path)
}

// mergeDirEnd gives a directory its attributes, when it has all of its content.
func (r *treeImport) mergeDirEnd(e *TreeEntry) error {
	dir, done, err := r.old.dir(e.Path)
	if err != nil {
		return unsafeWay(err, e.Path)
	}
	defer done()
	return r.dress(dir, e.Path, TreeDir, &e.TreeAttrs)
}

// mergeOne renames what the stage has of an entry to its place. What it does not
// have is in place.
func (r *treeImport) mergeOne(e *TreeEntry, n int64) error {
	from, name, done, err := r.made.in(e.Path)
	if err != nil {
		return unsafeWay(err, e.Path)
	}
	defer done()
	if _, err := identify(from, name); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return local(err, "looking at %.300q of the stage", e.Path)
	}
	to, toName, done2, err := r.old.in(e.Path)
	if err != nil {
		return unsafeWay(err, e.Path)
	}
	defer done2()
	if id, err := identify(to, toName); err == nil && id.mode&unix.S_IFMT == unix.S_IFDIR {
		if err := r.aside(to, toName); err != nil {
			return local(err, "moving %.300q out of the way", e.Path)
		}
	}
	if err := failpoint.Hit("treein.move"); err != nil {
		return local(err, "publishing %.300q", e.Path)
	}
	if err := unix.Renameat(from, name, to, toName); err != nil {
		return local(err, "publishing %.300q", e.Path)
	}
	if err := failpoint.HitAfter("treein.move"); err != nil {
		return local(err, "publishing %.300q", e.Path)
	}
	if e.Type == TreeFile && r.kept != nil {
		if id, err := identify(to, toName); err == nil {
			if err := r.kept.put(n, keptMoved, 0, id.look()); err != nil {
				return err
			}
		}
	}
	// To rename a name to another of the same file does nothing.
	if err := unix.Unlinkat(from, name, 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return local(err, "publishing %.300q", e.Path)
	}
	return nil
}

// aside moves what stands in the way of an entry into the stage.
func (r *treeImport) aside(dir int, name string) error {
	gone, err := openDirAt(int(r.stage.Fd()), stageGone)
	if err != nil {
		return err
	}
	defer gone.Close()
	d, err := openDirAt(dir, ".")
	if err != nil {
		return err
	}
	defer d.Close()
	r.old.forget() // what is below it is elsewhere now
	for i := range MaxTreeEntries {
		err := atomicfile.Rename(d, name, gone, fmt.Sprint(i), atomicfile.NoReplace, "treein.aside")
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return syscall.EEXIST
}

// deleteIn removes what the source does not have below d, whose path is dir. It
// leaves file systems that are mounted there alone.
func (r *treeImport) deleteIn(d *os.File, dir string) error {
	names, err := r.strangersIn(d, dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		x := remover{budget: MaxTreeEntries, hook: r.hook}
		if err := failpoint.Hit("treein.delete"); err != nil {
			return local(err, "deleting %.300q", path.Join(dir, name))
		}
		_, err := r.deleteOne(&x, d, name, path.Join(dir, name), 0)
		if c := codeOf(err); c == api.BadFileSystem {
			r.Report.Log("warn", r.item, "not deleted: "+wireMessage(err))
			continue
		}
		if err == nil {
			err = failpoint.HitAfter("treein.delete")
		}
		if err != nil {
			return local(err, "deleting %.300q", path.Join(dir, name))
		}
	}
	return nil
}

// deleteOne removes name in d, whose path is p, and what is in it, but for what is
// protected and the directories on the way to it: then something stays.
func (r *treeImport) deleteOne(x *remover, d *os.File, name, p string, depth int) (stays bool, err error) {
	id, err := identify(int(d.Fd()), name)
	if err != nil || id.mode&unix.S_IFMT != unix.S_IFDIR || r.filter == nil && r.shut.count == 0 || id.mount != r.oldID.mount || depth > maxDepth {
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return false, errors.Join(err, x.remove(int(d.Fd()), name))
	}
	sub, err := openDirAt(int(d.Fd()), name)
	if err != nil {
		return false, err
	}
	defer sub.Close()
	names, err := sub.Readdirnames(-1)
	if err != nil {
		return false, err
	}
	for _, n := range names {
		q := path.Join(p, n)
		child, err := identify(int(sub.Fd()), n)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, err
		}
		if r.guards(q, child.mode&unix.S_IFMT == unix.S_IFDIR) {
			stays = true
			continue
		}
		more, err := r.deleteOne(x, sub, n, q, depth+1)
		if err != nil {
			return false, err
		}
		stays = stays || more
	}
	if stays {
		return true, nil
	}
	return false, unix.Unlinkat(int(d.Fd()), name, unix.AT_REMOVEDIR)
}

// strangersIn goes down into the directories of the source's and returns the
// names of d that are none of its.
func (r *treeImport) strangersIn(d *os.File, dir string) (gone []string, err error) {
	for {
		names, err := d.Readdirnames(removeChunk)
		if errors.Is(err, io.EOF) {
			return gone, nil
		}
		if err != nil {
			return nil, local(err, "reading the folder %.300q of the target", dir)
		}
		for _, name := range names {
			if name == StageDir {
				continue
			}
			p := path.Join(dir, name)
			id, err := identify(int(d.Fd()), name)
			switch {
			case errors.Is(err, fs.ErrNotExist):
			case err != nil:
				return nil, local(err, "looking at %.300q", p)
			case id.mount != r.oldID.mount:
			case !r.seen.has(p):
				if !r.guards(p, id.mode&unix.S_IFMT == unix.S_IFDIR) {
					gone = append(gone, name)
				}
			case r.shut.has(p):
			case id.mode&unix.S_IFMT == unix.S_IFDIR:
				sub, err := openDirAt(int(d.Fd()), name)
				if err != nil {
					return nil, local(err, "opening the folder %.300q", p)
				}
				err = r.deleteIn(sub, p)
				sub.Close()
				if err != nil {
					return nil, err
				}
			}
		}
	}
}
