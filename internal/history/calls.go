package history

import (
	"cmp"
	"encoding/json"
	"net/http"
)

// keys demands one job for one key of one caller: I2.
func (c *checker) keys() {
	type key struct{ caller, op, job, key string }
	first := map[key]string{}
	for _, e := range c.calls {
		k := key{e.Call.Caller, e.Call.Op, e.Call.Job, e.Call.Key}
		var r reply
		if k.key == "" || !e.Call.ok() || json.Unmarshal(e.Call.Reply, &r) != nil {
			continue
		}
		if old, known := first[k]; known && old != r.ID {
			c.add("I2", c.job(old), "the same request, with key %q, was acknowledged again as job %s", k.key, r.ID)
		} else if !known {
			first[k] = r.ID
		}
	}
}

// kept demands that an acknowledged job is there, as it was asked for, for
// whoever asks later, and that somebody asked at the end: I1.
func (c *checker) kept(j *job) {
	if len(j.acks) == 0 {
		return
	}
	ack := j.acks[0]
	asked, _ := ack.replied()
	want := cmp.Or(places(ack.Call), endsOf(specIn(asked.Spec)))
	found := false
	for _, e := range j.calls {
		if e.Call.Caller != ack.Call.Caller || e.Call.Began.Before(ack.T) {
			continue
		}
		switch {
		case e.Call.Status == http.StatusNotFound || e.Call.Status == http.StatusGone:
			c.add("I1", j, "acknowledged at %s, and at %s %s is told that there is no such job", clock(ack.T), clock(e.T), e.Call.Op)
		case e.Call.Op == Watch && e.Call.Status == http.StatusConflict:
			c.add("I4", j, "a reader that was shown some records asked for those after them at %s, and is told that there are fewer", clock(e.T))
		case e.Call.ok() && e.Call.Op == Get:
			var r reply
			found = true
			if json.Unmarshal(e.Call.Reply, &r) != nil || r.ID != j.id {
				c.add("I1", j, "asked for at %s, the answer is another job: %s", clock(e.T), short(string(e.Call.Reply)))
			} else if got := endsOf(specIn(r.Spec)); want != "" && got != want {
				c.add("I1", j, "it was acknowledged as %s, and is %s at %s", want, got, clock(e.T))
			}
		}
	}
	if c.ended && !found {
		c.add("I1", j, "acknowledged at %s, and nobody saw it again", clock(ack.T))
	}
	c.listed(j, ack)
}

// listed demands the job in every later list of its owner: I1.
func (c *checker) listed(j *job, ack *Event) {
	for _, e := range c.calls {
		if e.Call.Op != List || !e.Call.ok() || e.Call.Caller != ack.Call.Caller || e.Call.Began.Before(ack.T) {
			continue
		}
		var list struct {
			Jobs []reply `json:"jobs"`
		}
		there := false
		if json.Unmarshal(e.Call.Reply, &list) == nil {
			for _, r := range list.Jobs {
				there = there || r.ID == j.id
			}
		}
		if !there {
			c.add("I1", j, "acknowledged at %s, and missing in the list of %s", clock(ack.T), clock(e.T))
		}
	}
}

// places are the ends in the body of a submission; "" where there are none.
func places(call *Call) string {
	var body struct {
		Spec json.RawMessage `json:"spec"`
	}
	if call.Op != Submit || json.Unmarshal(call.Body, &body) != nil {
		return ""
	}
	return endsOf(specIn(body.Spec))
}

func endsOf(s spec) string {
	from, to := s.ends()
	if from == "" && to == "" {
		return ""
	}
	return s.Kind + " " + from + " " + to
}

// finals demands one final, that stays as it was first seen: I3.
func (c *checker) finals(j *job) {
	if len(j.finals) == 0 {
		return
	}
	first := j.finals[0]
	for _, f := range j.finals[1:] {
		if f.raw != first.raw {
			c.add("I3", j, "its final record was %s at %s (%s), and at %s (%s) it is %s",
				short(first.raw), clock(first.t), first.how, clock(f.t), f.how, short(f.raw))
		}
	}
	final, _ := j.final()
	numbers := j.numbers()
	for _, n := range numbers {
		if r := j.records[n]; r.final() && n != final.Seq {
			c.add("I3", j, "it has two final records, %d and %d", final.Seq, n)
		}
	}
	if last := numbers[max(0, len(numbers)-1):]; len(last) == 1 && final.Seq > 0 && last[0] > final.Seq {
		c.add("I3", j, "record %d comes after the final record %d", last[0], final.Seq)
	}
	for _, e := range j.calls {
		if e.Call.Op != Get || !e.Call.ok() || e.Call.Began.Before(first.t) {
			continue
		}
		r, ok := e.replied()
		if !ok {
			continue
		}
		if len(r.Final) == 0 || string(r.Final) == "null" {
			c.add("I3", j, "its final record was shown at %s (%s), and at %s it is gone: state %q", clock(first.t), first.how, clock(e.T), r.State)
		} else if j.done() != (r.Outcome == "done") {
			c.add("I3", j, "its final record is of kind %s, and at %s its outcome is %q", final.Kind, clock(e.T), r.Outcome)
		}
	}
}
