package transfer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"gantry/api"
	"gantry/feedback"

	"golang.org/x/sys/unix"
)

// Bounds of what is under way. A job holds a request's worth of files; queued
// and running jobs together bound memory.
const (
	treeQueue = 4
	jobFiles  = 512
	jobMeta   = 1 << 20 // bytes of paths and attributes in a job
)

// bufWriter is an append-only file of lines.
type bufWriter struct {
	*bufio.Writer
	f *os.File
}

func newSpool(path string) (*os.File, *bufWriter, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, nil, local(err, "opening the spool of the manifest")
	}
	return f, &bufWriter{bufio.NewWriterSize(f, 1<<18), f}, nil
}

// line takes up one line of the manifest.
func (r *treeImport) line(ctx context.Context, h TreeHeader, l *TreeLine) error {
	if err := r.begin(ctx, h); err != nil {
		return err
	}
	if _, err := r.spool.Write(l.Raw); err != nil {
		return local(err, "writing the spool of the manifest")
	}
	r.index.line(l.Kind, l.Raw)
	switch l.Kind {
	case TreeKindEntry:
		return r.entry(ctx, l)
	case TreeKindPiece, TreeKindZero:
		return r.piece(ctx, l)
	case TreeKindDigest:
		return r.whole(ctx, l)
	case TreeKindDropped:
		return r.dropped(l)
	}
	r.skip(l.Path, l.Code, l.Message)
	return nil
}

// leftOut says whether a skipped entry is one that the source was told to leave out.
// All others could not be read.
func leftOut(code string) bool { return code == SkipSpecial || code == SkipOther }

// skip counts an entry of the source that the tree will not have.
func (r *treeImport) skip(path, code, message string) {
	if leftOut(code) {
		r.count.LeftOut++
		r.shut.add(path)
		r.left.add(code, func() string { return fmt.Sprintf("%.300q is left out (%s): %.200s", path, code, message) })
		return
	}
	r.count.Skipped++
	r.missing.add("", func() string {
		quoted := fmt.Sprintf("%.300q", path)
		if code == SkipBadName { // escaped by the source already
			quoted = fmt.Sprintf(`"%.300s"`, feedback.Printable(path))
		}
		return fmt.Sprintf("%s is missing (%s): %.200s", quoted, code, message)
	})
}

// special says whether the type is none that every tree may have.
func special(t TreeType) bool {
	return t == TreeFifo || t == TreeSocket || t == TreeChar || t == TreeBlock
}

// entry takes up an entry.
func (r *treeImport) entry(ctx context.Context, l *TreeLine) error {
	e, n := &l.Entry, r.n
	r.n++
	if err := r.Policy.vet(e); err != nil {
		return err
	}
	if special(e.Type) && r.Policy.Special == SpecialSkip {
		r.count.Special++
		r.index.spoil()
		r.shut.add(e.Path)
		r.lost.add(string(e.Type), func() string {
			return fmt.Sprintf("%.300q is a %s: this resource keeps none (special = %q); further ones are counted", e.Path, e.Type, SpecialSkip)
		})
		return nil
	}
	if e.Type == TreeFile && e.Size > PieceSize {
		return r.openBig(e, n)
	}
	r.tell(e.Type)
	r.seen.add(e.Path)
	content, all, look, err := r.same(e)
	if err != nil {
		return err
	}
	if all {
		r.count.Unchanged++
		r.index.entry(e.Path, e.Type, &r.here)
	} else {
		r.index.spoil()
	}
	return r.settleEntry(ctx, e, n, content, all, look, l.Raw)
}

// tell counts an entry that is seen.
func (r *treeImport) tell(t TreeType) {
	r.entries.Add(1)
	countEntry(&r.count, t)
}

func countEntry(c *api.Entries, t TreeType) {
	switch t {
	case TreeFile:
		c.Files++
	case TreeDir:
		c.Dirs++
	case TreeLink:
		c.Links++
	case TreeSymlink:
		c.Symlinks++
	default:
		c.Special++
	}
}

// settleEntry decides what an entry that is no large file needs.
func (r *treeImport) settleEntry(ctx context.Context, e *TreeEntry, n int64, content, all bool, look oldFile, raw []byte) error {
	old, err := origin{look: look, link: all}, error(nil)
	switch {
	case e.Type != TreeFile:
		err = r.later(raw)
	case all:
		old.link = r.claimOwn(e.Path)
		err = r.kept.put(n, keptThere, 0, look)
	case !content:
		old, content, err = r.moved(e)
	}
	if err != nil {
		return err
	}
	switch {
	case r.comparing():
		return r.compare(e, content, all)
	case all && !r.building():
		r.carry(e)
		return nil
	case !r.building():
		if err := r.build(ctx); err != nil {
			return err
		}
	}
	return r.place(ctx, e, n, content, all, old)
}

// later keeps the line of what is done last.
func (r *treeImport) later(raw []byte) error {
	_, err := r.late.Write(raw)
	return local(err, "writing the spool of the manifest")
}

// carry counts a file that stays what it is.
func (r *treeImport) carry(e *TreeEntry) {
	if e.Type == TreeFile {
		r.bytes.carried.Add(e.Size)
		r.gain(e.Size)
	}
}

// compare is settleEntry when nothing is made.
func (r *treeImport) compare(e *TreeEntry, content, all bool) error {
	if !r.DryRun {
		if all || content && e.Type != TreeFile {
			r.carry(e)
			return nil
		}
		if !content {
			return fail(api.Exists, nil, "target %q is there with other content: %.300q differs", r.item, e.Path)
		}
		return fail(api.Exists, nil, "target %q is there, with other attributes of %.300q", r.item, e.Path)
	}
	if e.Type == TreeFile && !all {
		origin := &r.bytes.fetched
		if content {
			origin = &r.bytes.copied
		}
		origin.Add(e.Size)
		r.gain(e.Size)
		return nil
	}
	r.carry(e)
	return nil
}

// place makes an entry in the stage, or queues it.
func (r *treeImport) place(ctx context.Context, e *TreeEntry, n int64, content, all bool, old origin) error {
	switch e.Type {
	case TreeDir:
		return r.makeDir(e)
	case TreeFile:
	default:
		return nil // late
	}
	if all && r.inPlace() {
		r.carry(e)
		return nil
	}
	old.link = old.link && !r.KeepOld
	f := treeFile{TreeEntry: *e, n: n, line: r.cursor.Next, old: old}
	if content {
		return r.add(ctx, &r.olds, f)
	}
	if k := len(r.news.files); k > 0 && r.news.files[k-1].At+r.news.files[k-1].Size != f.At {
		if err := r.queue(ctx, &r.news); err != nil {
			return err
		}
	}
	return r.add(ctx, &r.news, f)
}

// unsafeWay gives an error on the way to an entry its code: parts of the way
// were directories when they were made.
func unsafeWay(err error, path string) error {
	if isLink(err) || errors.Is(err, fs.ErrNotExist) {
		return fail(api.UnsafeEntry, err, "unsafe entry %.300q: its folder in the stage is not the directory that was made", path)
	}
	return local(err, "opening the folder of %.300q", path)
}

// makeDir makes a directory that only we can enter; its attributes come late.
func (r *treeImport) makeDir(e *TreeEntry) error {
	dir, name, done, err := r.made.in(e.Path)
	if err != nil {
		return unsafeWay(err, e.Path)
	}
	defer done()
	if err := r.op("mkdir"); err != nil {
		return local(err, "making the directory %.300q", e.Path)
	}
	err = unix.Mkdirat(dir, name, 0o700)
	if errors.Is(err, fs.ErrExist) && r.resumed {
		id, ierr := identify(dir, name)
		if ierr == nil && id.mode&unix.S_IFMT == unix.S_IFDIR {
			return local(unix.Fchmodat(dir, name, 0o700, 0), "opening the directory %.300q", e.Path)
		}
		if err = r.clear(dir, name); err == nil {
			err = unix.Mkdirat(dir, name, 0o700)
		}
	}
	return local(err, "making the directory %.300q", e.Path)
}

// clear removes what an earlier run left in the place of an entry.
func (r *treeImport) clear(dir int, name string) error {
	x := remover{budget: MaxTreeEntries}
	return x.remove(dir, name)
}

// op asks the test's hook whether the next operation may happen.
func (r *treeImport) op(name string) error {
	if r.hook == nil {
		return nil
	}
	return r.hook(name)
}
