package transfer

import (
	"errors"
	"fmt"
	"io/fs"

	"gantry/api"
	"gantry/internal/atomicfile"

	"golang.org/x/sys/unix"
)

// OldName is the name under which a replaced file is kept, in the folder of its
// successor base, by an import with KeepOld.
func OldName(base, task string) string { return base + ".old-" + task }

// checkKeep refuses what could not end well before any byte moves: a name that is
// too long or taken, a file system that cannot exchange two names.
func (r *fileSink) checkKeep() error {
	name := OldName(r.base, r.Task)
	if len(name) > maxPart {
		return fail(api.BadPath, nil, "keep_old: the name %.80q of the old copy is longer than %d bytes; use a shorter name for the target", name, maxPart)
	}
	switch _, err := identify(int(r.dir.Fd()), name); {
	case err == nil:
		return fail(api.Exists, nil, "keep_old: %q is there already", name)
	case !errors.Is(err, fs.ErrNotExist):
		return local(err, "looking for an older copy")
	}
	return r.proveExchange()
}

// proveExchange exchanges two empty files in StageDir.
func (r *fileSink) proveExchange() error {
	a, b := r.Task+".a", r.Task+".b"
	for _, name := range []string{a, b} {
		if err := removeEmpty(r.stages, name); err != nil { // of a crash
			return local(err, "trying the file system")
		}
		fd, err := unix.Openat(int(r.stages.Fd()), name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return local(err, "trying the file system")
		}
		unix.Close(fd)
	}
	err := unix.Renameat2(int(r.stages.Fd()), a, int(r.stages.Fd()), b, unix.RENAME_EXCHANGE)
	for _, name := range []string{a, b} {
		err = errors.Join(err, removeEmpty(r.stages, name))
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		return fail(api.BadFileSystem, err, "the file system cannot exchange two names")
	}
	return local(err, "trying the file system")
}

// exchange puts the stage, whose name is name, and the target in each other's
// place. A target that vanished meanwhile is no reason to fail; then there is
// nothing to keep.
func (r *fileSink) exchange(name string) (err error) {
	for range 3 { // it may come and go
		err = atomicfile.Rename(r.stages, name, r.dir, r.base, atomicfile.Exchange, "transfer.keep.exchange")
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		err = atomicfile.Rename(r.stages, name, r.dir, r.base, atomicfile.NoReplace, "transfer.publish.rename")
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return err
}

// keep gives the old copy its name. After the exchange it has the stage's, in a
// folder that nobody else writes to: whatever has that name and is not what was
// published is the old copy. Doing it again is no error. It returns the name,
// "" when there is nothing to keep.
func (r *fileSink) keep(p api.Publishing, name string) (old string, err error) {
	id, err := identify(int(r.stages.Fd()), name)
	if errors.Is(err, fs.ErrNotExist) {
		return r.kept(), nil
	}
	if err != nil {
		return "", fmt.Errorf("looking at the old copy: %w", err)
	}
	if id.ino == p.Ino && id.btime.Equal(p.Btime) {
		return "", fmt.Errorf("the stage is not published")
	}
	// The name was free before; who took it since keeps it.
	for i := range 100 {
		old = OldName(r.base, r.Task)
		if i > 0 {
			old = fmt.Sprintf("%s.%d", old, i)
		}
		err = atomicfile.Rename(r.stages, name, r.dir, old, atomicfile.NoReplace, "transfer.keep.rename")
		if err == nil || !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	if err != nil {
		if _, lerr := identify(int(r.stages.Fd()), name); errors.Is(lerr, fs.ErrNotExist) {
			return r.kept(), nil // it reported an error and happened
		}
		return "", fmt.Errorf("naming the old copy: %w", err)
	}
	return old, nil
}

// kept is the name of the old copy if it is there.
func (r *fileSink) kept() string {
	name := OldName(r.base, r.Task)
	if _, err := identify(int(r.dir.Fd()), name); err != nil {
		return ""
	}
	return name
}
