package transfer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"gantry/api"
	"gantry/internal/atomicfile"
	"gantry/internal/failpoint"

	"golang.org/x/sys/unix"
)

// publish puts the complete stage in the target's place:
//
//  1. fsync the stage, then its directory
//  2. the digest is the source's (pull compared it), and what is on disk, if asked
//  3. Commit; result and state publishing on disk: the point of no return
//  4. rename (create: without replacing), fsync both directories
//
// The result record and the message to the source are the caller's.
func (r *fileSink) publish(ctx context.Context) (api.ImportResult, error) {
	var none api.ImportResult
	r.counter.SetPhase("publish")
	target, err := r.attributes()
	if err != nil {
		return none, err
	}
	if err := r.syncStage(); err != nil {
		return none, err
	}
	if r.Verify == VerifyDisk {
		if err := r.readBack(ctx); err != nil {
			return none, err
		}
	}
	id, err := identify(int(r.st.f.Fd()), "")
	if err != nil {
		return none, local(err, "looking at the stage")
	}
	p := api.Publishing{Digest: r.digest, Ino: id.ino, Btime: id.btime, Size: id.size}
	result := r.result(target)
	if r.KeepOld && target == api.TargetReplaced {
		result.Old = OldName(r.base, r.Task)
	}
	if err := r.commit(ctx, p, result, "transfer.publish."); err != nil {
		return none, err
	}
	result.Old, err = r.place(p, r.st.Name)
	if err != nil {
		return none, err
	}
	r.remember(p)
	return result, nil
}

// attributes gives the stage mode, owner and time, and says what the target will
// have been. A replaced file's mode and owner are kept where the system allows.
func (r *fileSink) attributes() (target string, err error) {
	target = api.TargetCreated
	perm := r.Perm.Perm()
	fd := int(r.st.f.Fd())
	old, err := identify(int(r.dir.Fd()), r.base)
	switch {
	case err == nil && r.Mode != api.ModeCreate:
		target, perm = api.TargetReplaced, os.FileMode(old.mode&0o777)
		if !old.regular() {
			return "", fail(api.NotRegular, nil, "target %q is there and is not a regular file", r.Name)
		}
		if err := r.own(fd, old); err != nil {
			r.Report.Log("warn", r.Name, "the new file has not the owner of the old one: "+err.Error())
		}
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", local(err, "looking at the target")
	}
	if err := unix.Fchmod(fd, uint32(perm)); err != nil {
		return "", local(err, "giving the stage its mode")
	}
	if r.stream {
		return target, nil // it has no time of its own
	}
	mtime := unix.Timespec{Sec: r.file.MTime.Unix(), Nsec: int64(r.file.MTime.Nanosecond())}
	err = unix.UtimesNanoAt(int(r.stages.Fd()), r.st.Name, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, mtime}, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		r.Report.Log("warn", r.Name, "the new file has not the time of its source: "+err.Error())
	}
	return target, nil
}

// own gives the stage the old file's owner and group, or at least the group.
func (r *fileSink) own(fd int, old identity) error {
	now, err := identify(fd, "")
	if err != nil || now.uid == old.uid && now.gid == old.gid {
		return err
	}
	err = unix.Fchown(fd, int(old.uid), int(old.gid))
	if err != nil && unix.Fchown(fd, -1, int(old.gid)) == nil && now.uid == old.uid {
		return nil
	}
	return err
}

func (r *fileSink) syncStage() error {
	err := r.st.op("fsync")
	if err == nil {
		err = atomicfile.SyncFile(r.st.f, "transfer.publish.sync")
	}
	if err != nil {
		return local(r.st.spoil(err), "syncing the stage")
	}
	return local(atomicfile.SyncFile(r.stages, "transfer.publish.stagedir"), "syncing the stage's folder")
}

// readBack reads the stage from the disk and compares it with the proved values.
func (r *fileSink) readBack(ctx context.Context) error {
	r.counter.SetPhase("verify")
	// Pages that are clean, as all are after fsync, are dropped by this.
	if err := unix.Fadvise(int(r.st.f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return local(err, "dropping the stage from memory")
	}
	buf, tree := make([]byte, PieceSize), Tree{}
	whole := Pieces(r.file.Size) == 1
	for n := range Pieces(r.file.Size) {
		if ctx.Err() != nil {
			return cancelled(ctx)
		}
		piece := buf[:PieceLen(n, r.file.Size)]
		data, err := r.st.read(n, piece)
		switch {
		case err != nil:
			return err
		case data:
			tree.Add(HashPiece(piece, n, whole))
		default:
			tree.Add(r.Cache.zero(n, int64(len(piece)), whole))
		}
	}
	if d := FormatDigest(tree.Root()); d != r.digest {
		err := fail(api.CorruptPiece, nil, "the disk of the target gives back other bytes than were written to it (%s)", d)
		return r.st.spoil(err) // its map vouches for bytes that are not there
	}
	return nil
}

// commit is the point of no return. The caller's Commit comes first, so that
// from here on nobody is told that the import could be cancelled. The names of
// its failpoints begin with point.
func (m *Import) commit(ctx context.Context, p api.Publishing, result api.ImportResult, point string) error {
	data, err := json.Marshal(result)
	if err != nil {
		return err
	}
	if err := atomicfile.WriteFile(filepath.Join(m.Dir, resultRecord), data, 0o600, point+"result"); err != nil {
		return local(err, "writing the result")
	}
	if ctx.Err() != nil {
		return cancelled(ctx)
	}
	if m.Commit != nil {
		if err := m.Commit(); err != nil {
			return err
		}
	}
	if err := failpoint.Hit(point + "state"); err != nil {
		return local(err, "recording the state")
	}
	if err := m.Report.State(api.StatePublishing, p); err != nil {
		return fmt.Errorf("recording the state: %w", err)
	}
	return local(failpoint.HitAfter(point+"state"), "recording the state")
}

// place renames the stage, whose name is name, to the target, and says what the
// old copy is called if it was kept. A rename that reports an error may have
// happened: the target's inode tells.
func (r *fileSink) place(p api.Publishing, name string) (old string, err error) {
	if err := r.rename(p, name); err != nil {
		return "", err
	}
	if r.KeepOld {
		if old, err = r.keep(p, name); err != nil {
			return "", errors.Join(ErrUnsettled, err)
		}
	}
	return old, r.settle()
}

func (r *fileSink) rename(p api.Publishing, name string) (err error) {
	switch {
	case r.KeepOld:
		err = r.exchange(name)
	case r.Mode == api.ModeCreate:
		err = atomicfile.Rename(r.stages, name, r.dir, r.base, atomicfile.NoReplace, "transfer.publish.rename")
	default:
		err = atomicfile.Rename(r.stages, name, r.dir, r.base, 0, "transfer.publish.rename")
	}
	if err != nil {
		ours, ierr := r.ours(p)
		switch {
		case ierr != nil:
			return errors.Join(ErrUnsettled, err, ierr)
		case ours:
		case errors.Is(err, fs.ErrExist):
			return fail(api.Exists, err, "target %q appeared while it was copied", r.Name)
		default:
			return local(err, "publishing %q", r.Name)
		}
	}
	return nil
}

// ours says whether the target is the published file.
func (r *fileSink) ours(p api.Publishing) (bool, error) {
	id, err := identify(int(r.dir.Fd()), r.base)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && id.is(p.Ino, p.Btime, p.Size), err
}

// settle makes the rename durable. The target is published already, so a failure
// must not end as failed: a second attempt on fresh descriptors, then
// ErrUnsettled.
func (r *fileSink) settle() error {
	err := r.syncDirs()
	if err == nil {
		return nil
	}
	r.Report.Log("warn", r.Name, "syncing the folders after publishing: "+err.Error())
	fresh, base, err := openParent(r.Root, r.Name)
	if err != nil {
		return errors.Join(ErrUnsettled, err)
	}
	r.dir.Close()
	r.dir, r.base = fresh, base
	if err := r.syncDirs(); err != nil {
		return errors.Join(ErrUnsettled, err)
	}
	return nil
}

func (r *fileSink) syncDirs() error {
	if err := atomicfile.SyncFile(r.dir, "transfer.publish.targetdir"); err != nil {
		return err
	}
	return atomicfile.SyncFile(r.stages, "transfer.publish.leavedir")
}

// Recover ends a publication that a crash interrupted; p is the detail of the
// task's last state. The files are known by inode, birth time and size, never by
// name: the target is ours, then all is done but to say so; or the stage is
// ours, then it is placed; or neither, then the code is target_changed. Run must
// not be called for such a task.
func (m *Import) Recover(p api.Publishing) (api.ImportResult, error) {
	var none api.ImportResult
	if _, ok, err := readTreeStaged(m.Dir); ok || err != nil {
		if err != nil {
			return none, local(err, "recovering the tree")
		}
		return m.recoverTree(p)
	}
	r, err := m.prepare()
	if err != nil {
		return none, err
	}
	s, err := r.openFile()
	if err != nil {
		return none, err
	}
	defer s.close()
	if err := s.openStages(); err != nil {
		return none, err
	}
	ours, err := s.ours(p)
	if err != nil {
		return none, local(err, "looking at the target")
	}
	var old string
	if ours {
		old, err = s.keepAgain(p)
		if err == nil {
			err = s.settle()
		}
	} else {
		old, err = s.placeAgain(p)
	}
	if err != nil {
		return none, err
	}
	result, err := s.recorded(p)
	result.Old = old
	return result, err
}

// keepAgain ends what a crash left between the exchange and the old copy's name.
func (r *fileSink) keepAgain(p api.Publishing) (old string, err error) {
	rec, ok, err := readStaged(r.Dir)
	if !r.KeepOld || err != nil || !ok {
		return "", err
	}
	old, err = r.keep(p, rec.Name)
	return old, local(err, "keeping the old copy of %q", r.Name)
}

// placeAgain finds the stage and places it.
func (r *fileSink) placeAgain(p api.Publishing) (old string, err error) {
	names, err := stageNames(r.stages)
	if err != nil {
		return "", err
	}
	for _, name := range names {
		id, err := identify(int(r.stages.Fd()), name)
		if err == nil && id.is(p.Ino, p.Btime, p.Size) {
			return r.place(p, name)
		}
	}
	// Somebody changed what was published: the old copy is still somebody's.
	if old, err = r.keepAgain(p); err != nil {
		return "", err
	}
	return old, fail(api.TargetChanged, nil, "target %q is neither the published file nor is its stage left: somebody else changed it since", r.Name)
}

// recorded is the result as it was written before the point of no return.
func (r *fileSink) recorded(p api.Publishing) (res api.ImportResult, err error) {
	data, err := os.ReadFile(filepath.Join(r.Dir, resultRecord))
	if err == nil {
		err = json.Unmarshal(data, &res)
	}
	if err != nil || res.Digest != p.Digest {
		// The file is published all the same; its history is lost.
		r.Report.Log("warn", r.Name, "the record of the result cannot be read, only size and digest are known")
		res = api.ImportResult{Digest: p.Digest, Size: p.Size, Verified: r.Verify}
	}
	return res, nil
}
