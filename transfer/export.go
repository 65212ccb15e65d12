package transfer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"gantry/api"
	"gantry/feedback"
	"gantry/internal/atomicfile"
)

// Files in the task folder of an export.
const (
	exportRecord = "export.json"
	exportSpool  = "manifest.spool"
)

// exportVersion is the format of both files.
const exportVersion = 1

// exported is the source's state when it was first opened.
type exported struct {
	V     int       `json:"v"`
	Dev   uint64    `json:"dev"`
	Ino   uint64    `json:"ino"`
	Btime time.Time `json:"btime"`
	MTime time.Time `json:"mtime"`
	CTime time.Time `json:"ctime"`
	Size  int64     `json:"size"`
	// Settled says that the file was written last so long before it was opened
	// that no later write can leave its times as they are.
	Settled bool `json:"settled,omitzero"`
	Carried bool `json:"carried,omitzero"` // the values are those of an earlier task
}

// Export is a regular file held open for reading. Its methods may be called
// concurrently. One hashing runs at a time: windows that ask for the same
// pieces share it.
type Export struct {
	src   *source
	root  *os.Root // nil of a device
	name  string
	spool *slots
	// recheck hashes again what an earlier run has spooled: nothing else tells
	// whether the source is still in the same state.
	recheck bool
	item    Counter
	more    ExportOptions
	log     Reporter
	was     exported // when it was first opened
	stop    context.CancelFunc
	ctx     context.Context // ends at Close
	work    sync.WaitGroup  // the hashing

	mu      sync.Mutex
	hashed  int64 // pieces before it are in the spool
	want    int64 // the hashing goes on up to here
	running bool
	tree    Tree          // of the pieces before hashed
	digest  string        // when all are hashed
	err     error         // sticky: the source changed or cannot be read
	news    chan struct{} // closed and replaced when something above changes
}

// OpenExport opens the regular file name below root. Entries are spooled in the
// folder dir, which is the task's own, so that neither a second request nor a
// restart reads the file again. When dir holds the spool of an earlier run, the
// file must still be in the same state. Codes: those of [OpenFile],
// source_changed.
func OpenExport(root *os.Root, name, dir string, r Reporter) (*Export, error) {
	return ExportOptions{}.Open(root, name, dir, r)
}

// ExportOptions are what an export may do beside reading; the zero value is
// [OpenExport].
type ExportOptions struct {
	Cache *Cache // keeps the values; nil: none
	// TrustMTime believes the cache's values instead of reading the file, when
	// its state is the one that they were recorded in.
	TrustMTime bool
}

// Open is [OpenExport] with options.
func (o ExportOptions) Open(root *os.Root, name, dir string, r Reporter) (*Export, error) {
	f, err := OpenFile(root, name)
	if err != nil {
		return nil, err
	}
	src, err := newSource(f)
	if err == nil && src.id.size > MaxSize {
		err = fail(api.NotRegular, nil, "%q has %d bytes, more than %d", name, src.id.size, int64(MaxSize))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return newExport(&Export{root: root, name: name, src: src, more: o}, dir, r)
}

// newExport begins or takes up the export of x.src, which it closes if it cannot.
func newExport(x *Export, dir string, r Reporter) (*Export, error) {
	x.news, x.log = make(chan struct{}), r
	if err := x.open(dir); err != nil {
		x.src.f.Close()
		if x.spool != nil {
			x.spool.close()
		}
		return nil, local(err, "opening the export of %q", x.name)
	}
	x.ctx, x.stop = context.WithCancel(context.Background())
	x.item = r.Progress(x.name, "hash", "bytes", x.src.id.size)
	x.item.Add(min(x.hashed*PieceSize, x.src.id.size))
	x.item.Explain(x.why)
	return x, nil
}

// open compares the source with an earlier run and takes over its spool, or
// records the source.
func (x *Export) open(dir string) error {
	if x.src.device {
		// No time of a device says when it was written. This one stays the same
		// for the whole export.
		x.src.id.mtime = time.Now().UTC().Round(0)
	}
	id := x.src.id
	now := exported{V: exportVersion, Dev: id.dev, Ino: id.ino, Btime: id.btime, MTime: id.mtime, CTime: id.ctime, Size: id.size}
	now.Settled = x.more.Cache.settled(id.mtime, id.ctime)
	path := filepath.Join(dir, exportRecord)
	data, err := os.ReadFile(path)
	fresh := errors.Is(err, fs.ErrNotExist)
	if err != nil && !fresh {
		return fmt.Errorf("reading the record of the source: %w", err)
	}
	var known *slots
	if fresh {
		if known = x.known(); known != nil {
			defer known.close()
			now.Carried = true
		}
		// The spool first: a record without its spool is sound, a spool without
		// its record is not.
		if err := os.Remove(filepath.Join(dir, exportSpool)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing a spool without a record: %w", err)
		}
		if data, err = json.Marshal(now); err != nil {
			return err
		}
		if err := atomicfile.WriteFile(path, data, 0o600, "transfer.export"); err != nil {
			return err
		}
	}
	if x.spool, err = openSlots(filepath.Join(dir, exportSpool)); err != nil {
		return err
	}
	if x.was = now; fresh {
		return x.believe(known)
	}
	var old exported
	if err := json.Unmarshal(data, &old); err != nil {
		return fmt.Errorf("reading the record of the source: %w", err)
	}
	if old.V != exportVersion {
		return fmt.Errorf("record of the source has version %d, this program knows %d", old.V, exportVersion)
	}
	x.was = old
	if x.src.device {
		if err := x.sameDevice(old); err != nil || x.recheck {
			return err
		}
		return x.load()
	}
	was := identity{dev: old.Dev, ino: old.Ino, btime: old.Btime, mtime: old.MTime, ctime: old.CTime, size: old.Size}
	if was.ino == id.ino && was.btime.Equal(id.btime) {
		was.dev = id.dev // may have another number since the machine restarted
	}
	if err := was.same(id); err != nil {
		return err
	}
	return x.load()
}

// load takes over what the spool of an earlier run knows.
func (x *Export) load() error {
	for x.hashed < x.src.pieces() {
		v, state, err := x.spool.get(x.hashed)
		if err != nil || state == slotUnknown {
			return err
		}
		x.took(v)
	}
	return nil
}

// known returns the values that the cache has of the file, if they are to be
// believed.
func (x *Export) known() *slots {
	if !x.more.TrustMTime {
		return nil
	}
	return x.more.Cache.lookup(x.src.id)
}

// believe fills the spool with the values of an earlier task.
func (x *Export) believe(known *slots) error {
	if known == nil {
		return nil
	}
	for n := range x.src.pieces() {
		v, state, err := known.get(n)
		if err == nil && state != slotUnknown {
			err = x.spool.put(n, v, state)
		}
		if err != nil {
			return err
		}
	}
	return x.load()
}

// remember gives the cache what was hashed, once all of it is.
func (x *Export) remember() {
	if x.Digest() == "" || x.was.Carried || !x.was.Settled {
		return
	}
	if err := x.more.Cache.record(x.src.id, x.spool.get); err != nil {
		x.log.Log("warn", x.name, "the values are not kept for later: "+err.Error())
	}
}

// Carried is how many bytes were not read because the cache's values were
// believed.
func (x *Export) Carried() int64 {
	if !x.was.Carried {
		return 0
	}
	return x.src.id.size
}

// took counts the next piece. mu is held, or nobody else knows x yet.
func (x *Export) took(v Value) {
	x.tree.Add(v)
	if x.hashed++; x.hashed == x.src.pieces() {
		x.digest = FormatDigest(x.tree.Root())
	}
}

// Size is the length of the file in bytes.
func (x *Export) Size() int64 { return x.src.id.size }

// Digest is the digest of the whole file once every piece was hashed, else "".
func (x *Export) Digest() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.digest
}

// Check compares the held file with the state recorded when it was opened, and
// with the file that has its name now (source_changed). A front that sends the
// file itself opens it by name, so ask before every request.
func (x *Export) Check() error {
	if err := x.failed(); err != nil {
		return err
	}
	if err := x.src.check(); err != nil || x.src.device {
		return err
	}
	d, base, err := openParent(x.root, x.name)
	if err == nil {
		defer d.Close()
		var now identity
		if now, err = identify(int(d.Fd()), base); err == nil {
			return x.src.id.same(now)
		}
		err = local(err, "looking at %q", x.name)
	}
	if codeOf(err) == api.NotFound {
		return fail(api.SourceChanged, err, "the source is gone")
	}
	return err
}

func (x *Export) failed() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.err
}

// broken makes err stick when it is about the source.
func (x *Export) broken(err error) error {
	if codeOf(err) == api.SourceChanged {
		x.mu.Lock()
		x.err = err
		x.tell()
		x.mu.Unlock()
	}
	return err
}

// tell wakes everybody who waits for news. mu is held.
func (x *Export) tell() {
	close(x.news)
	x.news = make(chan struct{})
}

// ask lets the hashing go on up to piece to, unless it is there already.
func (x *Export) ask(to int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.want = max(x.want, to)
	if x.running || x.hashed >= x.want || x.err != nil || x.ctx.Err() != nil {
		return
	}
	x.running = true
	x.work.Go(x.advance)
}

// advance hashes up to want.
func (x *Export) advance() {
	sc := scanner{src: x.src, cache: x.more.Cache}
	defer x.remember()
	for n, more := x.due(); more; n, more = x.due() {
		v, zero, err := sc.piece(x.ctx, n)
		state := slotData
		if zero {
			state = slotZero
		}
		if err == nil {
			err = x.rechecked(n, v)
		}
		if err == nil {
			err = x.spool.put(n, v, state)
		}
		x.mu.Lock()
		if err != nil {
			x.err = local(err, "hashing %q", x.name)
		} else {
			x.took(v)
		}
		x.tell()
		x.mu.Unlock()
		if err == nil {
			x.item.Add(PieceLen(n, x.src.id.size))
		}
	}
}

// why says what the hashing waits for.
func (x *Export) why() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.running {
		return feedback.WhyDisk
	}
	return feedback.WhyReader
}

// rechecked compares a value with the one of an earlier run.
func (x *Export) rechecked(n int64, v Value) error {
	if !x.recheck {
		return nil
	}
	old, state, err := x.spool.get(n)
	if err == nil && state != slotUnknown && old != v {
		err = fail(api.SourceChanged, nil, "piece %d of the source reads otherwise than before the restart", n)
	}
	return err
}

// due returns the next piece to hash; without one the hashing has ended.
func (x *Export) due() (n int64, more bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.running = x.err == nil && x.hashed < x.want && x.ctx.Err() == nil
	return x.hashed, x.running
}

// Rehash reads a piece again, past the spool, and writes it to w as a window of
// one piece (see Window). When its value is no longer the one in the manifest, every later
// request fails with source_changed.
func (x *Export) Rehash(ctx context.Context, n int64, w io.Writer) error {
	if n < 0 || n >= x.src.pieces() {
		return fail(api.BadRange, nil, "piece %d of %d", n, x.src.pieces())
	}
	if err := x.write(w, fileLine(x.file())); err != nil {
		return err
	}
	e, err := x.again(ctx, n, w)
	if err != nil {
		return x.giveUp(ctx, err, w)
	}
	return x.write(w, entryLine(e), x.lastLine(n+1))
}

// again hashes piece n for the second time.
func (x *Export) again(ctx context.Context, n int64, w io.Writer) (Entry, error) {
	if err := x.reach(ctx, n+1, func() error { return x.write(w, line{Kind: kindBeat}) }); err != nil {
		return Entry{}, err
	}
	old, _, err := x.spool.get(n)
	if err != nil {
		return Entry{}, local(err, "reading the spool")
	}
	sc := scanner{src: x.src}
	v, zero, err := sc.piece(ctx, n)
	if err != nil {
		return Entry{}, x.broken(err)
	}
	if v != old {
		x.broken(fail(api.SourceChanged, nil, "piece %d of the source reads otherwise than before", n))
	}
	return Entry{N: n, Count: 1, Zero: zero, Value: v}, nil
}

// Content returns the bytes from off to off+length. Reading fails with
// source_changed when the file changed meanwhile. Codes of the call itself:
// bad_range, source_changed.
func (x *Export) Content(ctx context.Context, off, length int64) (io.ReadCloser, error) {
	if off < 0 || length < 0 || off > x.src.id.size || length > x.src.id.size-off {
		return nil, fail(api.BadRange, nil, "bytes %d to %d of a file of %d", off, off+length, x.src.id.size)
	}
	if err := x.failed(); err != nil {
		return nil, err
	}
	if err := x.src.check(); err != nil {
		return nil, x.broken(err)
	}
	return &content{ctx: ctx, x: x, off: off, end: off + length}, nil
}

// Close ends hashing, waits for it and releases the file. The spool stays.
func (x *Export) Close() error {
	x.stop()
	x.work.Wait()
	x.item.End()
	return errors.Join(x.src.f.Close(), x.spool.close())
}
