package history_test

import (
	"encoding/json"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"time"

	"gantry/internal/history"
)

type planter = func(*rand.Rand, []history.Event) ([]history.Event, bool)

// copyOf is a changed copy: histories share what they point to.
func copyOf[T any](p *T, change func(*T)) *T {
	c := *p
	change(&c)
	return &c
}

// pick chooses an event for which ok holds.
func pick(rng *rand.Rand, events []history.Event, ok func(i int) bool) (int, bool) {
	var all []int
	for i := range events {
		if ok(i) {
			all = append(all, i)
		}
	}
	if len(all) == 0 {
		return 0, false
	}
	return all[rng.IntN(len(all))], true
}

// edit changes one event.
func edit(which func(*history.Event) bool, change func(*history.Event)) planter {
	return func(rng *rand.Rand, events []history.Event) ([]history.Event, bool) {
		i, ok := pick(rng, events, func(i int) bool { return which(&events[i]) })
		if ok {
			change(&events[i])
		}
		return events, ok
	}
}

// later is a question that was answered, after the job was acknowledged.
func later(e *history.Event) bool {
	return e.Call != nil && e.Call.Op == history.Get && e.Call.Status == 200
}

// atEnd is a question of the very end, whose answer contains a text.
func atEnd(text string) func(*history.Event) bool {
	return func(e *history.Event) bool {
		return later(e) && e.T.Equal(e.Call.Began) && strings.Contains(string(e.Call.Reply), text)
	}
}

var finalField = regexp.MustCompile(`"final":\{.*?\}(\})?,`)

func finalLine(e *history.Event) bool {
	return e.Line != nil && strings.HasPrefix(e.Line.Raw, `{"seq"`) && (strings.Contains(e.Line.Raw, `Z","kind":"result"`) || strings.Contains(e.Line.Raw, `Z","kind":"error"`)) && !strings.Contains(e.Line.Raw, `"kind":"task"`)
}

func insert(e history.Event) planter {
	return func(_ *rand.Rand, events []history.Event) ([]history.Event, bool) {
		e.T = events[len(events)-1].T
		return append(events, e), true
	}
}

// remove takes out events.
func remove(which func(history.Event) bool) planter {
	return func(_ *rand.Rand, events []history.Event) ([]history.Event, bool) {
		before := len(events)
		events = slices.DeleteFunc(events, which)
		return events, len(events) < before
	}
}

// unseen removes every look at a target.
func unseen(rng *rand.Rand, events []history.Event) ([]history.Event, bool) {
	some := len(finished(events, true)) > 0
	return slices.DeleteFunc(events, func(e history.Event) bool { return e.Look != nil && !strings.HasPrefix(e.Look.Place, "alpha:") }), some
}

// forget removes every question about one job.
func forget(rng *rand.Rand, events []history.Event) ([]history.Event, bool) {
	i, ok := pick(rng, events, func(i int) bool { return later(&events[i]) })
	if !ok {
		return events, false
	}
	id := events[i].Call.Job
	return slices.DeleteFunc(events, func(e history.Event) bool { return e.Call != nil && e.Call.Op == history.Get && e.Call.Job == id }), true
}

// twoForOneKey answers the repeat of a submission with a job of its own.
func twoForOneKey(rng *rand.Rand, events []history.Event) ([]history.Event, bool) {
	submits := func(i int) bool {
		c := events[i].Call
		return c != nil && c.Op == history.Submit && c.Status/100 == 2
	}
	i, ok := pick(rng, events, submits)
	if !ok {
		return events, false
	}
	e := events[i]
	e.Call = copyOf(e.Call, func(c *history.Call) {
		c.Reply = json.RawMessage(strings.Replace(string(c.Reply), `"id":"job-`, `"id":"other-`, 1))
	})
	return slices.Insert(events, i+1, e), true
}

// tasks changes what the disk holds of one task.
func tasks(which func(history.Task) bool, change func(history.Task) []history.Task) planter {
	return func(rng *rand.Rand, events []history.Event) ([]history.Event, bool) {
		i, ok := pick(rng, events, func(i int) bool { return events[i].Task != nil && which(*events[i].Task) })
		if !ok {
			return events, false
		}
		changed := change(*events[i].Task)
		t := events[i].T
		events = slices.Delete(events, i, i+1)
		for _, c := range changed {
			events = slices.Insert(events, i, history.Event{T: t, Task: &c})
		}
		return events, true
	}
}

var firstAttempt = regexp.MustCompile("-0-(alpha|beta)$")

// overlap ends a task of an attempt after the next attempt has begun.
func overlap(rng *rand.Rand, events []history.Event) ([]history.Event, bool) {
	has := map[string]bool{}
	for _, e := range events {
		if e.Task != nil {
			has[e.Task.ID] = true
		}
	}
	i, ok := pick(rng, events, func(i int) bool {
		t := events[i].Task
		return t != nil && firstAttempt.MatchString(t.ID) && has[firstAttempt.ReplaceAllString(t.ID, "-1-$1")]
	})
	if ok {
		events[i].Task = copyOf(events[i].Task, func(t *history.Task) { t.Ended = t.Ended.Add(time.Hour) })
	}
	return events, ok
}

// lines changes one stored record for all its readers.
func lines(part string, change func(string) string) planter {
	return func(rng *rand.Rand, events []history.Event) ([]history.Event, bool) {
		i, ok := pick(rng, events, func(i int) bool { return events[i].Line != nil && strings.Contains(events[i].Line.Raw, part) })
		if !ok {
			return events, false
		}
		old := events[i].Line.Raw
		for k := range events {
			if l := events[k].Line; l != nil && l.Raw == old {
				events[k].Line = &history.Line{Reader: l.Reader, Raw: change(old)}
			}
		}
		return events, true
	}
}

// everywhere changes text wherever it stands: in lines and replies.
func everywhere(what *regexp.Regexp, with string) planter {
	return func(_ *rand.Rand, events []history.Event) ([]history.Event, bool) {
		changed := false
		for i := range events {
			if l := events[i].Line; l != nil && finalLine(&events[i]) && what.MatchString(l.Raw) {
				events[i].Line, changed = &history.Line{Reader: l.Reader, Raw: what.ReplaceAllString(l.Raw, with)}, true
			}
			if c := events[i].Call; c != nil {
				events[i].Call = copyOf(c, func(c *history.Call) { c.Reply = json.RawMessage(what.ReplaceAllString(string(c.Reply), with)) })
			}
		}
		return events, changed
	}
}

// twice shows a final record again, to the same reader.
func twice(rng *rand.Rand, events []history.Event) ([]history.Event, bool) {
	i, ok := pick(rng, events, func(i int) bool { return finalLine(&events[i]) })
	if !ok {
		return events, false
	}
	return slices.Insert(events, i+1, events[i]), true
}

// between changes a stored record that its reader is shown before others.
func between(change func([]history.Event, int) []history.Event) planter {
	return func(rng *rand.Rand, events []history.Event) ([]history.Event, bool) {
		i, ok := pick(rng, events, func(i int) bool {
			if events[i].Line == nil || !strings.HasPrefix(events[i].Line.Raw, `{"seq"`) {
				return false
			}
			for _, e := range events[i+1:] {
				if e.Line != nil && e.Line.Reader == events[i].Line.Reader && strings.HasPrefix(e.Line.Raw, `{"seq"`) {
					return true
				}
			}
			return false
		})
		if !ok {
			return events, false
		}
		return change(events, i), true
	}
}

// differs shows one of two readers another text.
func differs(rng *rand.Rand, events []history.Event) ([]history.Event, bool) {
	count := map[string]int{}
	for _, e := range events {
		if e.Line != nil {
			count[e.Line.Raw]++
		}
	}
	i, ok := pick(rng, events, func(i int) bool {
		l := events[i].Line
		return l != nil && strings.HasPrefix(l.Raw, `{"seq"`) && count[l.Raw] > 1 && !finalLine(&events[i])
	})
	if !ok {
		return events, false
	}
	l := events[i].Line
	events[i].Line = &history.Line{Reader: l.Reader, Raw: strings.TrimSuffix(l.Raw, "}") + `,"x":1}`}
	return events, true
}

var helloLast = regexp.MustCompile(`"last":[0-9]+`)

// forgetful greets a later reader as if less had been shown.
func forgetful(rng *rand.Rand, events []history.Event) ([]history.Event, bool) {
	job, most := map[int]string{}, map[string]bool{}
	var hellos []int
	for i, e := range events {
		if e.Attach != nil {
			job[e.Attach.Reader] = e.Attach.Job
		}
		if e.Line == nil {
			continue
		}
		id := job[e.Line.Reader]
		if strings.HasPrefix(e.Line.Raw, `{"kind":"hello"`) && most[id] {
			hellos = append(hellos, i)
		}
		if strings.HasPrefix(e.Line.Raw, `{"seq":3,`) {
			most[id] = true
		}
	}
	if len(hellos) == 0 {
		return events, false
	}
	i := hellos[rng.IntN(len(hellos))]
	shown := false // before this reader's request
	for _, e := range events[:i] {
		if e.Attach != nil && e.Attach.Reader == events[i].Line.Reader {
			shown = was(events, e.Attach.Job, e.Attach.Began, job)
		}
	}
	l := events[i].Line
	events[i].Line = &history.Line{Reader: l.Reader, Raw: helloLast.ReplaceAllString(l.Raw, `"last":2`)}
	return events, shown
}

// was reports whether record 3 of a job was shown before t.
func was(events []history.Event, id string, t time.Time, job map[int]string) bool {
	for _, e := range events {
		if e.Line != nil && job[e.Line.Reader] == id && e.T.Before(t) && strings.HasPrefix(e.Line.Raw, `{"seq":3,`) {
			return true
		}
	}
	return false
}

// looks changes what somebody saw at a target after the job was submitted.
func looks(prefix string, change func(*rand.Rand, string) string) planter {
	return func(rng *rand.Rand, events []history.Event) ([]history.Event, bool) {
		began := submitted(events)
		i, ok := pick(rng, events, func(i int) bool {
			l := events[i].Look
			return l != nil && strings.HasPrefix(l.Place, prefix) && events[i].T.After(began[l.Place]) && !lastAt(events, i)
		})
		if ok {
			events[i].Look = copyOf(events[i].Look, func(l *history.Look) { l.Digest = change(rng, l.Digest) })
		}
		return events, ok
	}
}

func lastAt(events []history.Event, i int) bool {
	return !slices.ContainsFunc(events[i+1:], func(e history.Event) bool { return e.Look != nil && e.Look.Place == events[i].Look.Place })
}

// submitted is when the first job of each target was.
func submitted(events []history.Event) map[string]time.Time {
	out := map[string]time.Time{}
	for _, e := range events {
		if e.Call == nil || e.Call.Op != history.Submit {
			continue
		}
		if _, known := out[target(e)]; !known {
			out[target(e)] = e.Call.Began
		}
	}
	return out
}

var targetPath = regexp.MustCompile(`"resource":"disks","path":"(t[0-9]+.img)"|"local":"([^"]*)"`)

func target(e history.Event) string {
	m := targetPath.FindStringSubmatch(string(e.Call.Body))
	if m == nil {
		return ""
	}
	if m[2] != "" {
		return history.Local + m[2]
	}
	return "beta:disks/" + m[1]
}

// early shows a result before it was committed: at the job's first look.
func early(_ *rand.Rand, events []history.Event) ([]history.Event, bool) {
	began, sources := submitted(events), map[string]string{}
	for i, e := range events {
		if e.Look != nil && strings.HasPrefix(e.Look.Place, "alpha:") {
			sources[e.Look.Place] = e.Look.Digest
		}
		if e.Call != nil && e.Call.Op == history.Submit && strings.HasPrefix(target(e), "beta:") && e.Call.Status == 201 {
			t := e.Call.Began.Add(time.Millisecond / 2)
			if t.Before(began[target(e)]) {
				continue
			}
			from := "alpha:disks/" + regexp.MustCompile(`src[0-9].img`).FindString(string(e.Call.Body))
			return slices.Insert(events, i, history.Event{T: t, Look: &history.Look{Place: target(e), Began: t, Digest: sources[from]}}), true
		}
	}
	return events, false
}

// unreported shows the result of a job that is not reported as done.
func unreported(rng *rand.Rand, events []history.Event) ([]history.Event, bool) {
	good := finished(events, true)
	sources, froms := map[string]string{}, map[string]string{}
	for _, e := range events {
		if e.Look != nil {
			sources[e.Look.Place] = e.Look.Digest
		}
		if e.Call != nil && e.Call.Op == history.Submit {
			froms[target(e)] = "alpha:disks/" + regexp.MustCompile(`src[0-9].img`).FindString(string(e.Call.Body))
		}
	}
	i, ok := pick(rng, events, func(i int) bool {
		l := events[i].Look
		return l != nil && strings.HasPrefix(l.Place, "beta:") && lastAt(events, i) && !good[l.Place]
	})
	if ok {
		events[i].Look = copyOf(events[i].Look, func(l *history.Look) { l.Digest = sources[froms[l.Place]] })
	}
	return events, ok
}

// finished are the targets of which some job ended done, or not.
func finished(events []history.Event, done bool) map[string]bool {
	out := map[string]bool{}
	for _, e := range events {
		if e.Call != nil && e.Call.Op == history.Get && strings.Contains(string(e.Call.Reply), `"outcome":"done"`) == done && strings.Contains(string(e.Call.Reply), `"outcome"`) {
			c := *e.Call
			c.Body = c.Reply
			out[target(history.Event{Call: &c})] = true
		}
	}
	return out
}

func lastLook(prefix, digest string) planter {
	return func(rng *rand.Rand, events []history.Event) ([]history.Event, bool) {
		good := finished(events, true)
		i, ok := pick(rng, events, func(i int) bool {
			l := events[i].Look
			return l != nil && strings.HasPrefix(l.Place, prefix) && good[l.Place] && lastAt(events, i)
		})
		if ok {
			events[i].Look = copyOf(events[i].Look, func(l *history.Look) { l.Digest = digest })
		}
		return events, ok
	}
}

// endless takes the finals from all jobs, and lets the end be a minute later.
func endless(_ *rand.Rand, events []history.Event) ([]history.Event, bool) {
	var out []history.Event
	for _, e := range events {
		if finalLine(&e) {
			continue
		}
		if c := e.Call; c != nil && len(c.Reply) > 0 {
			text := finalField.ReplaceAllString(string(c.Reply), "")
			text = regexp.MustCompile(`"state":"(done|failed|cancelled)"`).ReplaceAllString(text, `"state":"running"`)
			e.Call = copyOf(c, func(c *history.Call) { c.Reply = json.RawMessage(text) })
		}
		if e.Task != nil || e.Look != nil && strings.HasPrefix(e.Look.Place, "beta:") {
			continue
		}
		if e.End != nil {
			e.T = e.T.Add(time.Minute)
		}
		out = append(out, e)
	}
	return out, true
}

var times = regexp.MustCompile(`2026-01-02T[0-9:.]+Z`)

// pause lets a minute pass between two records of a running job that somebody
// watches: all times from then on are later.
func pause(rng *rand.Rand, events []history.Event) ([]history.Event, bool) {
	i, ok := pick(rng, events, func(i int) bool {
		l := events[i].Line
		if l == nil || !strings.Contains(l.Raw, `"kind":"state","state":"running"`) {
			return false
		}
		for _, e := range events[i+1:] { // live, and not cut here
			if e.Line != nil && e.Line.Reader == l.Reader && strings.HasPrefix(e.Line.Raw, `{"seq"`) {
				return strings.Contains(l.Raw, events[i].T.Format(`"t":"2006-01-02T15:04:05.000Z"`)) && e.T.After(events[i].T)
			}
		}
		return false
	})
	if !ok {
		return events, false
	}
	cut := events[i].T
	later := func(t time.Time) time.Time {
		if t.After(cut) {
			return t.Add(time.Minute)
		}
		return t
	}
	shift := func(text string) string {
		return times.ReplaceAllStringFunc(text, func(s string) string {
			t, err := time.Parse(time.RFC3339Nano, s)
			if err != nil {
				panic(err)
			}
			return later(t).Format("2006-01-02T15:04:05.000Z")
		})
	}
	for k := range events {
		e := &events[k]
		e.T = later(e.T)
		switch {
		case e.Call != nil:
			e.Call = copyOf(e.Call, func(c *history.Call) {
				c.Began, c.Reply = later(c.Began), json.RawMessage(shift(string(c.Reply)))
			})
		case e.Attach != nil:
			e.Attach = copyOf(e.Attach, func(a *history.Attach) { a.Began = later(a.Began) })
		case e.Line != nil:
			e.Line = copyOf(e.Line, func(l *history.Line) { l.Raw = shift(l.Raw) })
		case e.Look != nil:
			e.Look = copyOf(e.Look, func(l *history.Look) { l.Began = later(l.Began) })
		case e.Task != nil:
			e.Task = copyOf(e.Task, func(t *history.Task) { t.Created, t.Ended = later(t.Created), later(t.Ended) })
		}
	}
	return events, true
}
