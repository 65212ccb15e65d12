package transfer

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"gantry/api"
	"gantry/feedback"

	"golang.org/x/sync/errgroup"
)

// Demand is the import that a Push serves, at the other end of a line: see
// [Pushed]. Its methods are called concurrently. Errors are judged as those of a
// [Source]; not_wanted and offset_mismatch mean that the import goes on without
// this answer.
type Demand interface {
	// Missing returns the open wants from number from on, or how the import ended.
	// It may wait some seconds for one and return none.
	Missing(ctx context.Context, from int64) (api.Wants, error)
	// PutLines brings the part of a manifest that begins at byte at of the answer.
	PutLines(ctx context.Context, w api.Want, at int64, lines []byte, last bool) error
	// PutFrames brings a part of frames in the same way.
	PutFrames(ctx context.Context, w api.Want, at int64, frames []byte, last bool) error
	// PutContent brings the bytes of a want of content; total is -1 while unknown.
	PutContent(ctx context.Context, w api.Want, total int64, body io.Reader) error
}

// Limits of a push.
const (
	// pushers is how many ranges are pushed at once.
	pushers = 4
	// pollPause is the least time between two questions that bring nothing.
	pollPause = time.Second
	// pushLinger is how long lines of a manifest wait for more.
	pushLinger = 100 * time.Millisecond
	// maxHeld bounds the answers that are being prepared, however many wants the
	// other side may invent.
	maxHeld = maxWants
)

// Push brings what a pushed import asks for. Fill the fields, then call Run; after
// a restart a Push of the same source goes on with the same import.
type Push struct {
	From     Exporter
	To       Demand
	Name     string // of the source, for people
	Parallel int    // ranges at once; default 4
	Limits   Limits // bind the content that is sent
	Report   Reporter
	// RetryFor is how long the import's node may be out of reach; default
	// api.RetryFor.
	RetryFor time.Duration

	minWait, maxWait time.Duration // of the backoff; for tests
}

// Run answers wants until the import has ended, and says how. The error says why
// the push cannot go on: the import's node is out of reach for too long, or
// refuses. What is wrong with the source is told to the import, which then ends.
func (p *Push) Run(ctx context.Context) (api.Wants, error) {
	r := &pushing{Push: *p, start: time.Now(), ended: make(chan struct{})}
	r.Limits = append(r.Limits[:len(r.Limits):len(r.Limits)], &r.theirs)
	r.defaults()
	// How much will be asked for is not known here: the target may have most of it.
	r.counter = r.Report.Progress(p.Name, "push", "bytes", -1)
	r.counter.Explain(func() string { return feedback.WhyReader })
	defer r.counter.End()
	work, stop := context.WithCancel(ctx)
	defer stop()
	g, work := errgroup.WithContext(work)
	g.Go(func() error {
		defer stop() // nothing is wanted any more
		return r.poll(work, g)
	})
	err := g.Wait()
	select {
	case <-r.ended:
		return r.end, nil
	default:
	}
	if ctx.Err() != nil {
		return api.Wants{}, cancelled(ctx)
	}
	return api.Wants{}, err
}

// pushing is one call of Run.
type pushing struct {
	Push
	start   time.Time
	good    atomic.Int64 // when the import's node answered last, ns since start
	counter Counter
	slots   chan struct{} // held by each answer of content
	held    chan struct{} // held by each answer

	theirs Limit // what the import says that it takes

	end   api.Wants
	ended chan struct{} // closed when end is set
}

func (r *pushing) defaults() {
	if r.Parallel == 0 {
		r.Parallel = pushers
	}
	if r.Report == nil {
		r.Report = Silent{}
	}
	if r.RetryFor == 0 {
		r.RetryFor = api.RetryFor
	}
	if r.minWait == 0 {
		r.minWait = firstWait
	}
	if r.maxWait == 0 {
		r.maxWait = lastWait
	}
	r.slots, r.held = make(chan struct{}, r.Parallel), make(chan struct{}, maxHeld)
}

// poll asks for wants and starts their answers.
func (r *pushing) poll(ctx context.Context, g *errgroup.Group) error {
	var next int64
	for {
		var wants api.Wants
		asked, seen := time.Now(), next
		err := r.retry(ctx, "asking for what is missing", func() (err error) {
			wants, err = r.To.Missing(ctx, next)
			return err
		})
		if err != nil {
			return err
		}
		if wants.Outcome != "" {
			r.end = wants
			close(r.ended)
			return nil
		}
		r.theirs.Set(max(wants.Rate, 0))
		for _, w := range wants.Wants {
			if w.Seq < next {
				continue // it is being answered
			}
			next = w.Seq + 1
			if err := acquire(ctx, r.held); err != nil {
				return err
			}
			g.Go(func() error {
				defer func() { <-r.held }()
				return r.serve(ctx, w)
			})
		}
		if next == seen { // nothing new: a node that does not wait is not asked in a rush
			if err := sleep(ctx, pollPause-time.Since(asked)); err != nil {
				return err
			}
		}
	}
}

func acquire(ctx context.Context, slots chan struct{}) error {
	select {
	case slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return cancelled(ctx)
	}
}

// retry calls try until it returns nil or an error that no retry mends.
func (r *pushing) retry(ctx context.Context, what string, try func() error) error {
	wait := r.minWait
	for {
		err := try()
		switch {
		case err == nil:
			r.good.Store(int64(time.Since(r.start)))
			return nil
		case ctx.Err() != nil:
			return cancelled(ctx)
		}
		if refused := refusal(err); refused != nil {
			return refused
		}
		if silent := time.Since(r.start) - time.Duration(r.good.Load()); silent > r.RetryFor {
			return fail(api.PeerLost, err, "%s: no answer for %s: %.200s", what, silent.Round(time.Second), err)
		}
		d := wait/2 + rand.N(wait/2+1)
		r.Report.Log("warn", r.Name, fmt.Sprintf("%s: connection lost (%.200s), retry in %s", what, err, d.Round(time.Millisecond)))
		if err := sleep(ctx, d); err != nil {
			return err
		}
		wait = min(2*wait, r.maxWait)
	}
}

// serve answers one want. An answer that broke off is made again only if the
// want is still open: where the import heard of the break, it asks under a new
// number.
func (r *pushing) serve(ctx context.Context, w api.Want) error {
	if w.Kind == api.WantContent || w.Kind == api.WantFrames {
		if err := acquire(ctx, r.slots); err != nil {
			return err
		}
		defer func() { <-r.slots }()
	}
	again := false
	err := r.retry(ctx, "pushing", func() error {
		if again {
			if open, err := r.open(ctx, w); err != nil || !open {
				return err
			}
		}
		again = true
		return r.answer(ctx, w)
	})
	switch codeOf(err) {
	case api.NotWanted, api.OffsetMismatch, api.TooLate:
		return nil // poll hears of what is wanted instead, or of the end
	}
	return err
}

func (r *pushing) open(ctx context.Context, w api.Want) (bool, error) {
	wants, err := r.To.Missing(ctx, w.Seq)
	for _, x := range wants.Wants {
		if x.Seq == w.Seq {
			return true, err
		}
	}
	return false, err
}

// answer makes one attempt.
func (r *pushing) answer(ctx context.Context, w api.Want) error {
	switch w.Kind {
	case api.WantContent:
		return r.content(ctx, w)
	case api.WantFrames:
		return r.frames(ctx, w)
	case api.WantManifest:
		return r.lines(ctx, w, func(ctx context.Context, out io.Writer) error { return r.From.Window(ctx, w.From, w.N, w.Done, out) })
	case api.WantRehash:
		return r.lines(ctx, w, func(ctx context.Context, out io.Writer) error { return r.From.Rehash(ctx, w.From, out) })
	case api.WantSub:
		if x, ok := r.From.(Parter); ok {
			return r.lines(ctx, w, func(ctx context.Context, out io.Writer) error { return x.Sub(ctx, w.Pieces, out) })
		}
		return r.refuse(ctx, w, fail(api.BadRequest, nil, "this kind of source has no parts"))
	}
	return r.refuse(ctx, w, fail(api.BadRequest, nil, "this version pushes no %.20q", w.Kind))
}

// refuse tells the import why the source cannot answer.
func (r *pushing) refuse(ctx context.Context, w api.Want, err error) error {
	return r.To.PutLines(ctx, w, 0, errorLine(err).append(nil), true)
}

// frames brings ranges as frames.
func (r *pushing) frames(ctx context.Context, w api.Want) error {
	ranges := make([]Range, len(w.Ranges))
	for i, x := range w.Ranges {
		ranges[i] = Range{x.At, x.Len}
	}
	var failed error // of the source, before anything was sent
	sent := int64(0)
	err := r.parted(ctx, func(ctx context.Context, out io.Writer) ([]byte, error) {
		begun := &noted{}
		err := WriteFrames(ctx, r.From, ranges, w.Zstd, r.Limits.Writer(ctx, io.MultiWriter(begun, out), nil))
		if err != nil && begun.n == 0 {
			failed = err
		}
		return nil, err
	}, func(at int64, frames []byte, last bool) error {
		sent = at + int64(len(frames))
		return r.To.PutFrames(ctx, w, at, frames, last)
	})
	switch {
	case err == nil:
		r.counter.Add(sent)
	case failed != nil && ctx.Err() == nil:
		return r.refuse(ctx, w, failed)
	}
	return err
}

// content brings a range. A source that refuses it, now or in the middle, says
// so to the import: in place of the content, or when it asks again.
func (r *pushing) content(ctx context.Context, w api.Want) error {
	if w.Length < 1 || w.Length > api.MaxRange {
		return fail(api.BadRange, nil, "want %d: %d bytes at once, at most %d are pushed", w.Seq, w.Length, api.MaxRange)
	}
	body, err := r.From.Content(ctx, w.Off, w.Length)
	if err == nil {
		source := &noted{r: r.Limits.Reader(ctx, body)}
		err = r.To.PutContent(ctx, w, r.From.Size(), source)
		body.Close()
		if err == nil {
			r.counter.Add(w.Length)
			return nil
		}
		if source.err == nil {
			return err
		}
		return fmt.Errorf("reading the source: %s", source.err) // without its code: the next attempt tells
	}
	if ctx.Err() != nil {
		return err
	}
	return r.refuse(ctx, w, err)
}

// noted remembers why reading failed, and how much was written.
type noted struct {
	r   io.Reader
	err error
	n   int64
}

func (n *noted) Read(p []byte) (int, error) {
	k, err := n.r.Read(p)
	if err != nil && err != io.EOF {
		n.err = err
	}
	return k, err
}

func (n *noted) Write(p []byte) (int, error) {
	n.n += int64(len(p))
	return len(p), nil
}
