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

// A mutation plants one violation; also names what else it may look like.
type mutation struct {
	event, what, also string
	plant             func(*rand.Rand, []history.Event) ([]history.Event, bool)
}

var mutations = []mutation{
	{"I1", "a later question is told that there is no such job", "", edit(later, func(e *history.Event) {
		e.Call = copyOf(e.Call, func(c *history.Call) { c.Status, c.Reply = 404, nil })
	})},
	{"I1", "a list lacks the job", "", edit(func(e *history.Event) bool {
		return e.Call != nil && e.Call.Op == history.List && strings.Contains(string(e.Call.Reply), `"id"`)
	}, func(e *history.Event) {
		e.Call = copyOf(e.Call, func(c *history.Call) { c.Reply = json.RawMessage(`{"jobs":[]}`) })
	})},
	{"I1", "the job does something else than it was asked for", "", edit(later, func(e *history.Event) {
		e.Call = copyOf(e.Call, func(c *history.Call) {
			c.Reply = json.RawMessage(strings.Replace(string(c.Reply), `"path":"src`, `"path":"other`, 1))
		})
	})},
	{"I1", "nobody sees the job again", "", forget},
	{"I2", "the same key is acknowledged as two jobs", "I1", twoForOneKey},
	{"I2", "two imports publish", "", tasks(func(t history.Task) bool { return t.Published }, func(t history.Task) []history.Task {
		again := t
		again.ID, again.Created, again.Ended = t.ID+"-again", t.Ended.Add(time.Hour), t.Ended.Add(2*time.Hour)
		return []history.Task{t, again}
	})},
	{"I2", "an attempt begins while the one before runs", "", overlap},
	{"I2", "an attempt is skipped", "", lines(`"state":"running","detail":{"attempt":2}`, func(s string) string { return strings.Replace(s, `"attempt":2`, `"attempt":4`, 1) })},
	{"I3", "a final record changes", "I4", edit(finalLine, func(e *history.Event) {
		e.Line = copyOf(e.Line, func(l *history.Line) { l.Raw = strings.Replace(l.Raw, `"t":"2026`, `"t":"2027`, 1) })
	})},
	{"I3", "a final record comes twice", "I4", twice},
	{"I3", "a final record is gone", "", edit(atEnd(`"final"`),
		func(e *history.Event) {
			e.Call = copyOf(e.Call, func(c *history.Call) {
				c.Reply = json.RawMessage(finalField.ReplaceAllString(string(c.Reply), ""))
			})
		})},
	{"I3", "an answer contradicts the final record", "", edit(atEnd(`"outcome":"done"`),
		func(e *history.Event) {
			e.Call = copyOf(e.Call, func(c *history.Call) {
				c.Reply = json.RawMessage(strings.Replace(string(c.Reply), `"outcome":"done"`, `"outcome":"failed"`, 1))
			})
		})},
	{"I4", "a record is left out", "", between(func(events []history.Event, i int) []history.Event { return slices.Delete(events, i, i+1) })},
	{"I4", "two records change places", "I3", between(func(events []history.Event, i int) []history.Event {
		for k := i + 1; k < len(events); k++ {
			if l := events[k].Line; l != nil && l.Reader == events[i].Line.Reader && strings.HasPrefix(l.Raw, `{"seq"`) {
				events[i].Line, events[k].Line = events[k].Line, events[i].Line
				break
			}
		}
		return events
	})},
	{"I4", "a record comes twice", "", between(func(events []history.Event, i int) []history.Event { return slices.Insert(events, i, events[i]) })},
	{"I4", "two readers see different records", "I2 I6 I9", differs},
	{"I4", "a line is torn", "", between(func(events []history.Event, i int) []history.Event {
		events[i].Line = copyOf(events[i].Line, func(l *history.Line) { l.Raw = l.Raw[:len(l.Raw)/2] })
		return events
	})},
	{"I4", "a reader is told that it has seen too much", "", edit(later, func(e *history.Event) {
		e.Call = copyOf(e.Call, func(c *history.Call) { c.Op, c.Status, c.Reply = history.Watch, 409, nil })
	})},
	{"I4", "what was shown is forgotten", "", forgetful},
	{"I4", "a task's record is stored twice", "I2", lines(`"record":{"seq":2,`, func(s string) string { return strings.Replace(s, `"record":{"seq":2,`, `"record":{"seq":1,`, 1) })},
	{"I4", "a task's record is missing and nothing says so", "", lines(`"record":{"seq":1,`, func(s string) string { return strings.Replace(s, `"record":{"seq":1,`, `"record":{"seq":2,`, 1) })},
	{"I5", "success with another digest", "I7 I8", everywhere(regexp.MustCompile(`("kind":"result","value":{"digest":")b3:`), "${1}b3:ff")},
	{"I5", "success without a digest", "I7 I8", everywhere(regexp.MustCompile(`("kind":"result","value":{)"digest":"[^"]*"`), "${1}")},
	{"I6", "a part of an import is visible", "I7", looks("beta:", func(*rand.Rand, string) string { return "b3:5555" })},
	{"I6", "an import is visible before its commit", "", early},
	{"I6", "an import is visible and not reported", "", unreported},
	{"I7", "a target has other bytes", "", lastLook("beta:", "b3:5555")},
	{"I7", "a target is not there", "", lastLook("beta:", "")},
	{"I8", "an exported file has other bytes", "", lastLook("local:", "b3:5555")},
	{"I8", "an exported file has a part of its bytes for a while", "", looks("local:", func(*rand.Rand, string) string { return "b3:5555" })},
	{"I9", "a job never ends", "I6 I7 I8", endless},
	{"I9", "a job does not move for a minute", "", pause},
	{"I10", "a file is left", "", insert(history.Event{Left: &history.Left{What: "/beta/disks/.gantry/x"}})},
	{"I10", "descriptors are left", "", insert(history.Event{Count: &history.Count{What: "descriptors", N: 21, Most: 20}})},
	{"I10", "a task is left", "I2", tasks(func(t history.Task) bool { return true }, func(t history.Task) []history.Task {
		t.Ended = time.Time{}
		return []history.Task{t}
	})},
	{"I15", "the load is under its floor", "", insert(history.Event{Load: &history.Load{What: "kills", N: 9, Floor: 10}})},
	{"I15", "nobody waited for the end", "", remove(func(e history.Event) bool { return e.End != nil })},
	{"I15", "nobody looked at the target", "", unseen},
}
