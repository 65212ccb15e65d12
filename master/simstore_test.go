package master

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"gantry/api"
	"gantry/feedback"
	"gantry/queue"
)

// simDisk is what survives a master of a simulation.
type simDisk struct {
	mu       sync.Mutex
	jobs     map[string]queue.Job
	keys     map[string]string // owner and key → id
	attempts map[string][]queue.Attempt
	lines    map[string][][]byte
}

func newSimDisk() *simDisk {
	return &simDisk{jobs: map[string]queue.Job{}, keys: map[string]string{}, attempts: map[string][]queue.Attempt{}, lines: map[string][][]byte{}}
}

// simStore is a store on a simDisk, for one master. After a failure, which may
// have had its effect or not, it does nothing any more.
type simStore struct {
	*simDisk
	s      *sim
	life   int
	failAt time.Time // the first change from then on fails; zero: none
	broke  func(error)

	// guarded by simDisk.mu
	done map[string]int // changes, by job and kind
	dead error
}

func (h *simStore) kill() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dead = queue.ErrBroken
}

// write does one change of a job that takes a while.
func (h *simStore) write(kind, job string, effect func() error) error {
	h.mu.Lock()
	what := kind + " " + job
	if j, ok := h.jobs[job]; ok {
		what = kind + " " + j.Key // ids differ from run to run
	}
	h.done[what]++
	n := h.done[what]
	h.mu.Unlock()
	h.s.sleep(5*time.Millisecond, "store", h.life, what, n)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dead != nil {
		return h.dead
	}
	if h.failAt.IsZero() || time.Now().Before(h.failAt) {
		return effect()
	}
	h.dead = fmt.Errorf("%w: simulated", queue.ErrBroken)
	if h.s.roll("store effect", h.life)%2 == 0 {
		_ = effect() // it failed, and is there all the same
	}
	go h.broke(h.dead)
	return h.dead
}

func (h *simStore) read(fn func()) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dead != nil {
		return h.dead
	}
	fn()
	return nil
}

func (h *simStore) Add(_ context.Context, j queue.Job) (kept queue.Job, existed bool, err error) {
	err = h.write("add", j.Key, func() error {
		if id, ok := h.keys[j.Owner+" "+j.Key]; ok {
			kept, existed = h.jobs[id], true
			return nil
		}
		j.Created, j.Changed = time.Now(), time.Now()
		h.jobs[j.ID], h.keys[j.Owner+" "+j.Key] = j, j.ID
		kept = j
		return nil
	})
	return kept, existed, err
}

func (h *simStore) Job(_ context.Context, id string) (j queue.Job, err error) {
	ok := false
	if err := h.read(func() { j, ok = h.jobs[id] }); err != nil {
		return j, err
	}
	if !ok {
		return j, queue.ErrNotFound
	}
	return j, nil
}

func (h *simStore) Unfinished(context.Context) (all []queue.Job, err error) {
	err = h.read(func() {
		for _, j := range h.jobs {
			if !j.State.Final() {
				all = append(all, j)
			}
		}
	})
	slices.SortFunc(all, func(a, b queue.Job) int { return a.Created.Compare(b.Created) })
	return all, err
}

func (h *simStore) Update(_ context.Context, id string, fn func(*queue.Job) error) (out queue.Job, err error) {
	err = h.write("update", id, func() error {
		old, ok := h.jobs[id]
		if !ok {
			return queue.ErrNotFound
		}
		j := old
		_ = fn(&j) // a batch may be tried again
		j = old
		if err := fn(&j); err != nil {
			return err
		}
		if old.State.Final() && (j.State != old.State || string(j.Final) != string(old.Final)) {
			return queue.ErrEnded
		}
		if j.State == queue.Abandoned && old.State != queue.Unknown && old.State != queue.Abandoned {
			h.s.fault("job %s is abandoned when it is %s", id, old.State)
		}
		if !slices.Contains(api.JobStates, j.State) || j.State.Final() != !j.Ended.IsZero() {
			return fmt.Errorf("not a job that can be stored: %s, ended %v", j.State, j.Ended)
		}
		h.jobs[id], out = j, j
		return nil
	})
	return out, err
}

func (h *simStore) SaveAttempt(_ context.Context, a queue.Attempt) error {
	a.Info = slices.Clone(a.Info)
	return h.write("attempt", a.Job, func() error {
		for k, old := range h.attempts[a.Job] {
			if old.N == a.N {
				h.attempts[a.Job][k] = a
				return nil
			}
		}
		h.attempts[a.Job] = append(h.attempts[a.Job], a)
		return nil
	})
}

func (h *simStore) Attempts(_ context.Context, id string) (all []queue.Attempt, err error) {
	err = h.read(func() { all = slices.Clone(h.attempts[id]) })
	return all, err
}

func (h *simStore) AddSample(string, time.Time, []byte) error { return h.read(func() {}) }

func (h *simStore) Journal(id string) feedback.Journal { return simJournal{h, id} }

type simJournal struct {
	h  *simStore
	id string
}

func (j simJournal) Load() (held feedback.Held, err error) {
	err = j.h.read(func() {
		lines := j.h.lines[j.id]
		held.Last = int64(len(lines))
		for _, line := range lines {
			held.Bytes += int64(len(line)) + 1
		}
		if held.Last > 0 {
			if rec, err := feedback.Decode(lines[held.Last-1]); err == nil && rec.Kind.Final() {
				held.Final = lines[held.Last-1]
			}
		}
	})
	return held, err
}

func (j simJournal) Append(seq int64, lines [][]byte) error {
	copied := make([][]byte, len(lines))
	for k := range lines {
		copied[k] = slices.Clone(lines[k])
	}
	return j.h.write("append", j.id, func() error {
		if seq != int64(len(j.h.lines[j.id]))+1 {
			return fmt.Errorf("record %d follows %d", seq, len(j.h.lines[j.id]))
		}
		j.h.lines[j.id] = append(j.h.lines[j.id], copied...)
		return nil
	})
}

func (j simJournal) Read(seq int64, limit int, fn func(int64, []byte) error) (int64, error) {
	var lines [][]byte
	if err := j.h.read(func() { lines = slices.Clone(j.h.lines[j.id]) }); err != nil {
		return seq, err
	}
	for n := 0; seq <= int64(len(lines)) && n < limit; seq++ {
		n += len(lines[seq-1])
		if err := fn(seq, lines[seq-1]); err != nil {
			return seq, err
		}
	}
	return seq, nil
}

func (simJournal) Trim([]int64) error { return errors.New("nothing in a simulation is that long") }
