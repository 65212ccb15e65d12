package history_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"gantry/internal/history"
)

// start is when every generated history begins.
var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// A world makes one valid history: jobs that run as they should, clients that
// lose replies, readers that come and go.
type world struct {
	rng     *rand.Rand
	events  []history.Event
	readers int
	end     time.Time
}

// made is one job of a world.
type made struct {
	id, caller, key, body string
	from, to, source      string // places, digest
	lines                 []string
	times                 []time.Time // of lines
	attempts              []time.Time
	published, ended      time.Time // zero: not
	outcome               string
	tasks                 []history.Task
	retryOf               string
}

// valid makes a history of some jobs without a violation.
func valid(seed uint64) []history.Event {
	w := &world{rng: rand.New(rand.NewPCG(seed, 1)), end: start}
	sources := []string{"b3:aaaa", "b3:bbbb", "b3:cccc"}
	for i, digest := range sources {
		w.look(start, fmt.Sprintf("alpha:disks/src%d.img", i), digest)
	}
	var jobs []*made
	for n := range 2 + w.rng.IntN(4) {
		i := w.rng.IntN(len(sources))
		j := w.job(n, i, sources[i], w.after(start, 2000), "")
		jobs = append(jobs, j)
		if j.outcome != "done" && w.rng.IntN(2) == 0 {
			again := w.job(100+n, i, sources[i], w.after(j.ended, 500), j.id)
			jobs = append(jobs, again)
		}
	}
	w.end = w.end.Add(time.Second)
	w.finish(jobs)
	slices.SortStableFunc(w.events, func(a, b history.Event) int { return a.T.Compare(b.T) })
	return w.events
}

// after is a time within some milliseconds after t.
func (w *world) after(t time.Time, ms int) time.Time {
	t = t.Add(time.Duration(1+w.rng.IntN(ms)) * time.Millisecond)
	if t.After(w.end) {
		w.end = t
	}
	return t
}

func (w *world) add(t time.Time, e history.Event) {
	e.T = t
	w.events = append(w.events, e)
}

func (w *world) look(t time.Time, place, digest string) {
	w.add(t, history.Event{Look: &history.Look{Place: place, Began: t, Digest: digest}})
}

// job makes one job from its submission to its end.
func (w *world) job(n, source int, digest string, began time.Time, retryOf string) *made {
	j := &made{
		id: fmt.Sprintf("job-%d", n), caller: fmt.Sprintf("spiffe://demo/operator/ann%d", n%2), key: fmt.Sprintf("key-%d", n),
		from: fmt.Sprintf("alpha:disks/src%d.img", source), to: fmt.Sprintf("beta:disks/t%d.img", n%100), source: digest, retryOf: retryOf,
	}
	spec := fmt.Sprintf(`{"kind":"copy","from":{"node":"alpha","resource":"disks","path":"src%d.img"},"to":{"node":"beta","resource":"disks","path":"t%d.img"}}`, source, n%100)
	if n%3 == 2 {
		j.to = fmt.Sprintf("local:/tmp/t%d.img", n%100)
		spec = fmt.Sprintf(`{"kind":"export","from":{"node":"alpha","resource":"disks","path":"src%d.img"},"local":"/tmp/t%d.img"}`, source, n%100)
	}
	j.body = `{"spec":` + spec + `}`
	j.outcome = []string{"done", "done", "done", "failed", "cancelled"}[w.rng.IntN(5)]
	old := ""
	if retryOf == "" && n%2 == 1 {
		old = "b3:0123"
		w.look(began.Add(-time.Millisecond), j.to, old)
	}
	acked := w.submit(j, began)
	w.run(j, acked)
	w.watch(j, acked)
	w.ask(j, acked)
	for range w.rng.IntN(4) {
		t := w.after(began, int(j.ended.Sub(began).Milliseconds()))
		switch published := !j.published.IsZero() && t.After(j.published); {
		case published:
			w.look(t, j.to, j.source)
		case retryOf == "":
			w.look(t, j.to, old)
		}
	}
	if retryOf == "" || j.outcome == "done" {
		w.look(j.ended.Add(time.Millisecond), j.to, map[bool]string{true: j.source, false: old}[j.outcome == "done"])
	}
	return j
}

// submit asks until a reply comes, with the same key, and once more.
func (w *world) submit(j *made, t time.Time) time.Time {
	op, body, job, status := history.Submit, j.body, "", 201
	if j.retryOf != "" {
		op, body, job = history.Retry, `{}`, j.retryOf
	}
	call := func(status int, reply string) {
		began := t
		t = w.after(t, 50)
		w.add(t, history.Event{Call: &history.Call{Op: op, Caller: j.caller, Job: job, Key: j.key, Body: json.RawMessage(body), Began: began, Status: status, Reply: json.RawMessage(reply)}})
	}
	for w.rng.IntN(3) == 0 {
		call(0, "")
		status = 200
	}
	call(status, w.reply(j, time.Time{}))
	acked := t
	if w.rng.IntN(3) == 0 {
		call(200, w.reply(j, time.Time{}))
	}
	return acked
}

// reply is what the master says of a job at a time.
func (w *world) reply(j *made, t time.Time) string {
	m := map[string]any{"id": j.id, "kind": "copy", "owner": j.caller, "state": "queued", "attempt": 0}
	var body struct {
		Spec json.RawMessage `json:"spec"`
	}
	_ = json.Unmarshal([]byte(j.body), &body)
	m["spec"] = body.Spec
	if j.retryOf != "" {
		m["retry_of"] = j.retryOf
	}
	if len(j.attempts) > 0 && t.After(j.attempts[0]) {
		m["state"] = "running"
	}
	if !j.ended.IsZero() && t.After(j.ended) {
		m["state"], m["outcome"], m["final"] = j.outcome, j.outcome, json.RawMessage(j.lines[len(j.lines)-1])
	}
	b, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// run makes the records of a job, and its tasks.
func (w *world) run(j *made, t time.Time) {
	record := func(format string, args ...any) {
		t = w.after(t, 400)
		head := fmt.Sprintf(`{"seq":%d,"t":%q,`, len(j.lines)+1, t.Format("2006-01-02T15:04:05.000Z07:00"))
		j.lines, j.times = append(j.lines, head+fmt.Sprintf(format, args...)+"}"), append(j.times, t)
	}
	attempts := 1 + w.rng.IntN(3)
	for a := range attempts {
		t = w.after(t, 300)
		j.attempts = append(j.attempts, t)
		record(`"kind":"state","state":"running","detail":{"attempt":%d}`, a+1)
		if w.rng.IntN(3) == 0 {
			record(`"kind":"log","level":"warn","text":"connection lost, retry in 0.5 s"`)
		}
		last := a == attempts-1
		for _, node := range []string{"alpha", "beta"} {
			op, place, id := "export", j.from, fmt.Sprintf("task-%s-%d-%s", j.id, a, node)
			if node == "beta" {
				if op, place = "import", j.to; strings.HasPrefix(place, history.Local) {
					continue
				}
			}
			seq := 0
			inner := func(format string, args ...any) {
				seq++
				record(`"kind":"task","node":%q,"task":%q,"record":{"seq":%d,"t":%q,%s}`, node, id, seq, t.Format("2006-01-02T15:04:05.000Z07:00"), fmt.Sprintf(format, args...))
			}
			task := history.Task{Node: node, ID: id, Op: op, Place: place, Created: t}
			inner(`"kind":"state","state":"running"`)
			if w.rng.IntN(4) == 0 {
				record(`"kind":"log","level":"warn","text":"records %d to %d of its task are gone (lost)","item":%q`, seq+1, seq+2, node)
				seq += 2
			}
			if node == "beta" && last && j.outcome == "done" {
				inner(`"kind":"state","state":"publishing"`)
				j.published, task.Published = t, true
			}
			if last && j.outcome == "done" {
				inner(`"kind":"result","value":{"digest":%q}`, j.source)
				task.Outcome = "done"
			} else {
				inner(`"kind":"error","code":"io","message":"no","retryable":true`)
				task.Outcome = "failed"
			}
			task.Ended = t
			j.tasks = append(j.tasks, task)
		}
		if !last {
			record(`"kind":"state","state":"waiting_retry","detail":{"attempt":%d}`, a+1)
		}
	}
	if j.outcome == "done" {
		record(`"kind":"result","value":{"digest":%q}`, j.source)
		if strings.HasPrefix(j.to, history.Local) {
			j.published = t.Add(-time.Millisecond)
		}
	} else {
		record(`"kind":"error","code":%q,"message":"no","retryable":false`, j.outcome)
	}
	j.ended = t
}

// watch lets readers come, be cut, and come again where they were.
func (w *world) watch(j *made, acked time.Time) {
	for range 1 + w.rng.IntN(3) {
		after, t := 0, w.after(acked, 1500)
		for after < len(j.lines) {
			after, t = w.read(j, after, t)
			t = w.after(t, 1000)
		}
	}
}

// read shows a reader some lines from after on.
func (w *world) read(j *made, after int, t time.Time) (int, time.Time) {
	w.readers++
	id, began := w.readers, t
	t = w.after(t, 20)
	w.add(t, history.Event{Attach: &history.Attach{Reader: id, Job: j.id, After: int64(after), Began: began}})
	line := func(format string, args ...any) {
		w.add(t, history.Event{Line: &history.Line{Reader: id, Raw: fmt.Sprintf(format, args...)}})
	}
	last := 0
	for last < len(j.lines) && !j.times[last].After(t) {
		last++
	}
	line(`{"kind":"hello","v":1,"id":%q,"last":%d}`, j.id, max(last, after))
	if w.rng.IntN(5) == 0 && last > after+2 {
		line(`{"kind":"gap","from":%d,"to":%d,"why":"trimmed"}`, after+1, after+2)
		after += 2
	}
	for after < len(j.lines) {
		if j.times[after].After(t) {
			t = j.times[after]
		}
		line("%s", j.lines[after])
		after++
		if after < len(j.lines) && w.rng.IntN(3) == 0 {
			line(`{"kind":"progress","item":"x","phase":"fetch","done":%d}`, after*1000)
			line(`{"kind":"heartbeat","t":%q,"last":%d}`, t.Format(time.RFC3339), after)
		}
		if w.rng.IntN(20) == 0 {
			break
		}
	}
	w.add(t, history.Event{Detach: &history.Detach{Reader: id}})
	return after, t
}

// ask asks for the job now and then.
func (w *world) ask(j *made, acked time.Time) {
	t := acked
	for range w.rng.IntN(6) {
		began := t
		t = w.after(t, 700)
		status, reply := 200, w.reply(j, t)
		if w.rng.IntN(5) == 0 {
			status, reply = []int{0, 502}[w.rng.IntN(2)], ""
		}
		w.add(t, history.Event{Call: &history.Call{Op: history.Get, Caller: j.caller, Job: j.id, Began: began, Status: status, Reply: json.RawMessage(reply)}})
	}
}

// finish asks for everything once more, when all has ended.
func (w *world) finish(jobs []*made) {
	at := w.end
	for _, caller := range []string{"spiffe://demo/operator/ann0", "spiffe://demo/operator/ann1"} {
		var list []string
		for _, j := range jobs {
			if j.caller != caller {
				continue
			}
			reply := w.reply(j, at)
			list = append(list, reply)
			w.add(at, history.Event{Call: &history.Call{Op: history.Get, Caller: j.caller, Job: j.id, Began: at, Status: 200, Reply: json.RawMessage(reply)}})
		}
		w.add(at, history.Event{Call: &history.Call{Op: history.List, Caller: caller, Began: at, Status: 200, Reply: json.RawMessage(`{"jobs":[` + strings.Join(list, ",") + `]}`)}})
	}
	for _, j := range jobs {
		w.readers++
		w.add(j.ended.Add(time.Second/2), history.Event{Attach: &history.Attach{Reader: w.readers, Job: j.id, Began: j.ended.Add(time.Second / 2)}})
		for _, line := range j.lines {
			w.add(j.ended.Add(time.Second/2), history.Event{Line: &history.Line{Reader: w.readers, Raw: line}})
		}
		for _, t := range j.tasks {
			w.add(at, history.Event{Task: &t})
		}
	}
	w.add(at, history.Event{Count: &history.Count{What: "descriptors", N: 12, Most: 20}})
	w.add(at, history.Event{Load: &history.Load{What: "jobs", N: len(jobs), Floor: 2}})
	w.add(at, history.Event{End: &history.End{}})
}
