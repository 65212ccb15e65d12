// Package atomicfile has every durable write of the project: a file that is
// either the old one or the complete new one, an append that is on disk when
// Sync returns, a rename that survives a power cut.
//
//	err := atomicfile.WriteFile(path, data, 0o600, "node.task")
//
// The system calls of a durable write, in order, on Linux:
//
//	openat(dir, ".name.RANDOM", O_CREAT|O_EXCL)  a name nobody else has
//	write, fchmod
//	fsync(file)                                 data and size before the name
//	renameat(dir, ".name.RANDOM", dir, "name")    atomic for whoever looks
//	fsync(dir)                                  the name itself
//
// A failed fsync is never repeated on the same descriptor: the kernel may have
// dropped the pages and report success the second time. Each step is a
// failpoint named after the caller's point.
//
// It is not a file abstraction: callers keep *os.File and *os.Root.
package atomicfile

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gantry/internal/failpoint"

	"golang.org/x/sys/unix"
)

// WriteFile replaces the file at path with data, durably: after a crash at any
// moment the path holds the old content or the new, never a mixture. The
// failpoints are point + .write, .sync, .rename and .dirsync. An error before
// the rename leaves the old file and no temporary one; an error after it
// ("reported failed but persisted") leaves the new one.
func WriteFile(path string, data []byte, perm os.FileMode, point string) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("creating temporary file beside %s: %w", path, err)
	}
	renamed := false
	defer func() {
		f.Close()
		if !renamed {
			os.Remove(f.Name())
		}
	}()
	if err := step(point+".write", func() error {
		if _, err := f.Write(data); err != nil {
			return err
		}
		return f.Chmod(perm)
	}); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := SyncFile(f, point+".sync"); err != nil {
		return err
	}
	if err := step(point+".rename", func() error {
		err := os.Rename(f.Name(), path)
		renamed = err == nil
		return err
	}); err != nil {
		return fmt.Errorf("renaming to %s: %w", path, err)
	}
	return SyncDir(dir, point+".dirsync")
}

// RemoveTemp removes from dir what calls of WriteFile for the given base names
// left there when their process was killed: a secret may be in it. Nobody may
// be writing these files.
func RemoveTemp(dir string, names ...string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("looking for temporary files: %w", err)
	}
	for _, e := range entries {
		if e.Type().IsRegular() && slices.ContainsFunc(names, func(n string) bool { return isTemp(e.Name(), n) }) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return fmt.Errorf("removing a temporary file: %w", err)
			}
		}
	}
	return nil
}

// isTemp: os.CreateTemp puts a decimal number in the place of WriteFile's star.
func isTemp(name, base string) bool {
	digits, ok := strings.CutPrefix(name, "."+base+".")
	return ok && digits != "" && strings.Trim(digits, "0123456789") == ""
}

// SyncFile flushes f's data and metadata to disk (fsync). point is the whole
// failpoint name.
func SyncFile(f *os.File, point string) error {
	if err := step(point, f.Sync); err != nil {
		return fmt.Errorf("syncing %s: %w", f.Name(), err)
	}
	return nil
}

// Datasync flushes f's data and what is needed to read it back (fdatasync).
func Datasync(f *os.File, point string) error {
	if err := step(point, func() error { return retry(func() error { return unix.Fdatasync(int(f.Fd())) }) }); err != nil {
		return fmt.Errorf("syncing %s: %w", f.Name(), err)
	}
	return nil
}

// SyncDir flushes a directory: the names that were created, renamed or removed
// in it before.
func SyncDir(path, point string) error {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("syncing directory: %w", err)
	}
	defer d.Close()
	return SyncFile(d, point)
}

// Flags of Rename, from renameat2(2).
const (
	NoReplace = unix.RENAME_NOREPLACE
	Exchange  = unix.RENAME_EXCHANGE
)

// Rename is renameat2 between two held directories. It is durable only after
// both directories were synced. Errors are bare system errors, so that callers
// can ask errors.Is(err, fs.ErrExist).
func Rename(oldDir *os.File, oldName string, newDir *os.File, newName string, flags uint, point string) error {
	return step(point, func() error {
		return retry(func() error {
			return unix.Renameat2(int(oldDir.Fd()), oldName, int(newDir.Fd()), newName, flags)
		})
	})
}

// step runs effect between its failpoints.
func step(point string, effect func() error) error {
	if err := failpoint.Hit(point); err != nil {
		return err
	}
	if err := effect(); err != nil {
		return err
	}
	return failpoint.HitAfter(point)
}

// retry repeats a call that a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

// SyncFS flushes everything written so far to the file system that f is on
// (syncfs). An error that the file system met since f was opened is reported:
// open f before the first write. As after a failed fsync, nothing written since
// can be trusted then.
func SyncFS(f *os.File, point string) error {
	if err := step(point, func() error { return retry(func() error { return unix.Syncfs(int(f.Fd())) }) }); err != nil {
		return fmt.Errorf("syncing the file system of %s: %w", f.Name(), err)
	}
	return nil
}
