package transfer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"gantry/api"

	"golang.org/x/sys/unix"
)

// ErrNoClone says that a file could not be cloned: its file system cannot, its
// folder may not be written, or there is no room. The file itself can be read.
var ErrNoClone = errors.New("the file cannot be cloned")

// Clone makes a clone of the regular file name below root, which shares its
// blocks and does not change when it does, as StageDir/clone: btrfs, xfs and
// others can (FICLONE, ioctl_ficlone(2)). It has the file's mtime. One that is
// there is made anew. Nothing is synced: what a power cut left of it is no longer
// the file that [OpenExport] recorded. Errors: those of [OpenFile], ErrNoClone.
func Clone(root *os.Root, name, clone string) error {
	src, err := OpenFile(root, name)
	if err != nil {
		return err
	}
	defer src.Close()
	no := func(err error) error { return fmt.Errorf("%w: %w", ErrNoClone, err) }
	dir, err := root.Open(".")
	if err != nil {
		return no(err)
	}
	defer dir.Close()
	stages, err := openStageDir(dir, true)
	if err != nil {
		return no(err)
	}
	defer stages.Close()
	if err := unix.Unlinkat(int(stages.Fd()), clone, 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return no(err)
	}
	fd, err := unix.Openat(int(stages.Fd()), clone, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return no(err)
	}
	dst := os.NewFile(uintptr(fd), clone)
	defer dst.Close()
	if err := share(dst, src, stages, clone); err != nil {
		return errors.Join(no(err), unix.Unlinkat(int(stages.Fd()), clone, 0))
	}
	return nil
}

// share gives dst, which is name in dir, the blocks and the mtime of src.
func share(dst, src, dir *os.File, name string) error {
	if err := unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())); err != nil {
		return err
	}
	id, err := identify(int(src.Fd()), "")
	if err != nil {
		return err
	}
	mtime := unix.NsecToTimespec(id.mtime.UnixNano())
	return unix.UtimesNanoAt(int(dir.Fd()), name, []unix.Timespec{mtime, mtime}, unix.AT_SYMLINK_NOFOLLOW)
}

// RemoveClone removes what [Clone] made below the folder root; one that is gone
// already is no error. A root without a StageDir is one: its file system may not
// be mounted.
func RemoveClone(root *os.Root, clone string) error {
	dir, err := root.Open(".")
	if err != nil {
		return local(err, "opening the resource")
	}
	defer dir.Close()
	stages, err := openStageDir(dir, false)
	if codeOf(err) == api.NotFound {
		return fail(api.NotFound, err, "the resource has no %s any more: is its file system mounted?", StageDir)
	}
	if err != nil {
		return err
	}
	defer stages.Close()
	if err := unix.Unlinkat(int(stages.Fd()), clone, 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return local(err, "removing a clone")
	}
	return nil
}

// OpenStages opens [StageDir] below the folder root, and makes it where it is
// missing. Codes: denied (it belongs to somebody else), no_space, io.
func OpenStages(root *os.Root) (*os.File, error) {
	dir, err := root.Open(".")
	if err != nil {
		return nil, local(err, "opening the resource")
	}
	defer dir.Close()
	return openStageDir(dir, true)
}
