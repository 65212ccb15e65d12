package transfer

import (
	"context"
	"errors"
	"io"
	"io/fs"

	"gantry/api"

	"golang.org/x/sys/unix"
)

// A treeFile is a file of at most one piece that is to be made.
type treeFile struct {
	TreeEntry
	n    int64 // number of its entry
	line int64 // and of its line
	old  origin
	told bool // it counts as carried already
}

// oldPath is where the old tree has its content.
func (f *treeFile) oldPath() string {
	if f.old.path != "" {
		return f.old.path
	}
	return f.Path
}

// meta is what the file costs while it waits.
func (f *treeFile) meta() (n int) {
	n = len(f.Path) + len(f.old.path)
	for k, v := range f.Xattrs {
		n += len(k) + len(v)
	}
	return n
}

// A bringJob is small files, or pieces of one large one.
type bringJob struct {
	files []treeFile
	olds  bool // the old tree has them
	big   *bigFile
	parts []part
}

// A jobInMaking collects files until they are worth a job.
type jobInMaking struct {
	files []treeFile
	size  int64
	meta  int
	olds  bool // the old tree has them
}

// add appends a file to a job, and queues the job when it is full.
func (r *treeImport) add(ctx context.Context, job *jobInMaking, f treeFile) error {
	meta := f.meta()
	if job.size+f.Size > api.MaxRange || len(job.files) == jobFiles || job.meta+meta > jobMeta {
		if err := r.queue(ctx, job); err != nil {
			return err
		}
	}
	job.files, job.size, job.meta = append(job.files, f), job.size+f.Size, job.meta+meta
	return nil
}

// queue hands a job to the workers.
func (r *treeImport) queue(ctx context.Context, job *jobInMaking) error {
	if len(job.files) == 0 {
		return nil
	}
	j := bringJob{files: job.files, olds: job.olds}
	*job = jobInMaking{olds: job.olds}
	select {
	case job.files = <-r.spare:
	default: // it grows anew
	}
	return r.hand(ctx, j)
}

func (r *treeImport) hand(ctx context.Context, j bringJob) error {
	select {
	case r.jobs <- j:
		return nil
	case <-ctx.Done():
		return cancelled(ctx)
	}
}

// create makes a file with content that was proved.
func (r *treeImport) create(f *treeFile, content []byte) error {
	defer while(&r.waits.disk)()
	dir, name, done, err := r.made.in(f.Path)
	if err != nil {
		return unsafeWay(err, f.Path)
	}
	defer done()
	fd, err := r.createAt(dir, name, f.Mode)
	if err != nil {
		return local(err, "creating %.300q", f.Path)
	}
	defer unix.Close(fd)
	if err := r.op("write"); err != nil {
		return local(err, "writing %.300q", f.Path)
	}
	for b := content; len(b) > 0; {
		n, err := unix.Write(fd, b)
		if err != nil && err != unix.EINTR {
			return local(err, "writing %.300q", f.Path)
		}
		b = b[max(0, n):]
	}
	if err := r.dress(fd, f.Path, TreeFile, &f.TreeAttrs); err != nil {
		return err
	}
	if !f.told {
		r.gain(f.Size)
	}
	return nil
}

// createAt opens a new file in the stage, which nobody else can enter, with mode as
// far as the umask leaves it; on a resumed stage it clears the place first. The mode
// of most files need not be changed then.
func (r *treeImport) createAt(dir int, name string, mode uint32) (int, error) {
	mode &= 0o777 // with others only dress may set the rest
	const how = unix.O_RDWR | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(dir, name, how, mode)
	if errors.Is(err, fs.ErrExist) && r.resumed {
		if err := r.clear(dir, name); err != nil {
			return -1, err
		}
		fd, err = unix.Openat(dir, name, how, mode)
	}
	return fd, err
}

// staged says whether an earlier run made the file, by reading it. A name of an
// old file is none of ours: to write to it would be to write to the old tree.
func (r *treeImport) staged(f *treeFile, buf []byte) (bool, error) {
	dir, name, done, err := r.made.in(f.Path)
	if err != nil {
		return false, unsafeWay(err, f.Path)
	}
	defer done()
	file, id, err := openRegular(dir, name)
	if err != nil || id.size != f.Size {
		if err == nil {
			file.Close()
		}
		return false, nil // create clears the place
	}
	defer file.Close()
	if !r.own(id) {
		return false, nil
	}
	if err := r.op("read"); err != nil {
		return false, local(err, "reading %.300q of the stage", f.Path)
	}
	if _, err := io.ReadFull(file, buf[:f.Size]); err != nil {
		return false, nil
	}
	if HashPiece(buf[:f.Size], 0, true) != f.Digest {
		return false, nil
	}
	if !f.told {
		r.gain(f.Size)
	}
	return true, r.dress(int(file.Fd()), f.Path, TreeFile, &f.TreeAttrs)
}

// own says whether a file of a resumed stage was made there. An old file that was
// linked to it keeps one name when its other one is removed; whoever has it open
// could write to it after it was proved.
func (r *treeImport) own(id identity) bool {
	return id.nlink == 1 && !id.btime.Before(r.rec.Btime)
}

// link gives an old file a second name in the stage. ok is false when it is not
// what it was, or the file system refuses.
func (r *treeImport) link(f *treeFile) (ok bool, err error) {
	from, name, done, err := r.old.in(f.oldPath())
	if err != nil {
		return false, nil
	}
	defer done()
	to, toName, done2, err := r.made.in(f.Path)
	if err != nil {
		return false, unsafeWay(err, f.Path)
	}
	defer done2()
	before, err := identify(from, name)
	if err != nil || before.look() != f.old.look || !r.mayLink(before) {
		return false, nil
	}
	if r.resumed {
		if err := r.clear(to, toName); err != nil {
			return false, local(err, "clearing the place of %.300q", f.Path)
		}
		if id, err := identify(from, name); err != nil || !sameContent(id.look(), f.old.look) {
			return false, nil // the one that was cleared was a name of it: its ctime moved
		}
	}
	if err := unix.Linkat(from, name, to, toName, 0); err != nil {
		return false, nil
	}
	id, err := identify(to, toName)
	if err != nil || !sameContent(id.look(), f.old.look) {
		return false, local(errors.Join(err, unix.Unlinkat(to, toName, 0)), "linking %.300q", f.Path)
	}
	r.links.Add(1)
	if !f.told {
		r.bytes.carried.Add(f.Size)
		r.gain(f.Size)
	}
	record := int64(0)
	if f.old.path != "" {
		record = f.old.off + 1
	}
	return true, r.kept.put(f.n, keptLinked, record, id.look())
}

// maxShared bounds what is remembered of old files of several names.
const maxShared = 1 << 16

// mayLink says whether the old file may get a name in the stage: two files of
// the source must not become names of one, though they are that in the old tree.
func (r *treeImport) mayLink(id identity) bool {
	if id.nlink == 1 {
		return true
	}
	r.linkedMu.Lock()
	defer r.linkedMu.Unlock()
	if r.linked[id.ino] || len(r.linked) == maxShared {
		return false
	}
	r.linked[id.ino] = true
	return true
}

// sameContent ignores the ctime, which our own links move.
func sameContent(a, b oldFile) bool {
	a.ctime = b.ctime
	return a == b
}
