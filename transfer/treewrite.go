package transfer

import (
	"time"

	"gantry/api"
)

// write takes the jobs in order and spools their lines.
func (r *treeRun) write() error {
	for {
		j, ok, err := r.next()
		if err != nil {
			return err
		}
		if !ok {
			return r.flush(true)
		}
		if err := r.take(j); err != nil {
			return err
		}
		x := r.x
		x.mu.Lock()
		x.inflight--
		x.taken = x.spool.c.Next
		full := x.inflight == 0 && x.taken >= x.want // nothing more comes before a reader asks
		x.freed()
		x.mu.Unlock()
		if full || len(x.spool.buf) > treeWrite {
			if err := r.flush(full); err != nil {
				return err
			}
		}
	}
}

// lineDelay is how long lines wait for others, to be shown together.
const lineDelay = 2 * time.Millisecond

// next waits for the next job to be done; the readers do not wait for it longer
// than lineDelay.
func (r *treeRun) next() (j *treeJob, ok bool, err error) {
	late := r.delay()
	select {
	case j, ok = <-r.ordered:
	case <-late:
		late = nil
		if err := r.late(); err != nil {
			return nil, false, err
		}
		j, ok = <-r.ordered
	}
	if !ok || j.done == nil {
		return j, ok, nil
	}
	select {
	case <-j.done:
	case <-late:
		err = r.late()
		<-j.done
	}
	return j, ok, err
}

// delay returns what tells that lineDelay is over since lines began to wait, nil
// when none do.
func (r *treeRun) delay() <-chan time.Time {
	if len(r.x.spool.buf) == 0 && r.run == 0 {
		return nil
	}
	if !r.waits {
		r.waits = true
		r.timer.Reset(lineDelay)
	}
	return r.timer.C
}

// late shows what waited; zeros that may go on only when nothing is under way.
func (r *treeRun) late() error {
	r.waits = false
	x := r.x
	x.mu.Lock()
	idle := x.inflight == 0
	x.mu.Unlock()
	return r.flush(idle)
}

// flush shows the readers what was taken; zeros that may go on only when it says so.
func (r *treeRun) flush(zeros bool) error {
	if zeros {
		if err := r.zeros(); err != nil {
			return err
		}
	}
	if s := r.x.spool; len(s.buf) == 0 && s.wrote == r.x.bytes {
		return nil
	}
	r.waits = false
	if err := r.x.spool.flush(); err != nil {
		return err
	}
	r.x.publish()
	return nil
}

// zeros writes the line of a run of zero pieces.
func (r *treeRun) zeros() error {
	if r.run == 0 {
		return nil
	}
	count := r.run
	r.run = 0
	return r.x.spool.put(treePartLine(0, Value{}, count), nil)
}

// take writes the lines of a job.
func (r *treeRun) take(j *treeJob) error {
	if r.ctx.Err() != nil {
		return cancelled(r.ctx)
	}
	switch j.kind {
	case jobFile:
		return r.took(j)
	case jobLink:
		return r.takeLink(j)
	case jobLarge:
		r.cur, r.tree = j.large, Tree{}
		return r.entry(j)
	case jobPiece:
		return r.takePiece(j)
	case jobFinish:
		return r.takeFinish(j)
	}
	if j.code != "" {
		return r.skip(j.e.Path, j.code, j.message)
	}
	r.x.spool.index.entry(j.e.Path, j.e.Type, &j.id)
	return r.x.spool.put(treeEntryLine(0, j.e), nil)
}

// took writes the entry of a small file, or why there is none.
func (r *treeRun) took(j *treeJob) error {
	if j.err != nil {
		if r.ctx.Err() != nil {
			return j.err
		}
		code, message := missing(j.err)
		return r.skip(j.e.Path, code, message)
	}
	r.x.item.Add(j.e.Size)
	return r.entry(j)
}

// missing is why a file that cannot be read is skipped or dropped.
func missing(err error) (code, message string) {
	switch codeOf(err) {
	case api.SourceChanged:
		return SkipChanged, wireMessage(err)
	case nil:
		return skipCode(err), "opening it: " + err.Error()
	case api.Denied:
		return SkipDenied, wireMessage(err)
	}
	return SkipIO, wireMessage(err)
}

// entry writes the entry of a file and what of it is missing.
func (r *treeRun) entry(j *treeJob) error {
	s := r.x.spool
	j.e.At = s.c.At
	if j.e.Size > MaxSize-s.c.At {
		return fail(api.NotRegular, nil, "the files of the tree have more than %d bytes", int64(MaxSize))
	}
	rec := fileRecord{at: j.e.At, size: j.e.Size, id: j.id, linked: j.linked, racy: j.racy}
	rec.id.size = j.e.Size
	off := s.c.Bytes
	if err := s.put(treeEntryLine(0, j.e), &rec); err != nil {
		return err
	}
	if j.racy {
		s.index.spoil()
	}
	s.index.entry(j.e.Path, TreeFile, &j.id)
	if j.content != nil {
		r.x.kept.keep(s.count-1, j.content)
	}
	if j.linked {
		if err := r.x.links.put(j.id.dev, j.id.ino, off+1); err != nil {
			return err
		}
	}
	if j.message == "" || j.large != nil { // nothing may stand between a large file and its pieces
		return nil
	}
	return r.skip(j.e.Path, SkipIO, j.message)
}

func (r *treeRun) skip(path, code, message string) error {
	return r.x.spool.put(treeMissLine(0, path, code, message), nil)
}

// takeLink writes another name of a file, if the first one is in the manifest.
func (r *treeRun) takeLink(j *treeJob) error {
	off, err := r.x.links.get(j.id.dev, j.id.ino)
	if err != nil {
		return err
	}
	if off > 0 {
		if err := r.flush(false); err != nil {
			return err
		}
		lines := lineBuffer{f: r.x.spool.lines}
		first, err := lines.pathOf(off - 1)
		if err != nil {
			return err
		}
		r.x.spool.index.entry(j.e.Path, TreeLink, &j.id)
		return r.x.spool.put(treeEntryLine(0, TreeEntry{Path: j.e.Path, Type: TreeLink, Target: first}), nil)
	}
	if j.e.Size > PieceSize {
		return r.skip(j.e.Path, SkipChanged, "another name of the same file could not be read to its end")
	}
	r.own.file(r.ctx, j) // rare: it was not planned to be read
	return r.took(j)
}

// takePiece writes a piece of the large file that is under way.
func (r *treeRun) takePiece(j *treeJob) error {
	if r.cur != j.large {
		return nil // it was dropped
	}
	if j.err != nil || j.large.failed.Load() {
		if r.ctx.Err() != nil {
			return j.err
		}
		if j.err == nil {
			return nil // a later piece failed, its own job says why
		}
		return r.dropped(j.err)
	}
	size := j.large.e.Size
	r.x.item.Add(PieceLen(j.piece, size))
	r.tree.Add(j.value)
	if j.zero {
		if r.run++; r.run == maxRun {
			return r.zeros()
		}
		return nil
	}
	if err := r.zeros(); err != nil {
		return err
	}
	return r.x.spool.put(treePartLine(0, j.value, 0), nil)
}

// dropped ends the large file that is under way without a digest.
func (r *treeRun) dropped(err error) error {
	r.run, r.cur = 0, nil
	code, message := missing(err)
	if err := r.x.spool.put(treeMissLine(0, "", code, message), nil); err != nil {
		return err
	}
	rec, err := r.x.droppedRecord()
	if err != nil || !rec.linked {
		return err
	}
	return r.x.links.put(rec.id.dev, rec.id.ino, 0)
}

// takeFinish writes the digest of the large file that is under way.
func (r *treeRun) takeFinish(j *treeJob) error {
	defer r.drop(j.large) // no hasher reads it any more
	if r.cur != j.large {
		return nil
	}
	if j.err == nil && j.large.src != nil {
		j.err = j.large.src.check()
	}
	if j.err != nil {
		return r.dropped(j.err)
	}
	if err := r.zeros(); err != nil {
		return err
	}
	root := r.tree.Root()
	if c := j.large.carry; c != nil && root != *c {
		r.x.forget()
		return r.dropped(fail(api.SourceChanged, nil, "what was remembered of it is damaged and was forgotten"))
	}
	r.cur = nil
	if err := r.x.spool.put(treeDigestLine(0, root), nil); err != nil || j.large.lost == "" {
		return err
	}
	return r.skip(j.large.e.Path, SkipIO, j.large.lost)
}
