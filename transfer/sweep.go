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

// HasStage says whether the task folder dir records a stage.
func HasStage(dir string) (bool, error) {
	if _, ok, err := readTreeStaged(dir); ok || err != nil {
		return ok, err
	}
	_, ok, err := readStaged(dir)
	return ok, err
}

// Discard removes the stage of an import that ended without being published, and
// its records. Only Root and Dir are needed. Doing it twice is no error.
func (m *Import) Discard() error {
	if rec, ok, err := readTreeStaged(m.Dir); ok || err != nil {
		if err != nil {
			return local(err, "discarding the stage")
		}
		return m.discardTree(rec)
	}
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
	taken, err := HasStage(to)
	if err != nil {
		return false, err
	}
	if taken { // before a restart
		return true, dropTaken(from, to)
	}
	if ok, err := takeOverTree(from, to); ok || err != nil {
		return ok, err
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

// dropTaken removes the record of a stage that has another one in to: a crash
// came between the two. The old task would have the stage removed under the new.
func dropTaken(from, to string) (err error) {
	oldTree, tree, err1 := readTreeStaged(from)
	newTree, _, err2 := readTreeStaged(to)
	oldFile, file, err3 := readStaged(from)
	newFile, _, err4 := readStaged(to)
	if err = errors.Join(err1, err2, err3, err4); err == nil {
		switch {
		case tree && oldTree.Name == newTree.Name:
			err = os.Remove(filepath.Join(from, treeStageFile))
		case file && oldFile.Name == newFile.Name:
			err = os.Remove(filepath.Join(from, stageRecord))
		}
	}
	if err != nil {
		return fmt.Errorf("removing the old stage record: %w", err)
	}
	return nil
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
