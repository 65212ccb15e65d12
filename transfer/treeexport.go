package transfer

import (
	"context"
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

// TreeOptions say what belongs to a tree.
type TreeOptions struct {
	Cross    bool     `json:"cross,omitzero"`    // other file systems below it belong to it
	Special  bool     `json:"special,omitzero"`  // devices, fifos and sockets do
	Xattrs   string   `json:"xattrs,omitzero"`   // XattrsNone (also ""), XattrsUser or XattrsAll
	Filter   []string `json:"filter,omitzero"`   // rules for [ParseFilter]
	Checksum bool     `json:"checksum,omitzero"` // every file is read, whatever is known of it
	// Known is where what was read is remembered for the next export: the
	// beginning of two files' names, "" for none.
	Known string `json:"known,omitzero"`
}

// treeVersionDisk is the format of the files in a task's folder.
const treeVersionDisk = 1

// treeRecord is the state of the root when it was first opened, and the end.
type treeRecord struct {
	V       int         `json:"v"`
	Ino     uint64      `json:"ino"`
	Btime   time.Time   `json:"btime"`
	Options TreeOptions `json:"options"`
	Ended   bool        `json:"ended,omitzero"` // all lines are in the spool
	Same    *sameTree   `json:"same,omitzero"`  // its reader has them; void once there are lines
}

// TreeExport is a directory that is exported with what is in it. Its methods may be called
// concurrently. One walk finds the entries in path order, goroutines hash the files that
// it finds, and the lines are spooled in order, not further than a reader asked for.
type TreeExport struct {
	name    string
	dir     string // of the task
	root    *os.File
	top     identity
	record  treeRecord
	filter  *Filter
	spool   *treeSpool
	links   *links
	item    Counter
	carried atomic.Int64 // bytes
	kept    treeSmall
	stop    context.CancelFunc
	ctx     context.Context // ends at Close
	work    sync.WaitGroup

	mu       sync.Mutex
	lines    int64 // in the spool
	bytes    int64 // their length
	size     int64 // content that they describe
	files    int64 // records
	marks    []int64
	taken    int64      // lines that are written or about to be
	want     int64      // the hashing goes on up to this line
	inflight int64      // jobs that are planned and have no line yet
	scanned  TreeHeader // Size and Entries are an estimate
	ended    bool
	digest   string
	last     treeLine      // when ended
	begun    bool          // the walk
	err      error         // sticky
	news     chan struct{} // closed and replaced when a reader may go on
	room     chan struct{} // closed when the walk may go on; nil while it does not wait
}

var _ Exporter = (*TreeExport)(nil)

// OpenTree opens the directory name below root, "" for root itself. No symbolic link is
// followed below it. Lines are spooled in the folder dir, which is the task's own; when it
// holds the spool of an earlier run, that is gone on with. Codes: bad_path,
// not_found, not_regular (it is no directory), denied, io, source_changed.
func OpenTree(root *os.Root, name, dir string, o TreeOptions, r Reporter) (*TreeExport, error) {
	f, err := openTop(root, name)
	if err != nil {
		return nil, err
	}
	x := &TreeExport{name: name, dir: dir, root: f, news: make(chan struct{})}
	if x.top, err = identify(int(f.Fd()), ""); err == nil {
		err = x.open(o)
	}
	if err != nil {
		return nil, errors.Join(local(err, "opening the export of %q", name), x.release())
	}
	x.ctx, x.stop = context.WithCancel(context.Background())
	x.item = r.Progress(name, "hash", "bytes", -1)
	x.item.Add(x.size)
	return x, nil
}

// begin starts the walk, when its first lines are asked for. mu is held.
func (x *TreeExport) begin() {
	if x.begun || x.ended || x.ctx.Err() != nil {
		return
	}
	x.begun, x.record.Same = true, nil
	x.work.Go(x.scan)
	x.work.Go(x.run)
}

// openTop opens the top directory of a tree.
func openTop(root *os.Root, name string) (*os.File, error) {
	if name == "" {
		f, err := root.OpenFile(".", os.O_RDONLY|unix.O_DIRECTORY, 0)
		return f, local(err, "opening the resource's root")
	}
	d, base, err := openParent(root, name)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	fd, err := openat(int(d.Fd()), base, unix.O_RDONLY|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil, fail(api.NotRegular, err, "%q is not a directory", name)
	}
	if err != nil {
		return nil, local(err, "opening %q", name)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// open compares the root with an earlier run and takes over its spool, or records
// the root.
func (x *TreeExport) open(o TreeOptions) error {
	path := filepath.Join(x.dir, treeRecordFile)
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		for _, name := range []string{treeLinesFile, treeFilesFile} { // a spool without its record is not sound
			if err := os.Remove(filepath.Join(x.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("removing a spool without a record: %w", err)
			}
		}
		x.record = treeRecord{V: treeVersionDisk, Ino: x.top.ino, Btime: x.top.btime, Options: o}
		err = x.save("tree.record")
	case err == nil:
		err = json.Unmarshal(data, &x.record)
	}
	if err != nil {
		return fmt.Errorf("record of the source: %w", err)
	}
	if r := x.record; r.V != treeVersionDisk {
		return fmt.Errorf("record of the source has version %d, this program knows %d", r.V, treeVersionDisk)
	}
	if r := x.record; r.Ino != x.top.ino || !r.Btime.Equal(x.top.btime) {
		return fail(api.SourceChanged, nil, "the directory was replaced by another")
	}
	if x.filter, err = ParseFilter(x.record.Options.Filter); err != nil {
		return err
	}
	return x.load()
}

func (x *TreeExport) save(point string) error {
	data, err := json.Marshal(x.record)
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(filepath.Join(x.dir, treeRecordFile), data, 0o600, point)
}

// load takes over the spool of an earlier run.
func (x *TreeExport) load() error {
	var err error
	if x.links, err = openLinks(filepath.Join(x.dir, treeLinksFile)); err != nil {
		return err
	}
	if x.spool, err = openTreeSpool(x.dir); err != nil {
		return err
	}
	err = x.spool.load(func(r fileRecord, dropped bool) error {
		value := r.off + 1
		if dropped {
			value = 0
		}
		if !r.linked {
			return nil
		}
		return x.links.put(r.id.dev, r.id.ino, value)
	})
	if err != nil {
		return err
	}
	if x.spool.c.Next > 0 {
		x.record.Same = nil
	}
	if x.publish(); x.record.Ended {
		x.finish()
	}
	return nil
}

// publish lets the readers see what is in the spool.
func (x *TreeExport) publish() {
	x.mu.Lock()
	defer x.mu.Unlock()
	s := x.spool
	x.lines, x.taken, x.bytes, x.files, x.marks = s.c.Next, s.c.Next, s.wrote, s.count, s.marks
	x.size = s.c.At
	x.tell()
}

// finish lets the readers see the end.
func (x *TreeExport) finish() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.ended, x.digest, x.last = true, x.spool.c.Digest(), treeEndLine(&x.spool.c)
	x.tell()
}

// tell wakes everybody who waits for news. mu is held.
func (x *TreeExport) tell() {
	close(x.news)
	x.news = make(chan struct{})
	x.freed()
}

// freed wakes the walk when it waits for readers. mu is held.
func (x *TreeExport) freed() {
	if x.room != nil {
		close(x.room)
		x.room = nil
	}
}

// scan estimates what the walk will find, for the first line of each window.
func (x *TreeExport) scan() {
	if k := x.openIndex(); k != nil { // what it was is near enough
		defer k.close()
		x.estimate(TreeHeader{Size: k.head.Size, Entries: k.head.total()})
		x.item.SetTotal(k.head.Size)
		return
	}
	w := &walker{below: below{root: int(x.root.Fd())}, cross: x.record.Options.Cross, filter: x.filter, top: x.top, buf: make([]byte, 64<<10)}
	defer w.close()
	var h TreeHeader
	err := w.count("", func(size int64) error {
		h.Entries++
		h.Size = min(h.Size+size, MaxSize)
		if h.Entries%4096 == 0 {
			x.estimate(h)
		}
		return x.ctx.Err()
	})
	x.estimate(h)
	if err == nil {
		x.item.SetTotal(h.Size)
	}
}

func (x *TreeExport) estimate(h TreeHeader) {
	x.mu.Lock()
	x.scanned = h
	x.mu.Unlock()
}

// header is the first line of a window.
func (x *TreeExport) header() treeLine {
	o := x.record.Options
	x.mu.Lock()
	defer x.mu.Unlock()
	h := TreeHeader{Size: max(x.size, x.scanned.Size), Entries: min(x.scanned.Entries, MaxTreeEntries), Exact: x.ended, Filter: o.Filter}
	if x.ended {
		h.Size, h.Entries = *x.last.Size, *x.last.Entries
	}
	st, err := statx(int(x.root.Fd()), "")
	if err == nil {
		h.Root = attrsOf(&st)
	}
	h.Root.Xattrs, _ = readXattrs(int(x.root.Fd()), ".", o.Xattrs)
	return treeHeaderLine(h)
}

// Size is the length of the content: all files one after the other. -1 until
// all are hashed.
func (x *TreeExport) Size() int64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.ended:
		return x.size
	case x.record.Same != nil:
		return x.record.Same.Size
	}
	return -1
}

// Digest is that of the tree, "" until all files are hashed.
func (x *TreeExport) Digest() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.record.Same != nil {
		return x.record.Same.Digest
	}
	return x.digest
}

// Check fails when the tree cannot be read any more. A file that changed fails by itself, when
// its content is asked for.
func (x *TreeExport) Check() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.err != nil {
		return x.err
	}
	st, err := statx(int(x.root.Fd()), "")
	if err == nil && st.Nlink == 0 {
		return fail(api.SourceChanged, nil, "the directory was removed")
	}
	return local(err, "looking at the directory")
}

// TreeTotal is what a whole tree has.
type TreeTotal struct{ Entries, Skipped int64 }

// Hash walks and hashes everything, and waits for it.
func (x *TreeExport) Hash(ctx context.Context) (TreeTotal, error) {
	if err := x.reach(ctx, 1<<62, 1<<62, func() error { return nil }); err != nil {
		return TreeTotal{}, err
	}
	return TreeTotal{Entries: *x.last.Entries, Skipped: *x.last.Skipped}, nil
}

// Close ends hashing, waits for it and releases the tree. The spool stays.
func (x *TreeExport) Close() error {
	x.mu.Lock()
	x.stop()
	x.mu.Unlock()
	x.work.Wait()
	x.item.End()
	return x.release()
}

// release closes what was opened.
func (x *TreeExport) release() error {
	errs := []error{x.root.Close()}
	x.kept.drop()
	if x.spool != nil {
		x.spool.index.drop()
	}
	if x.links != nil {
		errs = append(errs, x.links.close())
	}
	if x.spool != nil {
		errs = append(errs, x.spool.close())
	}
	return errors.Join(errs...)
}
