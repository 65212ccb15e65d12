package feedback

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"os"
	"sync"
	"time"
)

// Stream shows the feed on w: hello, the newest progress, the stored records
// after `after`, and then everything as it comes. It returns nil when the
// final is written or the reader has it already, else the cause of ctx's end, a failed write, the reason why
// the feed is broken, or ErrClosed. An `after` above Last is ErrAfter, and
// nothing is written. V, Last and (where they are 0) Interval and Start of
// hello are filled in.
//
// A stream reads from the journal at its reader's pace: a slow one costs a
// line or so of memory and holds nobody up. When ctx ends, a write that waits
// for the reader is given up, where w has deadlines.
func (f *Feed) Stream(ctx context.Context, w *Writer, after int64, hello Hello) error {
	s := stream{f: f, w: w, c: cursor{f: f, seq: after, generation: -1}, sent: make(map[*Item]shown)}
	last, err := f.attach(&s)
	if err != nil {
		return err
	}
	defer f.detach()
	defer unblockAt(ctx, w)()
	hello.V, hello.Last = Version, last
	hello.Start = max(hello.Start, 1)
	if hello.Interval < 1 {
		hello.Interval = max(1, int((f.o.Interval+time.Second-1)/time.Second))
	}
	err = s.run(ctx, hello)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// unblockAt makes the end of ctx end a write that waits. The returned func
// takes that back, and returns when w is no longer touched.
func unblockAt(ctx context.Context, w *Writer) (release func()) {
	ran := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ran)
		w.unblock()
	})
	return func() {
		if !stop() {
			<-ran
		}
	}
}

// attach counts a stream in and checks where it wants to begin.
func (f *Feed) attach(s *stream) (last int64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.err != nil:
		return 0, f.err
	case f.closed:
		return 0, ErrClosed
	case s.c.seq > f.last || s.c.seq < 0:
		return 0, ErrAfter
	}
	f.streams++
	s.ended = f.endedCount
	return f.last, nil
}

func (f *Feed) detach() {
	f.mu.Lock()
	f.streams--
	f.dropItems()
	f.mu.Unlock()
}

// dropItems frees the items of a finished feed that nobody looks at; mu is held.
func (f *Feed) dropItems() {
	if f.final.Seq != 0 && f.streams == 0 {
		f.items, f.ended = nil, nil
	}
}

// stream is one reader of a feed.
type stream struct {
	f     *Feed
	w     *Writer
	c     cursor
	sent  map[*Item]shown // what the reader has seen
	ended int             // how many of the items that ended
	next  time.Time       // when progress is looked at again

	mirrored int // Feed.mirrored at the last look
}

func (s *stream) run(ctx context.Context, hello Hello) error {
	if err := s.w.Write(Record{Kind: KindHello, Body: &hello}); err != nil {
		return err
	}
	if err := s.progress(true); err != nil {
		return err
	}
	timer := time.NewTimer(s.f.o.Interval)
	defer timer.Stop()
	for ctx.Err() == nil {
		s.f.mu.Lock()
		changed := s.f.wait()
		s.f.mu.Unlock()
		if final, err := s.records(ctx); final || err != nil {
			return err
		}
		if err := s.progress(false); err != nil {
			return err
		}
		pause, err := s.heartbeat()
		if err != nil {
			return err
		}
		timer.Reset(pause)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	return context.Cause(ctx)
}

// records writes what is on disk and was not written yet.
func (s *stream) records(ctx context.Context) (final bool, err error) {
	for more := true; more && err == nil && !final; {
		more, err = s.c.read(func(b []byte, last bool) error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if last {
				if err := s.progress(true); err != nil {
					return err
				}
			}
			final = last
			return s.w.WriteLine(b, last)
		})
	}
	if err != nil {
		return false, err
	}
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	// The second half: the reader had the final already when it came.
	return final || s.f.final.Seq != 0 && s.c.seq >= s.f.final.Seq, nil
}

// progress writes the values that changed: now, when their time has come, or
// when another feed's were mirrored.
func (s *stream) progress(now bool) error {
	t := time.Now()
	s.f.mu.Lock()
	items := s.f.items[:len(s.f.items):len(s.f.items)]
	prompt := s.f.mirrored > s.mirrored && len(items) <= promptItems
	if !now && !prompt && t.Before(s.next) {
		s.f.mu.Unlock()
		return nil
	}
	ended := s.f.ended[len(s.f.ended)-min(len(s.f.ended), s.f.endedCount-s.ended):]
	s.ended, s.mirrored = s.f.endedCount, s.f.mirrored
	s.f.mu.Unlock()
	if len(items)+len(ended) > 0 {
		s.next = t.Add(s.f.o.Tick)
	}
	for _, i := range items {
		if err := s.show(i, t, now); err != nil {
			return err
		}
	}
	for _, i := range ended {
		if err := s.show(i, t, true); err != nil {
			return err
		}
		delete(s.sent, i)
	}
	return nil
}

// promptItems is how many items a feed may have for a mirrored value to be shown
// before the next tick: each such value has a stream look at all of them.
const promptItems = 16

// show writes a line about an item if it is worth one, and if the last one is a
// tick ago, or now. A line that is too early has the stream look again in time.
func (s *stream) show(i *Item, t time.Time, now bool) error {
	came := i.came.Load()
	p := i.value(t)
	old, seen := s.sent[i]
	// A piece takes a while on a slow or limited line: that its bytes come is
	// worth a line before whoever waits for one calls the item stalled.
	coming := came != old.came && t.Sub(old.at) >= stalledEvery*time.Second
	if seen && !coming && !old.differs(&p) {
		return nil
	}
	if due := old.at.Add(s.f.o.Tick); seen && !now && t.Before(due) {
		if due.Before(s.next) {
			s.next = due
		}
		return nil
	}
	s.sent[i] = shown{p, came, t}
	return s.w.Write(Record{Kind: KindProgress, Body: &p})
}

// shown is the last line about an item.
type shown struct {
	Progress
	came int64 // the item's count then
	at   time.Time
}

// differs says whether now is worth a line: rates alone are not, and how long it
// is stalled only now and then.
func (p *Progress) differs(now *Progress) bool {
	return p.Done != now.Done || p.Total != now.Total || p.TotalIs != now.TotalIs || p.Phase != now.Phase ||
		p.Proved != now.Proved || p.Durable != now.Durable || p.Why != now.Why ||
		p.Stalled > 0 != (now.Stalled > 0) || now.Stalled-p.Stalled >= stalledEvery
}

// stalledEvery is the seconds between two lines about an item that is stalled, or
// whose bytes come without a piece being done.
const stalledEvery = 10

// heartbeat writes one if it is due, and returns how long there is nothing to
// do unless the feed changes.
func (s *stream) heartbeat() (time.Duration, error) {
	interval := s.f.o.Interval
	silent := time.Since(s.w.Wrote())
	if silent >= interval {
		if err := s.w.Write(heartbeat(s.c.seq)); err != nil {
			return 0, err
		}
		silent = 0
	}
	pause := interval - silent
	s.f.mu.Lock()
	live := len(s.f.items) > 0 || s.f.endedCount > s.ended
	s.f.mu.Unlock()
	if live {
		pause = min(pause, max(time.Until(s.next), 0))
	}
	return pause, nil
}

// A cursor is a place in the journal, good across its rewriting.
type cursor struct {
	f          *Feed
	seq        int64 // greatest number that was handed on
	off        int64 // where the next line begins, in the file of generation
	generation int
}

// chunk is how much of the journal a reader takes at a time: at least a line.
const chunk = 64 << 10

var chunks = sync.Pool{New: func() any { return new([chunk]byte) }}

// read hands on the complete lines of the next chunk. more says that there may
// be others.
func (c *cursor) read(line func(b []byte, final bool) error) (more bool, err error) {
	if c.f.journal != nil {
		return c.readJournal(line)
	}
	buf := chunks.Get().(*[chunk]byte)
	defer chunks.Put(buf)
	n, final, err := c.fill(buf[:])
	if n == 0 || err != nil {
		return false, err
	}
	for b := range bytes.Lines(buf[:n]) {
		from, to, err := lineSeq(b[:len(b)-1])
		if err != nil {
			return false, fmt.Errorf("reading journal: %w", err)
		}
		c.off += int64(len(b))
		if to <= c.seq {
			continue
		}
		b = b[:len(b)-1]
		if from <= c.seq { // a gap that began before
			if b, err = Encode(Record{Kind: KindGap, Body: &Gap{From: c.seq + 1, To: to, Why: WhyTrimmed}}); err != nil {
				return false, err
			}
		} else if from != c.seq+1 {
			return false, fmt.Errorf("reading journal: record %d follows %d", from, c.seq)
		}
		if err := line(b, final != 0 && to == final); err != nil {
			return false, err
		}
		c.seq = to
	}
	return true, nil
}

// fill reads complete lines that are durable, from the file that is the
// journal now. It holds no lock and no descriptor afterwards: a reader that
// stops reading keeps neither a trimmed file alive nor its trimming waiting.
func (c *cursor) fill(buf []byte) (n int, final int64, err error) {
	f := c.f
	f.file.RLock()
	defer f.file.RUnlock()
	f.mu.Lock()
	end, generation, marks := f.end, f.generation, f.marks
	final, err = f.final.Seq, f.err
	if err == nil && f.closed {
		err = ErrClosed
	}
	f.mu.Unlock()
	if err != nil {
		return 0, 0, err
	}
	if c.generation != generation {
		c.generation, c.off = generation, end
		for i := len(marks) - 1; i >= 0; i-- {
			if c.off = marks[i].off; marks[i].seq <= c.seq {
				break
			}
		}
	}
	if c.off >= end {
		return 0, final, nil
	}
	file, err := os.Open(f.path)
	if err != nil {
		return 0, 0, fmt.Errorf("reading journal: %w", err)
	}
	defer file.Close()
	buf = buf[:min(int64(len(buf)), end-c.off)]
	if n, err = file.ReadAt(buf, c.off); err != nil {
		return 0, 0, fmt.Errorf("reading journal: %w", err)
	}
	n = bytes.LastIndexByte(buf[:n], '\n') + 1
	if n == 0 {
		return 0, 0, fmt.Errorf("reading journal: no line at offset %d", c.off)
	}
	return n, final, nil
}

// Records returns the stored records after `after` that are on disk now, with
// a gap where some were deleted, and an error as last pair if there is one.
func (f *Feed) Records(after int64) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		c := cursor{f: f, seq: after, generation: -1}
		stopped := false
		for more := true; more && !stopped; {
			var err error
			more, err = c.read(func(b []byte, _ bool) error {
				rec, err := Decode(bytes.Clone(b))
				if err == nil && !yield(rec, nil) {
					stopped = true
					return errStopped
				}
				return err
			})
			if err != nil && !stopped {
				yield(Record{}, err)
				return
			}
		}
	}
}

var errStopped = fmt.Errorf("the caller stopped")
