package transfer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"gantry/api"
	"gantry/internal/atomicfile"

	"golang.org/x/sys/unix"
)

// publish puts the new tree in the target's place:
//
//  1. what has to be last: links, symbolic links, special files, then the
//     attributes of directories, from the leaves up
//  2. one syncfs for all of it; the digest was compared before
//  3. Commit; result and state publishing on disk: the point of no return
//  4. a directory: rename without replacing, or exchange with the old tree; the
//     resource's root: each entry by a rename, then deletions
//  5. fsync the folders; only then may the old tree go
func (r *treeImport) publish(ctx context.Context) (res api.ImportResult, err error) {
	if r.comparing() || !r.building() {
		if r.Verify == VerifyDisk && !r.DryRun {
			if err := r.readBackTree(ctx); err != nil {
				return res, err
			}
		}
		r.rememberSame(ctx)
		r.endIndex()
		res = r.result(api.TargetThere)
		if r.DryRun {
			res.Target = r.will()
		}
		return res, incomplete(res)
	}
	r.counter.SetPhase("publish")
	if err := r.finish(ctx); err != nil {
		return res, err
	}
	res = r.result(r.will())
	if r.KeepOld && r.old != nil {
		if res.Old, err = r.oldName(); err != nil {
			return res, err
		}
	}
	p, err := r.recordNew()
	if err != nil {
		return res, err
	}
	if err := r.commit(ctx, p, res, "treein."); err != nil {
		return res, err
	}
	if err := r.put(p, res.Old); err != nil {
		return res, err
	}
	return res, incomplete(res)
}

// will says what the target will have been.
func (r *treeImport) will() string {
	switch {
	case r.DryRun && r.old != nil && r.count.Deleted == 0 && r.bytes.fetched.Load()+r.bytes.copied.Load()+r.bytes.hole.Load() == 0 &&
		r.count.Unchanged == r.count.Files+r.count.Dirs+r.count.Links+r.count.Symlinks+r.count.Special:
		return api.TargetThere
	case r.old != nil:
		return api.TargetReplaced
	}
	return api.TargetCreated
}

// finish makes the stage complete and durable.
func (r *treeImport) finish(ctx context.Context) error {
	if r.resumed {
		if err := r.leftovers(ctx); err != nil {
			return err
		}
	}
	if err := r.last(ctx); err != nil {
		return err
	}
	if r.links.Load() > 0 || r.inPlace() {
		if err := r.stillSame(); err != nil {
			return err
		}
	}
	r.lost.mu.Lock()
	for what, n := range r.lost.n {
		if n > 1 {
			r.Report.Log("warn", r.item, fmt.Sprintf("%s: %d entries in all", what, n))
		}
	}
	r.lost.mu.Unlock()
	r.missing.rest("%[2]d more entries are missing")
	r.left.rest("%[2]d more entries are left out (%[1]s)")
	if err := r.spool.Flush(); err != nil {
		return local(err, "writing the spool of the manifest")
	}
	if err := atomicfile.SyncFile(r.lines, "treein.lines"); err != nil {
		return local(err, "writing the spool of the manifest")
	}
	if err := r.sync(); err != nil {
		return err
	}
	if r.Verify == VerifyDisk {
		return r.readBackTree(ctx)
	}
	return nil
}

// sync makes all of the stage durable at once. r.stages was opened before the
// first write, so no error in between escapes it.
func (r *treeImport) sync() error {
	defer while(&r.waits.disk)()
	err := r.op("syncfs")
	if err == nil {
		err = atomicfile.SyncFS(r.stages, "treein.syncfs")
	}
	if err != nil {
		return local(r.distrust(err), "syncing the stage")
	}
	r.counter.Durable(r.placed.Load())
	return nil
}

// readBackTree reads all files of the new tree from the disk: those of the stage,
// and old ones that stay.
func (r *treeImport) readBackTree(ctx context.Context) error {
	r.counter.SetPhase("verify")
	buf := make([]byte, PieceSize)
	return r.spooled(r.n, func(l *TreeLine, _ int64) error {
		e := &l.Entry
		if e.Type != TreeFile || l.Kind != TreeKindEntry && l.Kind != TreeKindDigest || l.Kind == TreeKindEntry && e.Size > PieceSize {
			return nil
		}
		if ctx.Err() != nil {
			return cancelled(ctx)
		}
		tree := r.made
		if !r.building() || r.inPlace() && !r.inStage(e.Path) {
			tree = r.old
		}
		dir, name, done, err := tree.in(e.Path)
		if err != nil {
			return unsafeWay(err, e.Path)
		}
		defer done()
		f, id, err := openRegular(dir, name)
		if err != nil {
			return local(err, "reading %.300q back", e.Path)
		}
		defer f.Close()
		if err := r.op("read"); err != nil {
			return local(err, "reading %.300q back", e.Path)
		}
		if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
			return local(err, "reading %.300q back", e.Path)
		}
		v, err := hashBack(f, id.size, buf)
		if err != nil {
			return local(err, "reading %.300q back", e.Path)
		}
		if v != e.Digest {
			return r.distrust(fail(api.CorruptPiece, nil, "the disk of the target gives back other bytes of %.300q than were written to it", e.Path))
		}
		return nil
	})
}

func hashBack(f *os.File, size int64, buf []byte) (Value, error) {
	var t Tree
	for n := range Pieces(size) {
		b := buf[:PieceLen(n, size)]
		if _, err := f.ReadAt(b, n*PieceSize); err != nil {
			return Value{}, err
		}
		t.Add(HashPiece(b, n, Pieces(size) == 1))
	}
	return t.Root(), nil
}

// maxOldNames is how many names are tried for a kept old tree.
const maxOldNames = 10

// oldName chooses the name under which the old tree is kept.
func (r *treeImport) oldName() (string, error) {
	for i := range maxOldNames {
		name := OldName(r.base, r.Task)
		if i > 0 {
			name += fmt.Sprintf(".%d", i)
		}
		if len(name) > maxPart {
			return "", fail(api.BadPath, nil, "keep_old: the name %.80q would be longer than %d bytes", name, maxPart)
		}
		if _, err := identify(int(r.dir.Fd()), name); errors.Is(err, fs.ErrNotExist) {
			return name, nil
		}
	}
	return "", fail(api.Exists, nil, "keep_old: %q and its like are all there", OldName(r.base, r.Task))
}

// recordNew records what will be published.
func (r *treeImport) recordNew() (p api.Publishing, err error) {
	id, err := identify(int(r.made.top.Fd()), "")
	if err != nil {
		return p, local(err, "looking at the stage")
	}
	// A time that is later than every change of the stage.
	now := []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Nsec: unix.UTIME_NOW}}
	if err := unix.UtimesNanoAt(int(r.stages.Fd()), r.rec.Name, now, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return p, local(err, "looking at the stage")
	}
	mark, err := identify(int(r.stage.Fd()), "")
	if err != nil {
		return p, local(err, "looking at the stage")
	}
	r.rec.NewIno, r.rec.NewBtime, r.rec.Mode = id.ino, id.btime, id.mode&maxPerm
	r.rec.Before, r.rec.Delete = mark.ctime, r.Extraneous == api.ExtraneousDelete && r.count.Deleted > 0
	r.rec.Filter = r.header.Filter
	if r.old != nil {
		r.rec.OldIno, r.rec.OldBtime = r.oldID.ino, r.oldID.btime
	}
	if err := r.rec.write(r.Dir); err != nil {
		return p, local(err, "recording the stage")
	}
	return api.Publishing{Digest: r.digest, Ino: id.ino, Btime: id.btime, Size: r.cursor.At}, nil
}

// put publishes, once or again.
func (r *treeImport) put(p api.Publishing, old string) error {
	if r.inPlace() {
		if err := r.merge(); err != nil {
			return err
		}
		return r.settled(r.syncRoot)
	}
	if err := r.swap(p); err != nil {
		return err
	}
	return r.settled(func() error { return r.leave(p, old) })
}

// isNew says whether name in dir is the tree that is published.
func isNew(dir *os.File, name string, p api.Publishing) (bool, error) {
	id, err := identify(int(dir.Fd()), name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && id.ino == p.Ino && id.btime.Equal(p.Btime), err
}

// swap renames the new tree to the target. A rename that reports an error may
// have happened: the target's inode tells.
func (r *treeImport) swap(p api.Publishing) error {
	flags := uint(atomicfile.NoReplace)
	if r.rec.OldIno != 0 {
		flags = atomicfile.Exchange
		id, err := identify(int(r.dir.Fd()), r.base)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return local(err, "looking at the target")
		}
		if err != nil || id.ino != r.rec.OldIno || !id.btime.Equal(r.rec.OldBtime) {
			return fail(api.TargetChanged, nil, "target %q is not the directory that it was when the import began", r.Name)
		}
	}
	if r.rec.Mode&0o200 == 0 { // a directory that moves is written to: its ".."
		if err := unix.Fchmodat(int(r.stage.Fd()), stageNew, r.rec.Mode|0o200, 0); err != nil {
			return local(err, "publishing %q", r.Name)
		}
	}
	err := atomicfile.Rename(r.stage, stageNew, r.dir, r.base, flags, "treein.rename")
	if err == nil {
		return nil
	}
	ours, ierr := isNew(r.dir, r.base, p)
	switch {
	case ierr != nil:
		return errors.Join(ErrUnsettled, err, ierr)
	case ours:
		return nil
	case errors.Is(err, fs.ErrExist):
		return fail(api.Exists, err, "target %q appeared while it was copied", r.Name)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		return fail(api.BadFileSystem, err, "the file system cannot exchange two directories")
	}
	return local(err, "publishing %q", r.Name)
}

// leave gives the published tree its mode and the old one its name.
func (r *treeImport) leave(p api.Publishing, old string) error {
	if r.rec.Mode&0o200 == 0 {
		if err := unix.Fchmodat(int(r.dir.Fd()), r.base, r.rec.Mode, unix.AT_SYMLINK_NOFOLLOW); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			return local(err, "giving %q its mode", r.Name)
		}
	}
	if old != "" {
		ours, err := isNew(r.stage, stageNew, p)
		if err != nil || ours {
			return errors.Join(err, fail(api.IO, nil, "the old copy is not where the exchange left it"))
		}
		err = atomicfile.Rename(r.stage, stageNew, r.dir, old, atomicfile.NoReplace, "treein.keepold")
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // it has its name already
			return local(err, "keeping the old copy")
		}
	}
	if err := atomicfile.SyncFile(r.dir, "treein.targetdir"); err != nil {
		return err
	}
	return atomicfile.SyncFile(r.stage, "treein.leavedir")
}

// settled does what remains when the tree is published, twice if need be, and
// records that the stage holds nothing of worth any more.
func (r *treeImport) settled(rest func() error) error {
	err := rest()
	if err != nil {
		r.Report.Log("warn", r.item, "after publishing: "+err.Error())
		err = rest()
	}
	if err == nil {
		r.rec.Settled = true
		err = r.rec.write(r.Dir)
	}
	if err != nil {
		return errors.Join(ErrUnsettled, err)
	}
	return nil
}

func (r *treeImport) syncRoot() error { return atomicfile.SyncFS(r.stages, "treein.rootsync") }
