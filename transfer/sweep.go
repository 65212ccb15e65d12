package transfer

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"gantry/api"
	"gantry/internal/atomicfile"

	"golang.org/x/sys/unix"
)

// maxStages bounds how many names of StageDir are read: far more than a node
// has tasks.
const maxStages = 1 << 16

// ReadStage returns the stage recorded in the task folder dir; ok is false when
// there is none.
func ReadStage(dir string) (id StageID, ok bool, err error) {
	rec, ok, err := readStaged(dir)
	return StageID{Ino: rec.Ino, Btime: rec.Btime}, ok, err
}

// Discard removes the stage of an import that ended without being published, and
// its records. Only Root and Dir are needed. Doing it twice is no error.
func (m *Import) Discard() error {
	rec, ok, err := readStaged(m.Dir)
	if err != nil || !ok {
		return local(err, "discarding the stage")
	}
	root, err := m.Root.Open(".")
	if err != nil {
		return local(err, "opening the resource")
	}
	defer root.Close()
	stages, err := openStageDir(root, false)
	if codeOf(err) == api.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	defer stages.Close()
	s := stage{staged: rec}
	return s.discard(stages, m.Dir)
}

// TakeOver gives the stage of an ended task to a new one, whose folder is to and
// has no stage yet: the next Run with Dir to resumes it, and what it holds counts
// as carried. The caller sees to it that both tasks have the same caller and
// target and that the old one never runs again. ok is false when there is
// nothing to take over.
func TakeOver(from, to string) (ok bool, err error) {
	if _, taken, err := readStaged(to); err != nil || taken {
		return taken, err // taken over before a restart
	}
	rec, ok, err := readStaged(from)
	if err != nil || !ok {
		return false, err
	}
	// The map first: a map without a stage record is dropped, a record without
	// its map would hash everything.
	if err := copyMap(filepath.Join(from, pieceMap), filepath.Join(to, pieceMap)); err != nil {
		return false, err
	}
	rec.Carried = true
	s := stage{staged: rec}
	if err := s.record(to); err != nil {
		return false, err
	}
	if err := os.Remove(filepath.Join(from, stageRecord)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("removing the old stage record: %w", err)
	}
	return true, nil
}

func copyMap(from, to string) error {
	in, err := os.Open(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("copying the piece map: %w", err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("copying the piece map: %w", err)
	}
	defer out.Close()
	if _, err := io.Copy(out, in); err != nil {
		return fmt.Errorf("copying the piece map: %w", err)
	}
	return atomicfile.SyncFile(out, "transfer.takeover.map")
}

// Sweep removes the stages below root for which orphan returns true, and returns
// how many it removed. orphan must say false for every file that is not recorded
// as a stage by a task that has ended for good: Sweep itself trusts no names.
func Sweep(root *os.Root, orphan func(StageID) bool) (removed int, err error) {
	dir, err := root.Open(".")
	if err != nil {
		return 0, local(err, "opening the resource")
	}
	defer dir.Close()
	stages, err := openStageDir(dir, false)
	if err != nil {
		if codeOf(err) == api.NotFound {
			return 0, nil
		}
		return 0, err
	}
	defer stages.Close()
	names, err := stageNames(stages)
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		id, err := identify(int(stages.Fd()), name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return removed, local(err, "looking at a stage")
		}
		if !id.regular() || !orphan(StageID{Ino: id.ino, Btime: id.btime}) {
			continue
		}
		if err := unix.Unlinkat(int(stages.Fd()), name, 0); err != nil {
			return removed, local(err, "removing a stage")
		}
		removed++
	}
	return removed, nil
}

// stageNames lists StageDir.
func stageNames(stages *os.File) ([]string, error) {
	// A second descriptor: reading a directory moves its offset.
	fd, err := unix.Openat(int(stages.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, local(err, "reading %s", StageDir)
	}
	d := os.NewFile(uintptr(fd), StageDir)
	defer d.Close()
	names, err := d.Readdirnames(maxStages)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, local(err, "reading %s", StageDir)
	}
	return names, nil
}
