package history

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// sequence demands that a reader is shown every stored record once and in
// order, or a gap record in its place, and what others were shown under the
// same number: I4. After a final nothing may come: I3.
func (c *checker) sequence(j *job, r *reader) {
	next := r.After + 1
	over := false
	for _, l := range r.lines {
		if over {
			c.add("I3", j, "reader %d is shown %s after the final record", r.Reader, short(l.raw))
			return
		}
		if l.err != nil {
			c.add("I4", j, "reader %d is shown a line that is no record: %s", r.Reader, short(l.raw))
			continue
		}
		switch {
		case l.Kind == "hello":
			c.hello(j, r, l)
		case l.Kind == "gap":
			if l.From != next || l.To < l.From {
				c.add("I4", j, "reader %d is shown a gap from %d to %d where record %d should come", r.Reader, l.From, l.To, next)
			}
			next = max(next, l.To+1)
		case l.stored():
			if l.Seq != next {
				c.add("I4", j, "reader %d is shown record %d where record %d should come", r.Reader, l.Seq, next)
			}
			next = l.Seq + 1
			if first := j.records[l.Seq]; first.raw != l.raw {
				c.add("I4", j, "record %d is %s for reader %d, and %s for reader %d", l.Seq, short(first.raw), first.reader, short(l.raw), r.Reader)
			}
			over = l.final()
		}
	}
}

// hello demands that what somebody was shown before is still there.
func (c *checker) hello(j *job, r *reader, l lineSeen) {
	for _, n := range j.numbers() {
		if rec := j.records[n]; n > l.Last && rec.seen.Before(r.Began) {
			c.add("I4", j, "record %d was shown to reader %d at %s, and for reader %d, which came at %s, the last one is %d",
				n, rec.reader, clock(rec.seen), r.Reader, clock(r.Began), l.Last)
		}
	}
}

// inner demands the records of each task in their own order, none twice, and a
// word where some are gone: I4.
func (c *checker) inner(j *job) {
	last, gaps := map[string]int64{}, map[string]bool{}
	hole := false // a job's record was shown to nobody: it may have been the one
	for i, n := range j.numbers() {
		r := j.records[n]
		hole = hole || n != int64(i+1)
		if r.Kind == "log" {
			gaps[r.Text] = true
		}
		if r.Kind != "task" {
			continue
		}
		in, err := decode(r.Record)
		task := r.Node + " " + r.Task
		switch {
		case err != nil || !in.stored():
			c.add("I4", j, "record %d holds no record of task %s: %s", n, r.Task, short(r.raw))
			continue
		case in.Seq <= last[task]:
			c.add("I4", j, "record %d is record %d of task %s, which comes after its record %d", n, in.Seq, r.Task, last[task])
		case in.Seq > last[task]+1 && !hole && !told(gaps, last[task]+1, in.Seq-1):
			c.add("I4", j, "records %d to %d of task %s are missing before record %d, and nothing says so", last[task]+1, in.Seq-1, r.Task, n)
		}
		last[task] = max(last[task], in.Seq)
	}
}

// told reports whether a log record names the gap.
func told(gaps map[string]bool, from, to int64) bool {
	want := fmt.Sprintf("records %d to %d of its task are gone", from, to)
	for text := range gaps {
		if strings.HasPrefix(text, want) {
			return true
		}
	}
	return false
}

// A sign shows that a job lives, and whether it says of itself that it does
// not move.
type sign struct {
	t       time.Time
	flagged bool
}

// flags are the states in which nobody expects a job to move.
var flags = []string{"queued", "stalled", "waiting_retry", "unknown"}

// moving demands that a job which runs shows, to somebody who watches, that it
// moves, or says that it does not; and that it has ended at the end: I9.
func (c *checker) moving(j *job) {
	signs := c.signs(j)
	_, over := j.final()
	if c.ended && !over && len(j.acks) > 0 {
		last := sign{t: j.acks[0].T}
		if len(signs) > 0 {
			last = signs[len(signs)-1]
		}
		if state, t := j.lastState(); slices.Contains(flags[1:], state) && !t.Before(last.t) {
			return
		}
		if idle := c.end.Sub(last.t); idle > c.quiet && !last.flagged {
			c.add("I9", j, "it has not ended, the last sign of it came at %s, and after %.0f s nothing says that it is stalled", clock(last.t), idle.Seconds())
		}
	}
	for i := 1; i < len(signs); i++ {
		a, b := signs[i-1], signs[i]
		if !a.flagged && b.t.Sub(a.t) > c.quiet && j.watched(a.t, b.t) > c.quiet {
			c.add("I9", j, "it did not move from %s to %s, for %.0f s, and is not flagged", clock(a.t), clock(b.t), b.t.Sub(a.t).Seconds())
		}
	}
}

// signs are all signs of life of a job, in order. Before it is first taken up
// it is queued, which is no state that a feed must tell.
func (c *checker) signs(j *job) []sign {
	var out []sign
	flagged := true
	for _, n := range j.numbers() {
		r := j.records[n]
		if r.Kind == "state" {
			flagged = slices.Contains(flags, r.State)
		}
		out = append(out, sign{r.T, flagged || r.final()})
	}
	type item struct{ name, phase string }
	for _, r := range j.readers {
		done := map[item]int64{}
		for _, l := range r.lines {
			if l.Kind != "progress" || l.err != nil {
				continue
			}
			old, known := done[item{l.Item, l.Phase}]
			if !known || old != l.Done || l.Stalled > 0 {
				out = append(out, sign{l.seen, l.Stalled > 0})
			}
			done[item{l.Item, l.Phase}] = l.Done
		}
	}
	slices.SortStableFunc(out, func(a, b sign) int { return a.t.Compare(b.t) })
	return out
}

// lastState is what the last answered question about the job said.
func (j *job) lastState() (string, time.Time) {
	for _, e := range slices.Backward(j.calls) {
		if r, ok := e.replied(); ok && e.Call.Op == Get {
			return r.State, e.T
		}
	}
	return "", time.Time{}
}

// watched is the longest stretch between two times in which a reader was there.
func (j *job) watched(from, to time.Time) time.Duration {
	var longest time.Duration
	for _, r := range j.readers {
		a, b := r.at, r.end
		if a.Before(from) {
			a = from
		}
		if b.After(to) {
			b = to
		}
		longest = max(longest, b.Sub(a))
	}
	return longest
}
