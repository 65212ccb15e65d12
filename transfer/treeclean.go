package transfer

import (
	"bufio"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// cleanStep is how many entries Clean removes before it looks at its context.
const cleanStep = 1000

// Clean does what an import of a tree leaves for later, when its result is
// durable: it remembers what the files look like, so that the next import need
// not read them, and removes the tree that was replaced. For other imports, and
// done twice, it does nothing. What it leaves when ctx ends is for Discard.
func (m *Import) Clean(ctx context.Context) error {
	rec, ok, err := readTreeStaged(m.Dir)
	if err != nil || !ok || !rec.Settled {
		return local(err, "reading the record of the stage")
	}
	r, err := m.prepareTree()
	if err != nil {
		return err
	}
	defer r.close()
	r.rec = rec
	if r.stage, err = rec.open(r.stages); err != nil || r.stage == nil {
		return err
	}
	if m.Tree.Known != "" {
		if err := r.rememberPublished(ctx); err != nil {
			return err
		}
	}
	for {
		x := remover{budget: cleanStep}
		err := x.remove(int(r.stage.Fd()), stageNew)
		switch {
		case !errors.Is(err, errMore):
			return local(err, "removing the old copy")
		case ctx.Err() != nil:
			return cancelled(ctx)
		}
	}
}

// rememberPublished records what the published files look like.
func (r *treeImport) rememberPublished(ctx context.Context) error {
	d, err := r.openTarget()
	if d == nil || err != nil {
		return err
	}
	tree := newDirTree(d)
	defer tree.close()
	if id, err := identify(int(d.Fd()), ""); err != nil || !r.inPlace() && (id.ino != r.rec.NewIno || !id.btime.Equal(r.rec.NewBtime)) {
		return local(err, "looking at the target") // another one since
	}
	old := (*dirTree)(nil)
	if o, err := openDirAt(int(r.stage.Fd()), stageNew); err == nil && !r.inPlace() {
		old = newDirTree(o)
		defer old.close()
	}
	if r.lines, err = os.Open(filepath.Join(r.Dir, treeLines)); err != nil {
		return local(err, "opening the spool of the manifest")
	}
	f, err := os.Open(filepath.Join(r.Dir, treeKept))
	if err != nil {
		return local(err, "opening the notes of kept files")
	}
	r.kept, r.n, r.known = &kept{f}, MaxTreeEntries, openLooks(r.Tree.Known)
	if !r.inPlace() && len(r.rec.Filter) == 0 {
		if top, err := identify(int(d.Fd()), ""); err == nil {
			r.index = newIndex(filepath.Join(r.Dir, treeIndexFile), r.Tree.indexRules(), top, r.rec.Before)
		}
	}
	var c TreeCursor
	err = r.remember(ctx, r.index, &c, func(n int64, e *TreeEntry) (oldFile, bool) {
		id, ok := identity{}, true
		if e.Type == TreeFile {
			id, ok = r.published(tree, old, n, e)
		}
		if !ok {
			r.index.spoil()
		}
		r.indexPublished(r.index, tree, e, &id)
		return id.look(), ok && e.Type == TreeFile
	})
	if err == nil {
		r.index.end(r.Tree.Known+indexSuffix, c.Digest(), c.At)
	}
	return err
}

// published says what a published file looks like, if it is certain that nobody
// wrote to it since it was proved.
func (r *treeImport) published(tree, old *dirTree, n int64, e *TreeEntry) (id identity, ok bool) {
	how, noted, err := r.kept.get(n)
	if err != nil || r.inPlace() && how == keptNot {
		return id, false
	}
	dir, name, done, err := tree.in(e.Path)
	if err != nil {
		return id, false
	}
	defer done()
	id, err = identify(dir, name)
	if err != nil || !id.regular() || id.size != e.Size || !id.mtime.Equal(e.MTime) {
		return id, false
	}
	switch {
	case r.inPlace():
		return id, id.look() == noted
	case how != keptLinked:
		// Whoever wrote to it after it was published left a later time.
		return id, id.ctime.Before(r.rec.Before)
	case id.look() != noted || old == nil:
		return id, false
	}
	// Its old name goes now: that moves its ctime.
	p, ok := r.oldPath(n, e)
	from, oldName, done2, err := old.in(p)
	if err != nil || !ok {
		return id, false
	}
	defer done2()
	if was, err := identify(from, oldName); err != nil || was.ino != id.ino {
		return id, false
	}
	if err := unix.Unlinkat(from, oldName, 0); err != nil {
		return id, false
	}
	id, err = identify(dir, name)
	return id, err == nil && sameContent(id.look(), noted)
}

// oldPath is where the old tree has the content of entry n.
func (r *treeImport) oldPath(n int64, e *TreeEntry) (string, bool) {
	from, err := r.kept.from(n)
	if from == 0 || err != nil {
		return e.Path, err == nil
	}
	if r.known == nil {
		return "", false
	}
	k, ok := r.known.at(from - 1)
	return k.path, ok
}

// racyLook is how old a look must be before it tells: two writes within a tick of
// the file system's clock leave the same times.
const racyLook = 2 * time.Second

// settledLook says whether a write that the look does not show is impossible.
func settledLook(o oldFile, now time.Time) bool {
	return now.UnixNano()-max(o.mtime, o.ctime) > int64(racyLook)
}

// remember writes the records of all files for which look tells; it is asked of
// every entry. x and c take up the lines.
func (r *treeImport) remember(ctx context.Context, x *indexWriter, c *TreeCursor, look func(n int64, e *TreeEntry) (oldFile, bool)) error {
	temp := r.Tree.Known + newKnown
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(filepath.Dir(temp), 0o700); err == nil {
			f, err = os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		}
	}
	if err != nil {
		return local(err, "recording the files of the tree")
	}
	defer f.Close()
	w, n, b := bufio.NewWriterSize(f, 1<<16), int64(-1), []byte(nil)
	err = r.spooledAt(c, r.n, func(l *TreeLine, _ int64) error {
		if l.Kind == TreeKindEntry {
			n++
		}
		x.line(l.Kind, l.Raw)
		e := &l.Entry
		if !r.counts(l) {
			if l.Kind == TreeKindEntry && e.Type != TreeFile {
				x.spoil()
			}
			return nil
		}
		if ctx.Err() != nil {
			return cancelled(ctx)
		}
		o, ok := look(n, e)
		if !ok {
			return nil
		}
		k := lookRecord{path: e.Path, look: o, digest: e.Digest}
		b = k.append(b[:0])
		_, err := w.Write(b)
		return err
	})
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = os.Rename(temp, r.Tree.Known)
	}
	return local(err, "recording the files of the tree")
}

// rememberSame records the files of a tree that did not differ, when some of them
// had to be read.
func (r *treeImport) rememberSame(ctx context.Context) {
	if r.Tree.Known == "" || r.DryRun || r.reads == 0 || r.spool.Flush() != nil {
		return
	}
	now, known := time.Now(), openLooks(r.Tree.Known)
	defer known.close()
	err := r.remember(ctx, nil, new(TreeCursor), func(n int64, e *TreeEntry) (oldFile, bool) {
		if e.Type != TreeFile {
			return oldFile{}, false
		}
		how, look, err := r.kept.get(n)
		if k, ok := known.find(e.Path); ok && k.look == look {
			return look, err == nil && how == keptThere
		}
		return look, err == nil && how == keptThere && settledLook(look, now)
	})
	if err != nil {
		r.Report.Log("warn", r.item, err.Error())
	}
}
