package node

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"gantry/api"
	"gantry/internal/atomicfile"

	"github.com/go-json-experiment/json"
	"golang.org/x/sys/unix"
)

// formatVersion is the version of every file that the node keeps in its dir.
const formatVersion = 1

// Files of the node's own: in its dir, and in each task's folder.
const (
	dirName   = "dir.json"
	floorName = "floor.json"
	taskName  = "task.json"
	feedName  = "feed"
)

// dirFile is dir.json. ID is drawn once, with the folder: an unknown task under
// the same dir_id never started here.
type dirFile struct {
	V  int    `json:"v"`
	ID string `json:"dir_id"`
}

// floorFile is floor.json.
type floorFile struct {
	V     int   `json:"v"`
	Floor int64 `json:"floor"` // milliseconds since 1970
}

// A folder is the node's dir: locked, with its id and floor read.
type folder struct {
	path string
	id   string
	lock *os.File
}

// known is where what exports read of trees is remembered.
func (f *folder) known() string { return filepath.Join(f.path, "known") }

// openFolder makes or opens the folder. A second responder on the same folder
// is refused: both would run its tasks.
func openFolder(path string) (*folder, time.Time, error) {
	if err := os.MkdirAll(filepath.Join(path, "tasks"), 0o700); err != nil {
		return nil, time.Time{}, fmt.Errorf("making the node's folder: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("opening the node's folder: %w", err)
	}
	f := &folder{path: path, lock: lock}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return nil, time.Time{}, fmt.Errorf("%s is used by another responder; stop that one first", path)
	}
	var floor time.Time
	err = atomicfile.RemoveTemp(path, dirName, floorName)
	if err == nil {
		floor, err = f.read()
	}
	if err != nil {
		lock.Close()
		return nil, time.Time{}, err
	}
	return f, floor, nil
}

func (f *folder) read() (time.Time, error) {
	var id dirFile
	err := readVersioned(filepath.Join(f.path, dirName), &id, func() int { return id.V })
	if errors.Is(err, fs.ErrNotExist) {
		id = dirFile{formatVersion, randomID()}
		err = atomicfile.WriteFile(filepath.Join(f.path, dirName), api.Encode(id), 0o600, "node.dir")
	}
	if err != nil {
		return time.Time{}, err
	}
	f.id = id.ID
	var floor floorFile
	err = readVersioned(filepath.Join(f.path, floorName), &floor, func() int { return floor.V })
	if errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, nil
	}
	return time.UnixMilli(floor.Floor), err
}

// raise makes a new floor durable.
func (f *folder) raise(floor time.Time) error {
	return atomicfile.WriteFile(filepath.Join(f.path, floorName),
		api.Encode(floorFile{formatVersion, floor.UnixMilli()}), 0o600, "node.floor")
}

func (f *folder) tasks() string { return filepath.Join(f.path, "tasks") }

func (f *folder) close() error { return f.lock.Close() }

func randomID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// maxFile bounds the files that the node reads back: a request and what was
// added to it.
const maxFile = api.MaxBody + 64<<10

// readVersioned reads one of the node's own files. One of a newer format is
// refused: this version would not know what it destroys.
func readVersioned(path string, v any, version func() int) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Size() > maxFile {
		return fmt.Errorf("%s has %d bytes, at most %d are expected", path, info.Size(), maxFile)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	if got := version(); got != formatVersion {
		return fmt.Errorf("%s has format version %d, this program knows version %d; start the version that wrote it", path, got, formatVersion)
	}
	return nil
}
