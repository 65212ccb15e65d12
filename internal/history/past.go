package history

import (
	"bytes"
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// past is a history by what it is about.
type past struct {
	jobs    map[string]*job
	order   []*job // as they were first heard of
	readers map[int]*reader
	looks   map[string][]*Event // by place
	tasks   []*Task
	calls   []*Event
	other   []*Event // Left, Count, Load
	ended   bool
	end     time.Time
}

func build(events []Event) *past {
	p := &past{jobs: map[string]*job{}, readers: map[int]*reader{}, looks: map[string][]*Event{}}
	for i := range events {
		e := &events[i]
		if e.T.After(p.end) {
			p.end = e.T
		}
		switch {
		case e.Call != nil:
			p.call(e)
		case e.Attach != nil:
			r := &reader{Attach: *e.Attach, at: e.T}
			j := p.job(r.Job)
			p.readers[r.Reader], j.readers = r, append(j.readers, r)
		case e.Line != nil:
			p.line(e)
		case e.Detach != nil:
			if r := p.readers[e.Detach.Reader]; r != nil {
				r.end = e.T
			}
		case e.Look != nil:
			p.looks[e.Look.Place] = append(p.looks[e.Look.Place], e)
		case e.Task != nil:
			p.tasks = append(p.tasks, e.Task)
		case e.End != nil:
			p.ended = true
		default:
			p.other = append(p.other, e)
		}
	}
	for _, r := range p.readers {
		if r.end.IsZero() {
			r.end = p.end
		}
	}
	for _, j := range p.order {
		slices.SortStableFunc(j.finals, func(a, b seen) int { return a.t.Compare(b.t) })
	}
	p.attribute()
	return p
}

func (p *past) job(id string) *job {
	j := p.jobs[id]
	if j == nil {
		j = &job{id: id, records: map[int64]shown{}}
		p.jobs[id], p.order = j, append(p.order, j)
	}
	return j
}

func (p *past) call(e *Event) {
	c := e.Call
	p.calls = append(p.calls, e)
	if c.Op == List {
		var list struct {
			Jobs []reply `json:"jobs"`
		}
		if c.ok() && json.Unmarshal(c.Reply, &list) == nil {
			for _, r := range list.Jobs {
				p.finalIn(r, e)
			}
		}
		return
	}
	if c.Job != "" {
		p.job(c.Job).calls = append(p.job(c.Job).calls, e)
	}
	var r reply
	if !c.ok() || json.Unmarshal(c.Reply, &r) != nil || r.ID == "" {
		return
	}
	p.finalIn(r, e)
	j := p.job(r.ID)
	if c.Op == Submit || c.Op == Retry {
		j.acks = append(j.acks, e)
		if j.began.IsZero() || c.Began.Before(j.began) {
			j.began = c.Began
		}
	}
	if j.from == "" && j.to == "" {
		j.from, j.to = specIn(r.Spec).ends()
	}
}

// finalIn notes a final record in a reply.
func (p *past) finalIn(r reply, e *Event) {
	if len(r.Final) > 0 && string(r.Final) != "null" {
		j := p.job(r.ID)
		j.finals = append(j.finals, seen{compact(r.Final), e.T, "in the answer to " + e.Call.Op})
	}
}

func (p *past) line(e *Event) {
	r := p.readers[e.Line.Reader]
	if r == nil {
		return
	}
	l := lineSeen{raw: e.Line.Raw, seen: e.T}
	l.record, l.err = decode([]byte(l.raw))
	r.lines = append(r.lines, l)
	if l.err != nil || !l.stored() {
		return
	}
	j := p.job(r.Job)
	if _, known := j.records[l.Seq]; !known {
		j.records[l.Seq] = shown{l.record, l.raw, l.seen, r.Reader}
	}
	if l.final() {
		j.finals = append(j.finals, seen{compact([]byte(l.raw)), e.T, "in a feed"})
	}
}

// attribute gives each job the tasks of its attempts: those that its feed
// names, and otherwise those that write where it alone writes.
func (p *past) attribute() {
	byID, byTarget := map[string]*job{}, map[string][]*job{}
	for _, j := range p.order {
		for _, n := range j.numbers() {
			if r := j.records[n]; r.Kind == "task" {
				byID[r.Node+" "+r.Task] = j
			}
		}
		if j.to != "" {
			byTarget[j.to] = append(byTarget[j.to], j)
		}
	}
	for _, t := range p.tasks {
		j := byID[t.Node+" "+t.ID]
		if sole := byTarget[t.Place]; j == nil && t.Op == "import" && len(sole) == 1 {
			j = sole[0]
		}
		if j != nil {
			j.tasks = append(j.tasks, t)
		}
	}
	for _, j := range p.order {
		slices.SortFunc(j.tasks, func(a, b *Task) int {
			return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.ID, b.ID))
		})
	}
}

// replied is the job in the reply to a call that succeeded.
func (e *Event) replied() (reply, bool) {
	var r reply
	return r, e.Call.ok() && json.Unmarshal(e.Call.Reply, &r) == nil
}

func specIn(raw json.RawMessage) spec {
	var s spec
	_ = json.Unmarshal(raw, &s) // what is none names no places
	return s
}

// compact is JSON without the spaces between its tokens; other text is as it is.
func compact(raw []byte) string {
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		return string(raw)
	}
	return b.String()
}
