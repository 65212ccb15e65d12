package master

import (
	"fmt"
	"slices"

	"gantry/api"
	"gantry/feedback"
	"gantry/job"
	"gantry/queue"
)

// started judges a task that begins.
func (s *sim) started(t *simTask) {
	s.mu.Lock()
	var broken []string
	if s.over[t.path] && !s.abandoned[t.path] && t.req.Op == api.OpImport {
		broken = append(broken, "an import of "+t.path+" begins after its job has ended")
	}
	slots, limits := map[string]bool{t.path: true}, map[string]bool{}
	for _, other := range s.tasks {
		if !s.live[other.req.ID] {
			continue
		}
		// Of the two tasks of an attempt, the second knows the id of the first.
		if other.path == t.path && other.req.ID != t.peer {
			broken = append(broken, fmt.Sprintf("%s: %s %d begins while %s %d runs", t.path, t.req.Op, t.number, other.req.Op, other.number))
		}
		if other.req.Op != api.OpExport {
			if s.abandoned[other.path] {
				continue // nobody knows that it runs
			}
			if other.n == t.n {
				slots[other.path] = true
			}
			if s.script == nil && s.limited(other.path) {
				limits[other.path] = true
			}
		}
	}
	if t.req.Op != api.OpExport && s.script == nil && !s.abandoned[t.path] {
		if len(slots) > simSlots {
			broken = append(broken, fmt.Sprintf("%s runs %d jobs, %d are allowed", t.n.name, len(slots), simSlots))
		}
		if s.limited(t.path) {
			if limits[t.path] = true; len(limits) > simLimit {
				broken = append(broken, fmt.Sprintf("%d jobs of a limit of %d run", len(limits), simLimit))
			}
		}
	}
	s.live[t.req.ID] = true
	s.tasks = append(s.tasks, t)
	s.mu.Unlock()
	for _, text := range broken {
		s.fault("%s", text)
	}
}

func (s *sim) limited(path string) bool {
	return s.roll("limit", path[len("job"):])%3 == 0
}

// ended notes the end of a task, before its final can be seen.
func (s *sim) ended(t *simTask, outcome api.Outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.live, t.req.ID)
	if t.req.Op == api.OpImport && outcome == api.Done {
		s.effects[t.path]++
	}
}

func (s *sim) written(id string) bool {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	return s.disk.jobs[id].State.Final()
}

func (s *sim) unknown(id string) bool {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	return s.disk.jobs[id].State == queue.Unknown
}

func (s *sim) describe(id string) string {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	j := s.disk.jobs[id]
	text := fmt.Sprintf("%s, attempt %d, %s", j.State, j.Attempt, j.Why)
	for _, line := range s.disk.lines[id] {
		text += "\n  " + string(line)
	}
	return text
}

// judge looks at what is on disk when all is over.
func (s *sim) judge(ids []string) {
	s.counts.Jobs += len(ids)
	if len(s.disk.jobs) != len(slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return id == "" })) && len(s.found) == 0 {
		s.fault("%d jobs in the store, %d were acknowledged", len(s.disk.jobs), len(ids))
	}
	for k, id := range ids {
		j, ok := s.disk.jobs[id]
		if id == "" {
			continue
		}
		if !ok {
			s.fault("job%d was acknowledged and is lost", k)
			continue
		}
		s.judgeJob(fmt.Sprint("job", k), j)
	}
}

func (s *sim) judgeJob(path string, j queue.Job) {
	if !s.over[path] {
		return // it was said that it did not end
	}
	finals := 0
	last := map[string]int64{}
	for k, line := range s.disk.lines[j.ID] {
		rec, err := feedback.Decode(line)
		if err != nil || rec.Seq != int64(k)+1 {
			s.fault("%s: line %d of its feed has number %d: %v", path, k+1, rec.Seq, err)
		}
		if rec.Kind.Final() {
			finals++
			if string(j.Final) != string(line) {
				s.fault("%s: its row has final %s, its feed %s", path, j.Final, line)
			}
		}
		switch body := rec.Body.(type) {
		case *feedback.Task:
			inner, err := feedback.Decode(body.Record)
			if err != nil || inner.Seq != last[body.Task]+1 {
				s.fault("%s: record %d of task %s follows %d: %v", path, inner.Seq, body.Task, last[body.Task], err)
			}
			last[body.Task] = inner.Seq
		case *feedback.State:
			switch queue.State(body.State) {
			case queue.Waiting:
				s.counts.Retries++
			case queue.Unknown:
				s.counts.Unknown++
			case queue.Stalled:
				s.counts.Stalled++
			}
		}
	}
	if finals != 1 {
		s.fault("%s has %d finals", path, finals)
	}
	effects := s.effects[path]
	switch j.State {
	case queue.Done:
		s.counts.Done++
		if j.Kind == job.Copy && effects != 1 {
			s.fault("%s is done and has been published %d times", path, effects)
		}
	case queue.Cancelled:
		s.counts.Cancelled++
		if effects != 0 || j.CancelBy == "" {
			s.fault("%s is cancelled (by %q) and has been published %d times", path, j.CancelBy, effects)
		}
	case queue.Failed, queue.Refused:
		s.counts.Failed++
		if effects != 0 {
			s.fault("%s is %s and has been published %d times", path, j.State, effects)
		}
	case queue.Abandoned:
		s.counts.Abandoned++
		if effects > 1 || j.CancelBy == "" || j.Outcome != api.Unknown {
			s.fault("%s is abandoned (by %q, outcome %s) and has been published %d times", path, j.CancelBy, j.Outcome, effects)
		}
	default:
		s.fault("%s ended and is %s in the store", path, j.State)
	}
}
