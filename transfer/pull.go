package transfer

import (
	"context"
	"sync"

	"golang.org/x/sync/errgroup"
)

// queueLen holds every piece that can be undecided at once, so that the reader
// of the manifest never waits for a fetcher with a reply open.
const queueLen = 2 * windowPieces

// gauge counts decided pieces and lets one goroutine wait for them.
type gauge struct {
	mu   sync.Mutex
	n    int64
	news chan struct{} // closed and replaced when n grows; nil while nobody waits
}

func (g *gauge) add(n int64, also func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.n += n
	also()
	if g.news != nil {
		close(g.news)
		g.news = nil
	}
}

// wait waits until n pieces are decided.
func (g *gauge) wait(ctx context.Context, n int64) error {
	for {
		g.mu.Lock()
		if g.n >= n {
			g.mu.Unlock()
			return nil
		}
		if g.news == nil {
			g.news = make(chan struct{})
		}
		news := g.news
		g.mu.Unlock()
		select {
		case <-news:
		case <-ctx.Done():
			return cancelled(ctx)
		}
	}
}

// pull brings every piece into the stage. One goroutine reads the manifest, one
// combines its values into the root, the others fetch.
func (r *run) pull(ctx context.Context) error {
	jobs := make(chan []Entry, queueLen)
	values := make(chan Entry, queueLen)
	g, ctx := errgroup.WithContext(ctx)
	var stated string
	g.Go(func() (err error) {
		defer close(jobs)
		defer close(values)
		stated, err = r.plan(ctx, jobs, values)
		return err
	})
	g.Go(func() error { return r.combine(ctx, values) })
	for range connections {
		g.Go(func() error { return r.work(ctx, jobs) })
	}
	if err := g.Wait(); err != nil {
		// What is written stays useful: list it, whatever ended us.
		if r.st != nil && r.st.known != nil && !r.st.isSpoilt() {
			if cerr := r.st.checkpoint(r.Dir); cerr != nil {
				r.Report.Log("warn", r.Name, "the piece map is not up to date: "+cerr.Error())
			}
		}
		return err
	}
	if err := r.st.checkpoint(r.Dir); err != nil {
		return err
	}
	return r.agree(stated)
}

// plan reads the manifest, decides what is there already, and queues the rest.
func (r *run) plan(ctx context.Context, jobs chan<- []Entry, values chan<- Entry) (stated string, err error) {
	var job []Entry
	flush := func() error {
		if len(job) == 0 {
			return nil
		}
		defer func() { job = nil }()
		select {
		case jobs <- job:
			return nil
		case <-ctx.Done():
			return cancelled(ctx)
		}
	}
	due := func(next int64) error {
		if err := flush(); err != nil {
			return err
		}
		return r.decided.wait(ctx, next-windowPieces/2)
	}
	stated, err = r.windows(ctx, due, func(f File, e Entry) error {
		if r.st == nil {
			if err := r.begin(f); err != nil {
				return err
			}
			r.counter.SetTotal(f.Size)
		}
		select {
		case values <- e:
		case <-ctx.Done():
			return cancelled(ctx)
		}
		missing, err := r.missing(e)
		if err != nil {
			return err
		}
		if k := len(job); k > 0 && (!missing || job[k-1].N+1 != e.N || k == requestPieces) {
			if err := flush(); err != nil {
				return err
			}
		}
		if missing {
			job = append(job, e)
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	return stated, flush()
}

// missing says whether the piece has to be fetched; what has not is decided.
func (r *run) missing(e Entry) (bool, error) {
	if e.Zero {
		if err := r.st.clear(e); err != nil {
			return false, err
		}
		length := min(r.file.Size, (e.N+e.Count)*PieceSize) - e.N*PieceSize
		r.decide(e.Count, length, &r.bytes.hole)
		return false, nil
	}
	if PieceLen(e.N, r.file.Size) == 0 { // the one piece of an empty file
		if e.Value != HashPiece(nil, 0, true) {
			return false, badManifest("an empty file with the value %s", e.Value)
		}
		r.decide(1, 0, &r.bytes.fetched)
		return false, nil
	}
	has, err := r.st.has(e)
	if has {
		r.decide(1, PieceLen(e.N, r.file.Size), r.found())
	}
	return !has, err
}

// found is where bytes count that were in the stage when this run began.
func (r *run) found() *int64 {
	if r.st.Carried {
		return &r.bytes.carried
	}
	return &r.bytes.fetched
}

// decide counts pieces that are in the stage.
func (r *run) decide(pieces, length int64, origin *int64) {
	r.decided.add(pieces, func() { *origin += length })
	r.counter.Add(length)
}

// combine computes the root while the pieces are fetched: values of zero pieces
// cost as much as hashing them.
func (r *run) combine(ctx context.Context, values <-chan Entry) error {
	var tree Tree
	for e := range values {
		if !e.Zero {
			tree.Add(e.Value)
			continue
		}
		for n := e.N; n < e.N+e.Count; n++ {
			if ctx.Err() != nil {
				return cancelled(ctx)
			}
			tree.Add(ZeroValue(n, PieceLen(n, r.file.Size), Pieces(r.file.Size) == 1))
		}
	}
	// A source that refuses closes values before ctx has ended: no value came.
	if ctx.Err() == nil && tree.n > 0 {
		r.digest = FormatDigest(tree.Root())
	}
	return nil
}

// work fetches queued pieces. What a resumed stage holds although the map does
// not say so is hashed first.
func (r *run) work(ctx context.Context, jobs <-chan []Entry) error {
	f := fetcher{puller: &r.puller, buf: make([]byte, PieceSize)}
	for job := range jobs {
		f.size = r.file.Size
		keep := func(e Entry, buf []byte) error {
			if err := r.st.write(e, buf); err != nil {
				return err
			}
			r.decide(1, int64(len(buf)), &r.bytes.fetched)
			return r.st.note(r.Dir, e)
		}
		for len(job) > 0 {
			if ctx.Err() != nil {
				return cancelled(ctx)
			}
			n, err := r.take(job, &f)
			if err != nil {
				return err
			}
			if n > 0 {
				if err := f.fetch(ctx, job[:n], keep); err != nil {
					return err
				}
			}
			job = job[n:]
			if len(job) > 0 { // the piece that take found in the stage
				job = job[1:]
			}
		}
	}
	return nil
}

// take returns how many pieces from the front of job have to be fetched, before
// one that turned out to be in the stage already, which it decides.
func (r *run) take(job []Entry, f *fetcher) (int, error) {
	if !r.st.resumed {
		return len(job), nil
	}
	for i, e := range job {
		buf := f.buf[:PieceLen(e.N, r.file.Size)]
		data, err := r.st.read(e.N, buf)
		if err != nil {
			return 0, err
		}
		if data && HashPiece(buf, e.N, Pieces(r.file.Size) == 1) == e.Value {
			r.decide(1, int64(len(buf)), r.found())
			return i, r.st.note(r.Dir, e)
		}
	}
	return len(job), nil
}
