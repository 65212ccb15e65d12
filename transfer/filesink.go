package transfer

import (
	"context"
	"errors"
	"os"
	"time"

	"gantry/api"
)

// fileSink is the sink of a regular file: a stage that takes the target's place
// when it is complete.
type fileSink struct {
	*run
	dir    *os.File // the target's folder
	base   string   // the target's name in it
	stages *os.File // StageDir; nil in a dry run
	st     *stage   // set by begin
}

var _ sink = (*fileSink)(nil)

// openFile opens the target's folder.
func (r *run) openFile() (*fileSink, error) {
	dir, base, err := openParent(r.Root, r.Name)
	if err != nil {
		return nil, err
	}
	return &fileSink{run: r, dir: dir, base: base}, nil
}

// toFile imports a regular file.
func (r *run) toFile(ctx context.Context) (api.ImportResult, error) {
	var none api.ImportResult
	s, err := r.openFile()
	if err != nil {
		return none, err
	}
	defer s.close()
	there, err := s.exists()
	if err != nil {
		return none, err
	}
	compare := there && r.Mode == api.ModeCreate
	if !compare && !r.DryRun {
		if err := s.openStages(); err != nil {
			return none, err
		}
	}
	if err := r.onlyContent(ctx); err != nil {
		return none, err
	}
	if compare {
		return s.compare(ctx)
	}
	if r.KeepOld && !r.DryRun {
		if err := s.checkKeep(); err != nil {
			return none, err
		}
	}
	if there {
		r.old = s.openOld()
		defer r.old.close()
	}
	if r.DryRun {
		return r.fill(ctx, &drySink{fileSink: s, there: there})
	}
	return r.fill(ctx, s)
}

// begin is called with the first line of the manifest: it takes up the stage of
// an earlier run or makes one, and asks for space.
func (r *fileSink) begin(file File) error {
	r.values = r.Cache.recorder(file.Size)
	st := &stage{hook: r.hook, sum: r.counters, since: time.Now(), cached: r.Cached, durable: r.durable}
	err := st.resume(r.stages, r.Dir, file.Size)
	if err == nil && st.f == nil {
		err = st.create(r.stages, r.Dir, r.Task, file.Size, r.Mode == api.ModeCreate)
	}
	if err == nil {
		err = st.prepare(r.Dir)
	}
	r.st = st
	if err != nil {
		return local(err, "opening the stage")
	}
	return r.space()
}

// remember gives the cache the values of what was published. Until it had its
// name nobody else could write to it, and who does since changes its mtime, which
// is the source's and not of now: so that the change of its name is of now does
// not matter.
func (r *fileSink) remember(p api.Publishing) {
	id, err := identify(int(r.dir.Fd()), r.base)
	if err != nil || !id.is(p.Ino, p.Btime, p.Size) || !id.mtime.Equal(r.file.MTime) || !r.Cache.settled(id.mtime) {
		return
	}
	if err := r.values.record(id); err != nil {
		r.Report.Log("warn", r.Name, "the values are not kept for later: "+err.Error())
	}
}

// share gives the stage the old copy's blocks of a piece, if that is possible.
func (r *fileSink) share(o *oldCopy, p part) bool { return o.share(r.st.f, p) }

func (r *fileSink) has(p part) (bool, error) { return r.st.has(p.Entry) }

func (r *fileSink) clear(_ context.Context, p part) error { return r.st.clear(p) }

func (r *fileSink) write(_ context.Context, p part, buf []byte) error {
	return r.st.write(p.Entry, buf)
}

func (r *fileSink) note(p part) error { return r.st.note(r.Dir, p.Entry) }

// read finds what a killed run wrote and could not list any more.
func (r *fileSink) read(p part, buf []byte) (bool, error) {
	if !r.st.resumed {
		return false, nil
	}
	return r.st.read(p.N, buf)
}

func (r *fileSink) checkpoint() error {
	if r.st == nil || r.st.known == nil || r.st.isSpoilt() {
		return nil
	}
	return r.st.checkpoint(r.Dir)
}

func (r *fileSink) finish(ctx context.Context) (api.ImportResult, error) {
	if r.stream {
		if err := r.st.f.Truncate(r.file.Size); err != nil {
			return api.ImportResult{}, local(err, "giving the stage its size")
		}
	}
	return r.publish(ctx)
}

// failed removes a stage that spoil marked.
func (r *fileSink) failed(err error) error {
	if err != nil && r.st != nil && r.st.isSpoilt() {
		r.Report.Log("error", r.Name, "nothing of the stage can be trusted any more, it is removed")
		if derr := r.st.discard(r.stages, r.Dir); derr != nil {
			return errors.Join(err, derr)
		}
	}
	return err
}

func (r *fileSink) earlier() counters {
	if r.st == nil {
		return counters{}
	}
	return r.st.before
}

func (r *fileSink) carried() bool { return r.st.Carried }

func (r *fileSink) close() {
	if r.st != nil {
		r.st.close()
	}
	if r.stages != nil {
		r.stages.Close()
	}
	r.dir.Close()
}

// exists says whether there is a target; it must be a regular file.
func (r *fileSink) exists() (bool, error) {
	id, err := identify(int(r.dir.Fd()), r.base)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return false, nil
	case err != nil:
		return false, local(err, "looking at the target")
	case !id.regular():
		return false, fail(api.NotRegular, nil, "target %q is there and is not a regular file", r.Name)
	}
	return true, nil
}

// compare ends a create onto a target that is there: done if its content is the
// source's, else refused. Nothing is fetched.
func (r *fileSink) compare(ctx context.Context) (api.ImportResult, error) {
	var none api.ImportResult
	f, err := openAt(r.dir, r.base, r.Name)
	if err != nil {
		return none, err
	}
	defer f.Close()
	src, err := newSource(f)
	if err != nil {
		return none, err
	}
	counter := r.Report.Progress(r.Name, "compare", "bytes", src.id.size)
	defer counter.End()
	sc, tree, compared := scanner{src: src, cache: r.Cache}, Tree{}, int64(0)
	r.done = func() int64 { return compared }
	differs := fail(api.Exists, nil, "target %q is there with other content", r.Name)
	digest, err := r.windows(ctx, nil, func(file File, e Entry) error {
		if file.Size >= 0 && file.Size != src.id.size || e.N+e.Count > src.pieces() {
			return differs
		}
		for n := e.N; n < e.N+e.Count; n++ {
			v, zero, err := sc.piece(ctx, n)
			switch {
			case codeOf(err) == api.SourceChanged:
				return fail(api.TargetChanged, err, "target %q changed while it was compared", r.Name)
			case err != nil:
				return err
			case zero != e.Zero || !zero && v != e.Value:
				return differs
			}
			tree.Add(v)
			counter.Add(PieceLen(n, src.id.size))
		}
		if file.Stream {
			compared = e.N + e.Count
		}
		return nil
	})
	if err != nil {
		return none, err
	}
	r.file, r.digest = File{Size: src.id.size}, FormatDigest(tree.Root())
	if err := r.agree(digest); err != nil {
		return none, err
	}
	r.bytes.carried = src.id.size
	return r.result(api.TargetThere), nil
}
