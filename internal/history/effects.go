package history

import (
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// attempts demands that a job has one visible result, and that an attempt
// begins when the one before has ended: I2.
func (c *checker) attempts(j *job) {
	var published []string
	for _, t := range j.tasks {
		if t.Published {
			published = append(published, t.ID+" at "+t.Node)
		}
	}
	if len(published) > 1 {
		c.add("I2", j, "%d of its tasks published a result: %s", len(published), strings.Join(published, ", "))
	}
	c.inOrder(j)
	for i, a := range j.tasks {
		for _, b := range j.tasks[i+1:] {
			if a.Op == b.Op && a.Node == b.Node && a.Place == b.Place && (a.Ended.IsZero() || a.Ended.After(b.Created.Add(slack))) {
				c.add("I2", j, "its tasks %s and %s (%s at %s) ran at the same time: the second began at %s", a.ID, b.ID, a.Op, a.Node, clock(b.Created))
			}
		}
	}
}

// goesOn is how a master that was started again says which attempt it took up:
// a crash may have come before the record that begins it.
var goesOn = regexp.MustCompile(`attempt ([0-9]+) goes on`)

// inOrder demands that attempts come one after the other. The tasks of an
// attempt are those that the feed names before the next one.
func (c *checker) inOrder(j *job) {
	attempt, state, of := 0, "", map[string]int{}
	for i, n := range j.numbers() {
		r := j.records[n]
		hole := n != int64(i+1) // a record was shown to nobody
		switch next := r.Detail.Attempt; {
		case r.Kind == "task":
			if _, known := of[r.Task]; !known {
				of[r.Task] = attempt
			}
		case r.Kind == "log":
			if m := goesOn.FindStringSubmatch(r.Text); m != nil {
				taken, _ := strconv.Atoi(m[1])
				attempt = max(attempt, taken)
			}
		case r.Kind == "state" && r.State == "running" && next > 0:
			if next < attempt || next > attempt+1 && !hole {
				c.add("I2", j, "record %d begins attempt %d after attempt %d", n, next, attempt)
			}
			if next > attempt || state == "waiting_retry" {
				c.before(j, r, of)
			}
			attempt = next
		}
		if r.Kind == "state" {
			state = r.State
		}
	}
}

// before demands that every task known so far ended before the record that
// begins the next attempt.
func (c *checker) before(j *job, begins shown, of map[string]int) {
	for _, t := range j.tasks {
		if _, earlier := of[t.ID]; earlier && (t.Ended.IsZero() || t.Ended.After(begins.T.Add(slack))) {
			c.add("I2", j, "attempt %d began at %s, and task %s of the attempt before had not ended", begins.Detail.Attempt, clock(begins.T), t.ID)
		}
	}
}

// digest demands that success names the digest of the source: I5.
func (c *checker) digest(j *job) {
	final, ok := j.final()
	if !ok || final.Kind != "result" || j.from == "" {
		return
	}
	var value struct {
		Digest string `json:"digest"`
	}
	_ = json.Unmarshal(final.Value, &value) // no object has no digest
	source, known := c.source(j)
	switch {
	case value.Digest == "":
		c.add("I5", j, "it is reported as done without a digest")
	case known && value.Digest != source:
		c.add("I5", j, "it is reported as done with digest %s, and its source %s has %s", value.Digest, j.from, source)
	}
}

// source is the digest of a job's source, if somebody looked and it stayed.
func (c *checker) source(j *job) (string, bool) {
	looks := c.looks[j.from]
	for _, e := range looks {
		if e.Look.Digest != looks[0].Look.Digest {
			return "", false
		}
	}
	return firstDigest(looks), len(looks) > 0
}

func firstDigest(looks []*Event) string {
	if len(looks) == 0 {
		return ""
	}
	return looks[0].Look.Digest
}

// targets judges every place that jobs write to by all that was seen there.
func (c *checker) targets() {
	groups := map[string][]*job{}
	var order []string
	for _, j := range c.order {
		if j.to == "" {
			continue
		}
		if groups[j.to] == nil {
			order = append(order, j.to)
		}
		groups[j.to] = append(groups[j.to], j)
	}
	for _, place := range order {
		c.target(place, groups[place])
	}
}

// target judges one place, to which the jobs of group write: I2, I6, I7, I8.
func (c *checker) target(place string, group []*job) {
	var may int // how many results may be there
	var done []*job
	for _, j := range group {
		if _, over := j.final(); !over || j.done() {
			may++
		}
		if j.done() {
			done = append(done, j)
		}
	}
	var published []string
	for _, t := range c.tasks {
		if t.Place == place && t.Published {
			published = append(published, t.ID)
		}
	}
	if len(published) > may {
		c.add("I2", group[0], "%d tasks published %s (%s), and %d jobs say that they did", len(published), place, strings.Join(published, ", "), may)
	}
	began := group[0].began
	for _, j := range group {
		if !j.began.IsZero() && j.began.Before(began) {
			began = j.began
		}
	}
	old := map[string]bool{}
	var looks []*Event
	for _, e := range c.looks[place] {
		if e.T.Before(began) {
			clear(old) // the last content before the first job is the old one
			old[e.Look.Digest] = true
		} else {
			looks = append(looks, e)
		}
	}
	if len(old) == 0 {
		old[""] = true
	}
	for i, e := range looks {
		last := i == len(looks)-1 && c.ended
		c.look(place, group, done, old, e, last)
	}
	if c.ended && len(done) > 0 && len(looks) == 0 {
		c.add("I15", done[0], "it is reported as done, and nobody looked at %s", place)
	}
}

// look judges what somebody saw at the target.
func (c *checker) look(place string, group, done []*job, old map[string]bool, e *Event, last bool) {
	got := e.Look.Digest
	var makers []*job
	for _, j := range group {
		if source, known := c.source(j); known && source == got {
			makers = append(makers, j)
		}
	}
	name := "what is there has digest " + got
	if got == "" {
		name = "nothing is there"
	}
	switch {
	case last && len(done) > 0 && !slices.ContainsFunc(done, func(j *job) bool { return slices.Contains(makers, j) }):
		event := "I7"
		if strings.HasPrefix(place, Local) {
			event = "I8"
		}
		c.add(event, done[len(done)-1], "it is reported as done, and at %s %s, which is not its source's", place, name)
	case old[got]:
	case len(makers) == 0 && strings.HasPrefix(place, Local):
		c.add("I8", group[0], "at %s the file %s has digest %s: neither the old one nor the source's", clock(e.T), place, got)
	case len(makers) == 0:
		c.add("I6", group[0], "at %s %s has digest %s: neither the old content nor the new one", clock(e.T), place, got)
	case strings.HasPrefix(place, Local):
	case !slices.ContainsFunc(makers, func(j *job) bool { return j.committed(e) }):
		c.add("I6", makers[0], "its result is visible at %s, at %s, before its import was committed", place, clock(e.T))
	case last && len(done) == 0 && !slices.ContainsFunc(group, func(j *job) bool { _, over := j.final(); return !over }):
		c.add("I6", makers[0], "its result is visible at %s, and it is not reported as done", place)
	}
}

// committed reports whether a record says that an import of the job had passed
// its point of no return before e was seen.
func (j *job) committed(e *Event) bool {
	for i, n := range j.numbers() {
		if n != int64(i+1) {
			return true // a record was shown to nobody: it may have been the one
		}
		r := j.records[n]
		if r.Kind != "task" {
			continue
		}
		in, err := decode(r.Record)
		if err == nil && in.Kind == "state" && in.State == "publishing" && !in.T.After(e.T.Add(slack)) {
			return true
		}
	}
	return false
}
