package transfer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"gantry/api"
	"gantry/internal/atomicfile"

	"golang.org/x/sys/unix"
)

// Files in the task folder of an import.
const (
	stageRecord    = "stage.json"    // which file is the stage; durable before the stage is written
	pieceMap       = "pieces.map"    // slots; extended only after fdatasync of the stage
	countersRecord = "counters.json" // for the result; its loss costs nothing
	resultRecord   = "result.json"   // durable before the state publishing
)

const stageVersion = 1

// Between two extensions of the piece map lie at most this many bytes and this
// time. The map is needed only after a power cut: what a killed process wrote is
// in the page cache, and pieces that the map does not list are hashed again, not
// fetched again. Each extension waits for the disk, so it is rare.
const (
	mapBytes = 256 << 20
	mapTime  = 5 * time.Second
	// streamMapBytes is the same for a stream: a quarter of the least room that
	// its source has.
	streamMapBytes = MinSpool / 4
)

// staged is the stage record.
type staged struct {
	V       int       `json:"v"`
	Name    string    `json:"name"` // in StageDir
	Ino     uint64    `json:"ino"`
	Btime   time.Time `json:"btime"`
	Size    int64     `json:"size"`    // -1: of a stream
	Carried bool      `json:"carried"` // taken over from another task
}

// counters are what a result tells of all starts of a task.
type counters struct {
	Wire     int64   `json:"wire"`
	Attempts int64   `json:"attempts"`
	Cuts     int64   `json:"cuts"`
	Seconds  float64 `json:"seconds"`
}

func (c counters) plus(d counters) counters {
	return counters{c.Wire + d.Wire, c.Attempts + d.Attempts, c.Cuts + d.Cuts, c.Seconds + d.Seconds}
}

// readCounters reads those of earlier starts, none when there is no record or a
// crash tore it: the result tells of fewer starts.
func readCounters(dir string) (c counters) {
	if data, err := os.ReadFile(filepath.Join(dir, countersRecord)); err != nil || json.Unmarshal(data, &c) != nil {
		return counters{}
	}
	return c
}

// write keeps the counters for the next start. Neither durable nor checked, on
// purpose: they decide nothing.
func (c counters) write(dir string) {
	if data, err := json.Marshal(c); err == nil {
		_ = os.WriteFile(filepath.Join(dir, countersRecord), data, 0o600)
	}
}

// stage is the file that will be the target, and what is known of its pieces.
type stage struct {
	staged
	f       *os.File
	direct  *os.File // the same file, for writes past the page cache; or nil
	known   *slots
	resumed bool
	before  counters
	hook    func(op string) error // nil, or fails an operation for a test
	sum     func() counters
	durable func(...Entry) // nil, or told of what the map has

	cached   bool        // direct writes are not wanted
	indirect atomic.Bool // direct writes are refused
	through  sync.Mutex  // held in writes through the page cache: the kernel lets them in one by one, and burns time while they wait
	behind   *behind     // of those

	sync sync.Mutex // held while the map is extended

	mu     sync.Mutex
	fresh  []Entry // written since the map was extended
	since  time.Time
	spoilt bool // see spoil
}

// openStages opens StageDir, making it when needed, and refuses a target that
// cannot be reached from it by rename.
func (r *fileSink) openStages() error {
	root, err := r.Root.Open(".")
	if err != nil {
		return local(err, "opening the resource")
	}
	defer root.Close()
	r.stages, err = openStageDir(root, true)
	if err != nil {
		return err
	}
	from, err := identify(int(r.stages.Fd()), "")
	if err != nil {
		return local(err, "looking at %s", StageDir)
	}
	to, err := identify(int(r.dir.Fd()), "")
	if err != nil {
		return local(err, "looking at the target's folder")
	}
	if from.dev != to.dev || from.mount != to.mount {
		return fail(api.BadFileSystem, nil, "the folder of %q is on another file system than the resource", r.Name)
	}
	return nil
}

// openStageDir opens StageDir below root, which must be a folder of our own.
func openStageDir(root *os.File, create bool) (*os.File, error) {
	const how = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(int(root.Fd()), StageDir, how, 0)
	if errors.Is(err, fs.ErrNotExist) && create {
		if err := unix.Mkdirat(int(root.Fd()), StageDir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, local(err, "making %s", StageDir)
		}
		if err := atomicfile.SyncFile(root, "transfer.stage.mkdir"); err != nil {
			return nil, local(err, "making %s", StageDir)
		}
		fd, err = unix.Openat(int(root.Fd()), StageDir, how, 0)
	}
	if err != nil {
		return nil, local(err, "opening %s", StageDir)
	}
	d := os.NewFile(uintptr(fd), StageDir)
	id, err := identify(fd, "")
	if err == nil && id.uid != uint32(os.Geteuid()) {
		err = fail(api.Denied, nil, "%s belongs to uid %d", StageDir, id.uid)
	}
	if err == nil && id.mode&0o777 != 0o700 {
		err = d.Chmod(0o700)
	}
	if err != nil {
		d.Close()
		return nil, local(err, "opening %s", StageDir)
	}
	return d, nil
}

// space refuses a file that cannot fit. That it does not refuse promises
// nothing: the source may err, and others write too.
func (r *fileSink) space() error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(r.stages.Fd()), &st); err != nil {
		return local(err, "asking for space")
	}
	id, err := identify(int(r.st.f.Fd()), "")
	if err != nil {
		return local(err, "looking at the stage")
	}
	free := int64(st.Bavail) * st.Frsize
	if need := r.file.Data - id.blocks*512; need > free {
		return fail(api.NoSpace, nil, "%q needs %d bytes more, %d are free", r.Name, need, free)
	}
	return nil
}

// resume opens the recorded stage, if there is one that is still the file that
// was recorded. One of another size is removed: the source is another.
func (s *stage) resume(stages *os.File, dir string, size int64) error {
	rec, ok, err := readStaged(dir)
	if err != nil || !ok {
		return err
	}
	f, err := rec.open(stages)
	if err != nil || f == nil {
		return err
	}
	s.staged, s.f, s.resumed = rec, f, true
	if rec.Size != size {
		f.Close()
		s.f, s.resumed = nil, false
		return s.discard(stages, dir)
	}
	return nil
}

// open returns the recorded stage, nil when it is gone.
func (rec staged) open(stages *os.File) (*os.File, error) {
	fd, err := unix.Openat(int(stages.Fd()), rec.Name, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, local(err, "opening the stage")
	}
	f := os.NewFile(uintptr(fd), rec.Name)
	id, err := identify(fd, "")
	// It has no size between the record and its first truncate.
	if err == nil && (id.is(rec.Ino, rec.Btime, rec.Size) || id.is(rec.Ino, rec.Btime, 0) || rec.Size < 0 && id.is(rec.Ino, rec.Btime, id.size)) {
		return f, nil
	}
	f.Close()
	return nil, local(err, "looking at the stage")
}

// create makes an empty stage. Its last step is the record: a file without a
// record is never written to.
func (s *stage) create(stages *os.File, dir, task string, size int64, exclusive bool) error {
	name, temp := task+".stage", task+".new"
	for _, left := range []string{name, temp} {
		if err := removeEmpty(stages, left); err != nil {
			return err
		}
	}
	fd, err := unix.Openat(int(stages.Fd()), temp, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("creating the stage: %w", err)
	}
	s.f = os.NewFile(uintptr(fd), name)
	// The rename proves that the file system can do what create ends with.
	flags := uint(0)
	if exclusive {
		flags = atomicfile.NoReplace
	}
	switch err := atomicfile.Rename(stages, temp, stages, name, flags, "transfer.stage.rename"); {
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		unix.Unlinkat(int(stages.Fd()), temp, 0)
		return fail(api.BadFileSystem, err, "the file system cannot rename without replacing")
	case err != nil:
		return fmt.Errorf("naming the stage: %w", err)
	}
	if err := atomicfile.SyncFile(stages, "transfer.stage.dirsync"); err != nil {
		return err
	}
	id, err := identify(fd, "")
	if err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(dir, pieceMap)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing an old piece map: %w", err)
	}
	s.staged = staged{V: stageVersion, Name: name, Ino: id.ino, Btime: id.btime, Size: size}
	return s.record(dir)
}

// removeEmpty removes what a crash between making and recording a stage left:
// a file that has our task's name and nothing in it.
func removeEmpty(stages *os.File, name string) error {
	id, err := identify(int(stages.Fd()), name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && (!id.regular() || id.size != 0 || id.blocks != 0) {
		return fail(api.IO, nil, "%s/%s is there and no record says whose it is", StageDir, name)
	}
	if err == nil {
		err = unix.Unlinkat(int(stages.Fd()), name, 0)
	}
	return err
}

func (s *stage) record(dir string) error {
	data, err := json.Marshal(s.staged)
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(filepath.Join(dir, stageRecord), data, 0o600, "transfer.stage.record")
}

// prepare gives the stage its size and opens the piece map.
func (s *stage) prepare(dir string) error {
	if s.Size < 0 {
		// it grows
	} else if err := s.f.Truncate(s.Size); err != nil {
		return fmt.Errorf("giving the stage its size: %w", err)
	}
	if !s.cached {
		s.direct = openDirect(s.f, unix.O_WRONLY)
	}
	s.behind = openBehind(s.f)
	var err error
	if s.known, err = openSlots(filepath.Join(dir, pieceMap)); err != nil {
		return err
	}
	s.before = readCounters(dir)
	return nil
}

func readStaged(dir string) (rec staged, ok bool, err error) {
	ok, err = readStageRecord(dir, stageRecord, &rec, &rec.V)
	return rec, ok, err
}

// readStageRecord reads a record of a stage, whose version goes to v; ok is false when
// there is none.
func readStageRecord(dir, name string, rec any, v *int) (ok bool, err error) {
	data, err := os.ReadFile(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(data, rec)
	}
	if err == nil && *v != stageVersion {
		err = fmt.Errorf("version %d, this program knows %d", *v, stageVersion)
	}
	if err != nil {
		return false, fmt.Errorf("reading the record of the stage: %w", err)
	}
	return true, nil
}
