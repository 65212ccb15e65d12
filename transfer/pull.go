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

func (g *gauge) value() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.n
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

// pull brings every piece into the sink. One goroutine reads the manifest, one
// combines its values into the root, the others fetch.
func (r *run) pull(ctx context.Context) error {
	jobs := make(chan []part, queueLen)
	values := make(chan part, queueLen)
	g, ctx := errgroup.WithContext(ctx)
	var stated string
	g.Go(func() (err error) {
		defer close(jobs)
		defer close(values)
		stated, err = r.plan(ctx, jobs, values)
		return err
	})
	g.Go(func() error { return r.combine(ctx, values) })
	r.differs = make(chan patch, queueLen)
	var workers sync.WaitGroup
	workers.Add(r.workers())
	for range r.workers() {
		g.Go(func() error {
			defer workers.Done()
			return r.work(ctx, jobs)
		})
	}
	g.Go(func() error {
		workers.Wait()
		close(r.differs)
		return nil
	})
	for range patchers {
		g.Go(func() error { return r.patch(ctx) })
	}
	if err := g.Wait(); err != nil {
		// What is written stays useful: list it, whatever ended us.
		if cerr := r.sink.checkpoint(); cerr != nil {
			r.Report.Log("warn", r.Name, "the piece map is not up to date: "+cerr.Error())
		}
		return err
	}
	if err := r.sink.checkpoint(); err != nil {
		return err
	}
	return r.agree(stated)
}

// plan reads the manifest, decides what is there already, and queues the rest.
func (r *run) plan(ctx context.Context, jobs chan<- []part, values chan<- part) (stated string, err error) {
	var job []part
	flush := func() error {
		if len(job) == 0 {
			return nil
		}
		defer func() { job = nil }()
		return send(ctx, jobs, job)
	}
	due := func(next int64, short bool) error {
		if err := flush(); err != nil {
			return err
		}
		if !short {
			return r.decided.wait(ctx, next-windowPieces/2)
		}
		// The source of a stream has no room before these are durable here.
		if err := r.decided.wait(ctx, next); err != nil {
			return err
		}
		return r.sink.checkpoint()
	}
	begun := false
	stated, err = r.windows(ctx, due, func(f File, e Entry) error {
		if !begun {
			r.file, begun = f, true
			r.follow(f)
			if err := r.sink.begin(f); err != nil {
				return err
			}
			r.counter.SetTotal(f.Size)
		}
		if f.Size != r.file.Size { // the last piece of a stream
			r.file.Size = f.Size
			r.counter.SetTotal(f.Size)
		}
		p := part{Entry: e, size: f.Size}
		if err := send(ctx, values, p); err != nil {
			return err
		}
		if k := len(job); k > 0 && (e.Zero || k == r.perRequest) {
			if err := flush(); err != nil {
				return err
			}
		}
		missing, err := r.missing(ctx, p)
		if err != nil {
			return err
		}
		if k := len(job); k > 0 && (!missing || job[k-1].N+1 != e.N) {
			if err := flush(); err != nil {
				return err
			}
		}
		if missing {
			job = append(job, p)
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	return stated, flush()
}

func send[T any](ctx context.Context, to chan<- T, v T) error {
	select {
	case to <- v:
		return nil
	case <-ctx.Done():
		return cancelled(ctx)
	}
}

// missing says whether the piece has to be fetched; what has not is decided.
func (r *run) missing(ctx context.Context, p part) (bool, error) {
	if p.Zero {
		if err := r.sink.clear(ctx, p); err != nil {
			return false, err
		}
		r.decide(p.Count, p.len(), &r.bytes.hole)
		r.durable(p.Entry)
		return false, nil
	}
	if p.len() == 0 { // the one piece of an empty file
		if p.Value != HashPiece(nil, 0, true) {
			return false, badManifest("an empty file with the value %s", p.Value)
		}
		r.decide(1, 0, &r.bytes.fetched)
		return false, nil
	}
	has, err := r.sink.has(p)
	if has {
		r.durable(p.Entry)
		r.decide(1, p.len(), r.found())
	}
	return !has, err
}

// found is where bytes count that were in place when this run began.
func (r *run) found() *int64 {
	if r.sink.carried() {
		return &r.bytes.carried
	}
	return &r.bytes.fetched
}

// decide counts pieces that are in place and were not fetched.
func (r *run) decide(pieces, length int64, origin *int64) {
	r.counter.Proved(length)
	r.placed(pieces, length, origin)
}

// placed counts pieces that are in place.
func (r *run) placed(pieces, length int64, origin *int64) {
	r.decided.add(pieces, func() { *origin += length })
	r.counter.Add(length)
}

// combine computes the root while the pieces are fetched: values of zero pieces
// cost as much as hashing them.
func (r *run) combine(ctx context.Context, values <-chan part) error {
	var tree Tree
	for p := range values {
		if !p.Zero {
			tree.Add(p.Value)
			r.values.put(p.N, p.Value, false)
			continue
		}
		for n := p.N; n < p.N+p.Count; n++ {
			if ctx.Err() != nil {
				return cancelled(ctx)
			}
			v := r.Cache.zero(n, PieceLen(n, p.size), p.whole())
			tree.Add(v)
			r.values.put(n, v, true)
		}
	}
	// A source that refuses closes values before ctx has ended: no value came.
	if ctx.Err() == nil && tree.n > 0 {
		r.digest = FormatDigest(tree.Root())
	}
	return nil
}

// work fetches queued pieces. What is in place although no map says so is hashed
// first.
func (r *run) work(ctx context.Context, jobs <-chan []part) error {
	f := fetcher{puller: &r.puller}
	for job := range jobs {
		if f.buf == nil {
			var free func()
			f.buf, free = pieceBuffer()
			defer free()
		}
		for len(job) > 0 {
			if ctx.Err() != nil {
				return cancelled(ctx)
			}
			n, err := r.take(ctx, job, &f)
			if err != nil {
				return err
			}
			if n > 0 {
				if err := r.bring(ctx, &f, job[:n]); err != nil {
					return err
				}
			}
			job = job[n:]
			if len(job) > 0 { // the piece that take found in place
				job = job[1:]
			}
		}
	}
	return nil
}

// bring fetches neighbouring pieces; a dry run only counts them.
func (r *run) bring(ctx context.Context, f *fetcher, pieces []part) error {
	if r.DryRun {
		for _, p := range pieces {
			r.decide(1, p.len(), &r.bytes.fetched)
		}
		return nil
	}
	return f.fetch(ctx, pieces, func(p part, buf []byte) error {
		r.counter.Proved(int64(len(buf)))
		defer while(&r.waits.disk)()
		if err := r.sink.write(ctx, p, buf); err != nil {
			return err
		}
		r.placed(1, int64(len(buf)), &r.bytes.fetched)
		return r.sink.note(p)
	})
}

// take returns how many pieces from the front of job have to be fetched, before
// one that turned out to be in place already, which it decides, or that the old
// copy has, in whole or in part.
func (r *run) take(ctx context.Context, job []part, f *fetcher) (int, error) {
	for i, p := range job {
		buf := f.buf[:p.len()]
		data, err := r.sink.read(p, buf)
		if err != nil {
			return 0, err
		}
		if data && HashPiece(buf, p.N, p.whole()) == p.Value {
			r.decide(1, int64(len(buf)), r.found())
			return i, r.sink.note(p)
		}
		if taken, err := r.fromOld(ctx, p, f); taken || err != nil {
			return i, err
		}
	}
	return len(job), nil
}
