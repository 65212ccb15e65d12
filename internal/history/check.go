package history

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Violation is a never-event that a history shows.
type Violation struct {
	Event string // I1 to I10, or I15
	Job   string // "" when it concerns none
	Text  string // one plain sentence
}

// String is the violation on one line.
func (v Violation) String() string {
	if v.Job == "" {
		return v.Event + ": " + v.Text
	}
	return v.Event + ": job " + v.Job + ": " + v.Text
}

// Options of Check.
type Options struct {
	// Heartbeat is how often something is written at least to a feed; 0 = 10 s.
	Heartbeat time.Duration
}

// slack is how far two times of one machine may be apart: records carry
// milliseconds.
const slack = 2 * time.Millisecond

type checker struct {
	*past
	quiet time.Duration // of I9
	found []Violation
}

// Check finds every never-event that the history shows, in the order of their
// numbers.
func Check(events []Event, o Options) []Violation {
	c := &checker{past: build(events), quiet: 3 * cmp.Or(o.Heartbeat, 10*time.Second)}
	c.keys()
	for _, j := range c.order {
		c.kept(j)
		c.finals(j)
		c.attempts(j)
		c.inner(j)
		c.moving(j)
		c.digest(j)
		for _, r := range j.readers {
			c.sequence(j, r)
		}
	}
	c.targets()
	c.leftovers()
	c.void()
	slices.SortStableFunc(c.found, func(a, b Violation) int {
		return cmp.Or(cmp.Compare(number(a.Event), number(b.Event)), strings.Compare(a.Job, b.Job))
	})
	return c.found
}

func number(event string) (n int) {
	fmt.Sscanf(event, "I%d", &n)
	return n
}

func (c *checker) add(event string, j *job, format string, args ...any) {
	v := Violation{Event: event, Text: fmt.Sprintf(format, args...)}
	if j != nil {
		v.Job = j.id
	}
	if !slices.Contains(c.found, v) {
		c.found = append(c.found, v)
	}
}

// clock is a time as the sentences show it.
func clock(t time.Time) string { return t.UTC().Format("15:04:05.000") }

// short is the beginning of a long line.
func short(s string) string {
	const most = 120
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

// void demands that the history has an end, and that the load did not fall
// under its floor.
func (c *checker) void() {
	if !c.ended {
		c.add("I15", nil, "the history has no end: nobody waited for what was under way")
	}
	for _, e := range c.other {
		if l := e.Load; l != nil && l.N < l.Floor {
			c.add("I15", nil, "%s: %d, fewer than the %d that make the run count", l.What, l.N, l.Floor)
		}
	}
}

// leftovers are what is there after the end: I10.
func (c *checker) leftovers() {
	for _, e := range c.other {
		switch {
		case e.Left != nil:
			c.add("I10", nil, "left behind: %s", e.Left.What)
		case e.Count != nil && e.Count.N > e.Count.Most:
			c.add("I10", nil, "%s: %d are left, at most %d may be", e.Count.What, e.Count.N, e.Count.Most)
		}
	}
	if !c.ended {
		return
	}
	for _, j := range c.order {
		if _, over := j.final(); !over {
			continue
		}
		for _, t := range j.tasks {
			if t.Ended.IsZero() {
				c.add("I10", j, "it has ended, and its task %s (%s) at %s has not", t.ID, t.Op, t.Node)
			}
		}
	}
}
