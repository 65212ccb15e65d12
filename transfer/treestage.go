package transfer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"gantry/api"
	"gantry/internal/atomicfile"

	"golang.org/x/sys/unix"
)

// Files in the task folder of an import of a tree, beside resultRecord.
const (
	treeStageFile = "tree.json"  // which directory is the stage; durable before anything is in it
	treeLines     = "tree.lines" // the numbered lines of the manifest, as they came
	treeLate      = "tree.late"  // those of them that are done last: see treeImport.late
	// treeIndexFile is there, too, while an index is made.
	treeKept = "tree.kept" // which old files were kept, and what they looked like: see kept
)

// Directories in the stage of a tree.
const (
	stageNew  = "new"  // the tree; after an exchange the old one
	stageGone = "gone" // what stood in the way of an entry at the resource's root
)

// treeStaged is the stage record of a tree.
type treeStaged struct {
	V     int       `json:"v"`
	Name  string    `json:"name"` // in StageDir
	Ino   uint64    `json:"ino"`
	Btime time.Time `json:"btime"`
	// Carried: taken over from another task.
	Carried bool `json:"carried,omitzero"`

	// Set before the point of no return.
	NewIno   uint64    `json:"new_ino,omitzero"` // of the tree
	NewBtime time.Time `json:"new_btime,omitzero"`
	OldIno   uint64    `json:"old_ino,omitzero"` // of the tree that it replaces
	OldBtime time.Time `json:"old_btime,omitzero"`
	Mode     uint32    `json:"mode,omitzero"`   // of its top directory
	Delete   bool      `json:"delete,omitzero"` // at the root: what the source does not have
	Filter   []string  `json:"filter,omitzero"` // and of it what these rules exclude stays
	Before   time.Time `json:"before,omitzero"` // a file that was changed since is of this time or later
	// Settled: published, and the old copy may go.
	Settled bool `json:"settled,omitzero"`
}

func readTreeStaged(dir string) (rec treeStaged, ok bool, err error) {
	ok, err = readStageRecord(dir, treeStageFile, &rec, &rec.V)
	return rec, ok, err
}

func (rec *treeStaged) write(dir string) error {
	data, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(filepath.Join(dir, treeStageFile), data, 0o600, "treein.record")
}

// open returns the recorded stage, nil when it is gone.
func (rec *treeStaged) open(stages *os.File) (*os.File, error) {
	d, err := openDirAt(int(stages.Fd()), rec.Name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, local(err, "opening the stage")
	}
	id, err := identify(int(d.Fd()), "")
	if err == nil && id.ino == rec.Ino && id.btime.Equal(rec.Btime) {
		return d, nil
	}
	d.Close()
	return nil, local(err, "looking at the stage")
}

// openDirAt opens a directory for everything, its content included.
func openDirAt(dir int, name string) (*os.File, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// createTreeStage makes an empty stage. A directory without a record is never
// used.
func createTreeStage(stages *os.File, dir, task string) (rec treeStaged, d *os.File, err error) {
	name := task + ".stage"
	at := int(stages.Fd())
	// What a crash before the record left is empty.
	if err := unix.Unlinkat(at, name, unix.AT_REMOVEDIR); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return rec, nil, fail(api.IO, err, "%s/%s is there and no record says whose it is", StageDir, name)
	}
	if err := unix.Mkdirat(at, name, 0o700); err != nil {
		return rec, nil, local(err, "making the stage")
	}
	if err := atomicfile.SyncFile(stages, "treein.stagedir"); err != nil {
		return rec, nil, local(err, "making the stage")
	}
	if d, err = openDirAt(at, name); err != nil {
		return rec, nil, local(err, "opening the stage")
	}
	// Default access control lists of the resource would be inherited.
	if err := unix.Fremovexattr(int(d.Fd()), "system.posix_acl_default"); err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.EOPNOTSUPP) {
		d.Close()
		return rec, nil, local(err, "making the stage")
	}
	id, err := identify(int(d.Fd()), "")
	if err == nil {
		rec = treeStaged{V: stageVersion, Name: name, Ino: id.ino, Btime: id.btime}
		err = rec.write(dir)
	}
	if err != nil {
		d.Close()
		return rec, nil, local(err, "recording the stage")
	}
	return rec, d, nil
}

// maxHeldDirs is how many directories of a tree are held open at once, of those
// that nobody works in.
const maxHeldDirs = 64

// A dirTree opens the directories of a tree from its held top, part by part and
// never through a symbolic link, and keeps the last ones open. Safe for
// concurrent use.
type dirTree struct {
	top *os.File

	mu   sync.Mutex
	open map[string]*heldDir
	tick int64
}

type heldDir struct {
	fd    int
	users int
	used  int64
}

func newDirTree(top *os.File) *dirTree { return &dirTree{top: top, open: map[string]*heldDir{}} }

// in opens the directory of a path of the tree and returns it with the last part
// of the path. done must be called.
func (t *dirTree) in(p string) (fd int, name string, done func(), err error) {
	dir, name := path.Split(p)
	fd, done, err = t.dir(strings.TrimSuffix(dir, "/"))
	return fd, name, done, err
}

// dir opens a directory of the tree, "" is its top. done must be called.
func (t *dirTree) dir(p string) (fd int, done func(), err error) {
	if p == "" {
		return int(t.top.Fd()), func() {}, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	h, err := t.walk(p)
	if err != nil {
		return -1, nil, err
	}
	h.users++
	return h.fd, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		h.users--
	}, nil
}

// walk goes down from the nearest directory that is open. mu is held.
func (t *dirTree) walk(p string) (*heldDir, error) {
	at, from := int(t.top.Fd()), 0
	for end := len(p); end > 0; end = max(0, strings.LastIndexByte(p[:end], '/')) {
		if h := t.open[p[:end]]; h != nil {
			t.tick++
			h.used = t.tick
			if end == len(p) {
				return h, nil
			}
			at, from = h.fd, end+1
			break
		}
	}
	var h *heldDir
	for from <= len(p) {
		end := strings.IndexByte(p[from:], '/')
		if end < 0 {
			end = len(p) - from
		}
		end += from
		fd, err := unix.Openat(at, p[from:end], unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		t.evict()
		t.tick++
		h = &heldDir{fd: fd, used: t.tick} // the youngest: the next one does not evict it
		t.open[p[:end]] = h
		at, from = fd, end+1
	}
	return h, nil
}

// evict closes the directory that was not used for the longest time, of those
// that nobody works in. mu is held.
func (t *dirTree) evict() {
	if len(t.open) < maxHeldDirs {
		return
	}
	oldest := ""
	for p, h := range t.open {
		if h.users == 0 && (oldest == "" || h.used < t.open[oldest].used) {
			oldest = p
		}
	}
	if oldest != "" {
		unix.Close(t.open[oldest].fd)
		delete(t.open, oldest)
	}
}

// forget closes what nobody works in.
func (t *dirTree) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for p, h := range t.open {
		if h.users == 0 {
			unix.Close(h.fd)
			delete(t.open, p)
		}
	}
}

func (t *dirTree) close() {
	t.forget()
	t.top.Close()
}

// isLink says that a part of a path turned out to be no directory, or a link.
func isLink(err error) bool {
	return errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.ENOTDIR)
}

// removeChunk is how many names of a directory are read at once, maxDepth how
// deep a tree that is removed or carried may be: deeper than any path that an
// import makes.
const (
	removeChunk = 128
	maxDepth    = api.MaxPath
)

// A remover removes what is below a held directory. It follows no link, leaves
// no file system, and stops with errMore when its budget is spent.
type remover struct {
	budget int // entries
	hook   func(op string) error
}

var errMore = errors.New("more is left to remove")

// remove removes name in dir, and what is in it.
func (x *remover) remove(dir int, name string) error {
	id, err := identify(dir, "")
	if err != nil {
		return err
	}
	return x.entry(dir, name, id.mount, 0)
}

func (x *remover) entry(dir int, name string, mount uint64, depth int) error {
	if x.budget--; x.budget < 0 {
		return errMore
	}
	if x.hook != nil {
		if err := x.hook("remove"); err != nil {
			return err
		}
	}
	err := unix.Unlinkat(dir, name, 0)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if !errors.Is(err, syscall.EISDIR) && !errors.Is(err, syscall.EPERM) {
		return err
	}
	id, ierr := identify(dir, name)
	switch {
	case ierr != nil:
		return ierr
	case id.mode&unix.S_IFMT != unix.S_IFDIR:
		return err
	case id.mount != mount:
		return fail(api.BadFileSystem, nil, "a file system is mounted at %.300q", name)
	case depth > maxDepth:
		return fail(api.BadFileSystem, nil, "%.300q lies deeper than %d directories", name, maxDepth)
	}
	if err := x.content(dir, name, id, depth); err != nil {
		return err
	}
	return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
}

// content empties a directory.
func (x *remover) content(dir int, name string, id identity, depth int) error {
	if id.mode&0o700 != 0o700 { // ours, and closed to ourselves
		if err := unix.Fchmodat(dir, name, 0o700, unix.AT_SYMLINK_NOFOLLOW); err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSYS) {
			return err
		}
	}
	d, err := openDirAt(dir, name)
	if err != nil {
		return err
	}
	defer d.Close()
	if is, err := identify(int(d.Fd()), ""); err != nil || is.ino != id.ino || is.mount != id.mount {
		return errors.Join(err, fail(api.TargetChanged, nil, "%.300q was swapped while it was removed", name))
	}
	for {
		// From the start each time: what was read is gone.
		if _, err := d.Seek(0, io.SeekStart); err != nil {
			return err
		}
		names, err := d.Readdirnames(removeChunk)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, n := range names {
			if err := x.entry(int(d.Fd()), n, id.mount, depth+1); err != nil {
				return err
			}
		}
	}
}

// discardStep is how many entries of a stage one Discard removes.
const discardStep = 50_000

// discardTree removes the stage of a tree and its records; see Discard. It
// returns errMore when it has done a step and more is left.
func (m *Import) discardTree(rec treeStaged) error {
	root, err := m.Root.Open(".")
	if err != nil {
		return local(err, "opening the resource")
	}
	defer root.Close()
	stages, err := openStageDir(root, false)
	if err != nil {
		if codeOf(err) != api.NotFound {
			return err
		}
		return removeTreeRecords(m.Dir)
	}
	defer stages.Close()
	if err := rec.remove(stages, m.step); err != nil {
		return err
	}
	return removeTreeRecords(m.Dir)
}

// remove removes the stage, unless it holds the only copy of an old tree.
func (rec *treeStaged) remove(stages *os.File, step int) error {
	d, err := rec.open(stages)
	if err != nil || d == nil {
		return err
	}
	holds, err := rec.holdsOld(d)
	d.Close()
	if err != nil {
		return err
	}
	if holds {
		return fail(api.TargetChanged, nil, "%s/%s/%s is the old copy of the target: move it to a safe place", StageDir, rec.Name, stageNew)
	}
	if step == 0 {
		step = discardStep
	}
	x := remover{budget: step}
	return local(x.remove(int(stages.Fd()), rec.Name), "removing the stage")
}

func removeTreeRecords(dir string) error {
	for _, name := range []string{treeLines, treeLate, treeKept, treeIndexFile, countersRecord, resultRecord, treeStageFile} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return local(err, "removing the records of the stage")
		}
	}
	return nil
}

// takeOverTree is TakeOver for the stage of a tree. What it holds is proved again.
func takeOverTree(from, to string) (bool, error) {
	rec, ok, err := readTreeStaged(from)
	if err != nil || !ok {
		return false, err
	}
	rec.Carried = true
	if err := rec.write(to); err != nil {
		return false, err
	}
	if err := os.Remove(filepath.Join(from, treeStageFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("removing the old stage record: %w", err)
	}
	return true, nil
}
