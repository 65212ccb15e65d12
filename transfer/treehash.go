package transfer

import (
	"bytes"
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"gantry/api"
)

// A jobKind is a step on the way from a name to lines.
type jobKind int

const (
	jobReady  jobKind = iota // an entry that needs no reading, or one that is skipped
	jobFile                  // a file of at most one piece
	jobLink                  // another name of a file that was planned before
	jobLarge                 // a file of several pieces begins
	jobPiece                 // a piece of it
	jobFinish                // it is complete
)

// treeJob is planned by the walk, done by a hasher, and written in the order of the walk.
type treeJob struct {
	found
	kind  jobKind
	large *largeFile
	piece int64
	value Value
	zero  bool
	racy  bool
	err   error
	// content is that of a small file; nil when it was not kept.
	content []byte
	done    chan struct{} // closed when a hasher has done it; nil when there is nothing to do
}

// largeFile is a file of several pieces while it is hashed.
type largeFile struct {
	src    *source // nil when it is known from an earlier export
	e      TreeEntry
	lost   string      // what of its attributes is missing
	failed atomic.Bool // its other pieces need not be hashed
	carry  *Value      // its digest, when known from an earlier export
	once   sync.Once
}

func (l *largeFile) close() {
	l.once.Do(func() {
		if l.src != nil {
			l.src.f.Close()
		}
	})
}

// Bounds of what is under way between the walk and the spool.
const (
	maxPlanned = 256
	// maxRun is the most pieces of one line of zeros, so that lines go on to come.
	maxRun = 1024
)

// racyTime is how long after a change another one might bear the same time.
var racyTime = 2 * time.Second

// treeRun is one run of the walk, the hashers and the writer.
type treeRun struct {
	x       *TreeExport
	ctx     context.Context
	jobs    chan *treeJob
	ordered chan *treeJob
	walker  *walker
	opener  dirSource // of the walk
	known   *knownTree

	mu   sync.Mutex
	open map[*largeFile]bool // guarded by mu; closed at the end, whatever happened

	// of the writer
	own   hasher
	timer *time.Timer
	waits bool // the timer runs for lines that nobody was shown
	cur   *largeFile
	run   int64 // zero pieces that have no line yet
	tree  Tree
}

// run goes from where the spool ends to the end of the tree.
func (x *TreeExport) run() {
	ctx, stop := context.WithCancel(x.ctx)
	defer stop()
	o, fd := x.record.Options, int(x.root.Fd())
	r := &treeRun{
		x: x, ctx: ctx, jobs: make(chan *treeJob, maxPlanned), ordered: make(chan *treeJob, maxPlanned),
		opener: dirSource{below: below{root: fd}, xattrs: o.Xattrs}, open: map[*largeFile]bool{},
		own: hasher{open: dirSource{below: below{root: fd}, xattrs: o.Xattrs}}, tree: x.spool.tree,
	}
	r.walker = &walker{
		below: below{root: fd}, cross: o.Cross, special: o.Special, xattrs: o.Xattrs, filter: x.filter, yield: r.plan,
		after: x.spool.c.last, afterSkip: x.spool.c.missed, badNames: x.spool.c.bad,
	}
	r.known = openKnown(x)
	x.newIndex(time.Now())
	var hashers sync.WaitGroup
	for range max(2, runtime.GOMAXPROCS(0)) {
		hashers.Go(r.hash)
	}
	var walked error
	hashers.Go(func() {
		defer close(r.ordered)
		defer close(r.jobs)
		if walked = r.rest(); walked == nil {
			walked = r.walker.walk()
		}
	})
	r.timer = time.NewTimer(time.Hour)
	defer r.timer.Stop()
	err := r.write()
	stop()
	hashers.Wait()
	r.close()
	if err == nil {
		err = walked
	}
	x.end(err)
}

// close releases what the run held.
func (r *treeRun) close() {
	for l := range r.open {
		l.close()
	}
	r.opener.close()
	r.own.open.close()
	r.known.close()
}

// end makes the end durable and known, or the error.
func (x *TreeExport) end(err error) {
	if x.ctx.Err() != nil && err != nil {
		return
	}
	if err == nil {
		x.remember()
		if x.spool.index != nil {
			x.spool.index.end(x.knownPath()+indexSuffix, x.spool.c.Digest(), x.spool.c.At)
		}
		x.record.Ended = true
		err = x.save("tree.end")
	}
	if err == nil {
		x.finish()
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.err = local(err, "reading the tree %q", x.name)
	x.tell()
}

// plan receives what the walk finds.
func (r *treeRun) plan(f found) error {
	if f.code != "" || f.e.Type != TreeFile {
		return r.send(&treeJob{found: f}, false)
	}
	if f.linked {
		first, err := r.x.links.get(f.id.dev, f.id.ino)
		if err != nil {
			return err
		}
		if first >= 0 {
			return r.send(&treeJob{found: f, kind: jobLink}, false)
		}
		if err := r.x.links.put(f.id.dev, f.id.ino, 0); err != nil {
			return err
		}
	}
	if hit, err := r.carry(f); hit || err != nil {
		return err
	}
	if f.e.Size > PieceSize {
		return r.planLarge(f.e.Path)
	}
	return r.send(&treeJob{found: f, kind: jobFile}, true)
}

// planLarge plans a file of several pieces.
func (r *treeRun) planLarge(path string) error {
	src, f, err := r.opener.open(path)
	if err != nil {
		return r.send(&treeJob{found: found{e: TreeEntry{Path: path}, code: skipCode(err), message: "opening it: " + err.Error()}}, false)
	}
	if f.e.Size <= PieceSize { // it shrank
		src.f.Close()
		return r.send(&treeJob{found: f, kind: jobFile}, true)
	}
	l := &largeFile{src: src, e: f.e, lost: f.message}
	r.hold(l)
	racy := isRacy(f.id, time.Now())
	if err := r.send(&treeJob{found: f, kind: jobLarge, large: l, racy: racy}, false); err != nil {
		return err
	}
	return r.planPieces(l, 0)
}

func (r *treeRun) planPieces(l *largeFile, from int64) error {
	for n := from; n < Pieces(l.e.Size); n++ {
		if err := r.send(&treeJob{kind: jobPiece, large: l, piece: n}, true); err != nil {
			return err
		}
	}
	return r.send(&treeJob{kind: jobFinish, large: l}, false)
}

// rest goes on with a large file that an earlier run began.
func (r *treeRun) rest() error {
	s := r.x.spool
	if s.c.file == nil {
		return nil
	}
	rec, err := s.last()
	if err != nil {
		return err
	}
	l := &largeFile{e: *s.c.file}
	r.cur = l
	src, f, err := r.opener.open(l.e.Path)
	if err == nil {
		l.src = src
		r.hold(l)
		err = rec.sameState(f.id)
	}
	if err != nil {
		l.failed.Store(true)
		return r.send(&treeJob{kind: jobFinish, large: l, err: err}, false)
	}
	return r.planPieces(l, s.c.done)
}

func (r *treeRun) hold(l *largeFile) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open[l] = true
}

func (r *treeRun) drop(l *largeFile) {
	l.close()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, l)
}

// send hands a job to the hashers, if it needs one, and to the writer, when a reader wants its line.
func (r *treeRun) send(j *treeJob, work bool) error {
	if err := r.admit(); err != nil {
		return err
	}
	if work {
		j.done = make(chan struct{})
	}
	select {
	case r.ordered <- j:
	case <-r.ctx.Done():
		return cancelled(r.ctx)
	}
	if work {
		r.jobs <- j // the hashers take jobs whatever happens
	}
	return nil
}

// admit waits until a reader wants more lines than are planned.
func (r *treeRun) admit() error {
	x := r.x
	for {
		x.mu.Lock()
		ok := x.taken+x.inflight < x.want
		if ok {
			x.inflight++
		} else if x.room == nil {
			x.room = make(chan struct{})
		}
		room := x.room
		x.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-room:
		case <-r.ctx.Done():
			return cancelled(r.ctx)
		}
	}
}

// hasher reads files. Not safe for concurrent use.
type hasher struct {
	open dirSource
	sc   scanner
}

// hash is a goroutine that does jobs.
func (r *treeRun) hash() {
	o := r.x.record.Options
	h := hasher{open: dirSource{below: below{root: int(r.x.root.Fd())}, xattrs: o.Xattrs}}
	defer h.open.close()
	for j := range r.jobs {
		switch {
		case r.ctx.Err() != nil:
			j.err = cancelled(r.ctx)
		case j.kind == jobPiece:
			h.piece(r.ctx, j)
		default:
			h.file(r.ctx, j)
		}
		close(j.done)
	}
}

func (h *hasher) piece(ctx context.Context, j *treeJob) {
	if j.large.failed.Load() {
		return
	}
	if h.sc.src != j.large.src {
		h.sc.src, h.sc.seen, h.sc.data = j.large.src, 0, 0
	}
	if j.value, j.zero, j.err = h.sc.piece(ctx, j.piece); j.err != nil {
		j.large.failed.Store(true)
	}
}

// file hashes a file of at most one piece. One that changes meanwhile gets a second try.
func (h *hasher) file(ctx context.Context, j *treeJob) {
	for range 2 {
		if j.err = h.try(ctx, j); codeOf(j.err) != api.SourceChanged {
			return
		}
	}
}

func (h *hasher) try(ctx context.Context, j *treeJob) error {
	now := time.Now()
	src, f, err := h.open.open(j.e.Path)
	if err != nil {
		return err
	}
	defer src.f.Close()
	if f.e.Size > PieceSize {
		return fail(api.SourceChanged, nil, "it grew")
	}
	h.sc.src, h.sc.seen, h.sc.data = src, 0, 0
	value, zero, err := h.sc.hash(ctx, 0) // its state was looked at just now
	if err == nil {
		err = src.check()
	}
	h.sc.src = nil
	if err != nil {
		return err
	}
	f.e.Digest = value
	j.found, j.racy, j.content = f, isRacy(f.id, now), nil
	if size := f.e.Size; size > 0 && size <= maxKeptFile && !zero { // of zeros nothing may have been read
		j.content = bytes.Clone(h.sc.buf)
	}
	return nil
}

// isRacy says whether a change of now might leave the file's times as they are.
func isRacy(id identity, now time.Time) bool {
	limit := now.Add(-racyTime)
	return id.mtime.After(limit) || id.ctime.After(limit)
}

// droppedRecord is the record of the last file, which may not be written yet.
func (x *TreeExport) droppedRecord() (fileRecord, error) {
	if err := x.spool.flush(); err != nil {
		return fileRecord{}, err
	}
	return x.spool.last()
}
