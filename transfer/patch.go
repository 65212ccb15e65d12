package transfer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"

	"gantry/api"
)

// patchers is how many goroutines fetch parts: two, so that one batch is
// gathered while another is on its way.
const patchers = 2

// A patch is a piece of which the old copy has other bytes, with the values of
// the old parts.
type patch struct {
	part
	old []Value
}

// reuse is what an import does with an old copy.
type reuse struct {
	old     *oldCopy // set before the first piece is queued; nil: there is none
	differs chan patch
	noParts atomic.Bool // the source has no values of parts
	warned  atomic.Bool
}

// fromOld takes a piece from the old copy, if it is the same there, or leaves it
// to the patchers. taken is false when it has to be fetched as a whole.
func (r *run) fromOld(ctx context.Context, p part, f *fetcher) (taken bool, err error) {
	if r.old == nil || p.size < 0 {
		return false, nil
	}
	if r.believed(p) {
		r.decide(1, p.len(), &r.bytes.carried)
		return true, r.sink.note(p)
	}
	buf := f.buf[:p.len()]
	values, ok, err := r.old.values(p, buf, &f.parts)
	if err != nil && !r.warned.Swap(true) {
		r.Report.Log("warn", r.Name, "reading the old copy: "+err.Error())
	}
	if !ok {
		return false, nil
	}
	if combineParts(values, p.whole()) == p.Value {
		return true, r.takeOld(ctx, p, buf)
	}
	if len(values) == 1 || r.noParts.Load() {
		return false, nil
	}
	return true, send(ctx, r.differs, patch{p, values})
}

// believed shares a piece that was not read, because the cache says that it is
// the one wanted. The clone is of the very state that the cache tells of.
func (r *run) believed(p part) bool {
	s, ok := r.sink.(sharer)
	if r.old.known == nil || !ok {
		return false
	}
	v, state, err := r.old.known.get(p.N)
	return err == nil && state == slotData && v == p.Value && s.share(r.old, p)
}

// takeOld puts a piece of the old copy, whose proved bytes are buf, into the sink.
func (r *run) takeOld(ctx context.Context, p part, buf []byte) error {
	origin := &r.bytes.copied
	if s, ok := r.sink.(sharer); ok && s.share(r.old, p) {
		origin = &r.bytes.reflinked
	} else if err := r.sink.write(ctx, p, buf); err != nil {
		return err
	}
	r.decide(1, p.len(), origin)
	return r.sink.note(p)
}

// A sharer is a sink that may be able to share blocks with the old copy.
type sharer interface{ share(o *oldCopy, p part) bool }

// patch fetches the parts that differ, until differs is closed. A batch is what
// gathered meanwhile.
func (r *run) patch(ctx context.Context) error {
	f := fetcher{puller: &r.puller}
	for first := range r.differs {
		if f.buf == nil {
			var free func()
			f.buf, free = pieceBuffer()
			defer free()
		}
		batch := r.gather(first)
		due, whole, err := r.compareParts(ctx, &f, batch)
		if err == nil {
			err = r.fetchParts(ctx, &f, due)
		}
		for _, p := range whole {
			if err == nil {
				err = r.bring(ctx, &f, []part{p})
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// gather adds to first what waits, in the order of the pieces.
func (r *run) gather(first patch) []patch {
	batch := []patch{first}
	for len(batch) < api.MaxSub {
		select {
		case p, ok := <-r.differs:
			if !ok {
				return ordered(batch)
			}
			batch = append(batch, p)
		default:
			return ordered(batch)
		}
	}
	return ordered(batch)
}

func ordered(batch []patch) []patch {
	slices.SortFunc(batch, func(a, b patch) int { return cmp.Compare(a.N, b.N) })
	return batch
}

// A partial is a piece of which only ranges are fetched.
type partial struct {
	part
	ranges []Range
	length int64 // of all ranges
}

// compareParts asks for the values of parts. due are the pieces of which some
// parts are the same, whole those that have to be fetched as such.
func (r *run) compareParts(ctx context.Context, f *fetcher, batch []patch) (due []partial, whole []part, err error) {
	numbers := make([]int64, len(batch))
	for i, p := range batch {
		numbers[i] = p.N
	}
	err = f.retry(ctx, "values of parts", func() (bool, error) {
		due, whole = nil, nil
		rc, err := watch(ctx, f.bodyIdle, func(ctx context.Context) (io.ReadCloser, error) { return f.source.Sub(ctx, numbers) })
		if err != nil {
			return false, err
		}
		defer rc.Close()
		i := 0
		err = readSub(counted{rc, &f.wire}, numbers, batch[0].size, func(_ int64, values []Value) error {
			p := batch[i]
			i++
			f.progress()
			if combineParts(values, p.whole()) != p.Value {
				f.report.Log("warn", f.item, fmt.Sprintf("piece %d: the values of its parts are not those of the piece, all of it is fetched", p.N))
				whole = append(whole, p.part)
				return nil
			}
			due = append(due, p.partial(values))
			return nil
		})
		return i > 0, err
	})
	if codeOf(err) == api.BadRequest { // a source that has none
		r.noParts.Store(true)
		due, whole, err = nil, nil, nil
		for _, p := range batch {
			whole = append(whole, p.part)
		}
	}
	return due, whole, err
}

// partial lists the parts whose values differ; neighbours are one range.
func (p patch) partial(values []Value) partial {
	d := partial{part: p.part}
	for i, v := range values {
		if v == p.old[i] {
			continue
		}
		at := p.off() + int64(i)*PartSize
		n := min(PartSize, p.off()+p.len()-at)
		d.length += n
		if k := len(d.ranges) - 1; k >= 0 && d.ranges[k].At+d.ranges[k].Len == at {
			d.ranges[k].Len += n
			continue
		}
		d.ranges = append(d.ranges, Range{at, n})
	}
	return d
}

// fetchParts brings the ranges of pieces in as few requests as possible.
func (r *run) fetchParts(ctx context.Context, f *fetcher, due []partial) error {
	for len(due) > 0 {
		n, ranges, length := 0, []Range(nil), int64(0)
		for _, d := range due {
			if n > 0 && (len(ranges)+len(d.ranges) > api.MaxRanges || length+d.length > api.MaxRange) {
				break
			}
			n, ranges, length = n+1, append(ranges, d.ranges...), length+d.length
		}
		if r.DryRun {
			for _, d := range due[:n] {
				r.count(d.part, d.length)
			}
		} else if err := r.fetchRanges(ctx, f, due[:n], ranges); err != nil {
			return err
		}
		due = due[n:]
	}
	return nil
}

// fetchRanges makes one request for the ranges of due, again for the rest when
// it breaks. A piece that is not proved, because the old copy changed or the
// source lied, is fetched as a whole.
func (r *run) fetchRanges(ctx context.Context, f *fetcher, due []partial, ranges []Range) error {
	var wrong []part
	err := f.retry(ctx, "parts", func() (further bool, err error) {
		f.attempts.Add(1)
		defer while(&f.waits.content)()
		rc, err := watch(ctx, f.bodyIdle, func(ctx context.Context) (io.ReadCloser, error) {
			return f.source.Frames(ctx, ranges, f.pace.slow())
		})
		if err != nil {
			return false, err
		}
		defer rc.Close()
		body := NewFrameReader(counted{rc, &f.wire}, ranges)
		for len(due) > 0 {
			d := due[0]
			ok, err := r.assemble(body, f, d)
			if err != nil {
				return further, err
			}
			if !ok {
				wrong = append(wrong, d.part)
			} else if err := r.keepPatched(ctx, d, f.buf[:d.len()]); err != nil {
				return further, err
			}
			f.progress()
			further, due, ranges = true, due[1:], ranges[len(d.ranges):]
		}
		return further, nil
	})
	for _, p := range wrong {
		if err == nil {
			f.report.Log("warn", f.item, fmt.Sprintf("piece %d could not be made from the old copy and its parts, all of it is fetched", p.N))
			err = r.bring(ctx, f, []part{p})
		}
	}
	return err
}

// assemble makes a piece of the old copy and what body brings; ok says that it is
// proved.
func (r *run) assemble(body io.Reader, f *fetcher, d partial) (ok bool, err error) {
	buf := f.buf[:d.len()]
	there, rerr := r.old.read(d.part, buf)
	for _, x := range d.ranges {
		if _, err := io.ReadFull(body, buf[x.At-d.off():][:x.Len]); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return false, err
		}
		f.counter.Came(x.Len)
	}
	return there && rerr == nil && HashPiece(buf, d.N, d.whole()) == d.Value, nil
}

func (r *run) keepPatched(ctx context.Context, d partial, buf []byte) error {
	if err := r.sink.write(ctx, d.part, buf); err != nil {
		return err
	}
	r.count(d.part, d.length)
	return r.sink.note(d.part)
}

// count decides a piece of which length bytes were fetched.
func (r *run) count(p part, length int64) {
	r.decided.add(1, func() {
		r.bytes.fetched += length
		r.bytes.copied += p.len() - length
	})
	r.counter.Add(p.len())
}
