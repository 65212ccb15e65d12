package feedback

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"gantry/internal/atomicfile"

	"github.com/go-json-experiment/json"
)

// stored is one line of a journal that is being shortened.
type stored struct {
	from, to int64
	off, n   int64 // with newline
	kind     Kind
	state    string // name of a state
	drop     bool
}

// shorten says which lines of a journal may go.
type shorten struct {
	acked  int64 // records up to here are stored elsewhere; the feed's own is used if it is greater
	target int64 // drop until the file has at most so many bytes …
	logs   bool  // … but nothing besides acknowledged records and logs
	all    bool  // drop everything but the final
}

// and joins two requests: what either lets go may go.
func (s shorten) and(t shorten) shorten {
	return shorten{
		acked: max(s.acked, t.acked), target: min(s.target, t.target),
		logs: s.logs && t.logs, all: s.all || t.all,
	}
}

// rewrite returns the journal in old without what s lets go, and its marks.
//
// Acknowledged records go first, then logs, then tasks, then states, the
// oldest first. The final and the newest record of each of the last keptStates
// states stay: what a
// task has begun ("publishing") must be found after a restart.
func rewrite(old []byte, s shorten, every int64) ([]byte, []mark, error) {
	all, err := index(old)
	if err != nil {
		return nil, nil, err
	}
	choose(all, int64(len(old)), s)
	out := old[:0:0]
	head := bytes.IndexByte(old, '\n') + 1
	out = append(out, old[:head]...)
	var marks []mark
	for i := 0; i < len(all); {
		if off := int64(len(out)); len(marks) == 0 || off-marks[len(marks)-1].off >= every {
			marks = append(marks, mark{all[i].from - 1, off})
		}
		first := all[i]
		if !first.drop {
			out = append(out, old[first.off:first.off+first.n]...)
			i++
			continue
		}
		to := first.to
		for i++; i < len(all) && all[i].drop; i++ {
			to = all[i].to
		}
		b, err := Encode(Record{Kind: KindGap, Body: &Gap{From: first.from, To: to, Why: WhyTrimmed}})
		if err != nil {
			return nil, nil, err
		}
		out = append(append(out, b...), '\n')
	}
	return out, marks, nil
}

// index lists the lines of a journal. Gaps are listed as dropped already, so
// that neighbours become one.
func index(old []byte) ([]stored, error) {
	off := int64(bytes.IndexByte(old, '\n') + 1)
	var all []stored
	for off < int64(len(old)) {
		n := int64(bytes.IndexByte(old[off:], '\n') + 1)
		if n == 0 {
			return nil, io.ErrUnexpectedEOF
		}
		b := old[off : off+n-1]
		from, to, err := lineSeq(b)
		if err != nil {
			return nil, err
		}
		s := stored{from: from, to: to, off: off, n: n}
		what, err := describe(b)
		if err != nil {
			return nil, err
		}
		s.kind, s.state, s.drop = what.kind, what.state, what.drop
		all = append(all, s)
		off += n
	}
	return all, nil
}

// describe reads of a line what choose looks at.
func describe(b []byte) (stored, error) {
	var short struct {
		Kind  Kind   `json:"kind"`
		State string `json:"state"`
	}
	// A kind that this version does not know may have a state of another type.
	if err := json.Unmarshal(b, &short); err != nil && short.Kind.known() {
		return stored{}, err
	}
	return stored{kind: short.Kind, state: short.State, drop: short.Kind == KindGap}, nil
}

// keptStates is how many different states keep their newest record: more than
// any task has.
const keptStates = 16

// choose marks what goes.
func choose(all []stored, size int64, s shorten) {
	keep := make(map[int]bool)
	newest := make(map[string]bool)
	for i := len(all) - 1; i >= 0; i-- {
		switch l := all[i]; {
		case l.kind.Final():
			keep[i] = true
		case l.kind == KindState && !s.all && !newest[l.state] && len(newest) < keptStates:
			keep[i], newest[l.state] = true, true
		}
	}
	pass := func(may func(stored) bool, target int64) {
		for i := range all {
			if size <= target {
				return
			}
			if !all[i].drop && !keep[i] && may(all[i]) {
				all[i].drop = true
				size -= all[i].n
			}
		}
	}
	pass(func(l stored) bool { return s.all || l.to <= s.acked }, 0) // however small it gets
	pass(func(l stored) bool { return l.kind == KindLog }, s.target)
	if !s.logs {
		pass(func(l stored) bool { return l.kind == KindTask || !l.kind.known() }, s.target)
		pass(func(l stored) bool { return l.kind == KindState }, s.target)
	}
}

// trim rewrites the journal without what s lets go. The caller owns the file:
// it is the flusher, or the feed is finished. A failure breaks the feed.
func (f *Feed) trim(s shorten) error {
	f.file.Lock() // no reader opens the file between rename and bookkeeping
	defer f.file.Unlock()
	f.mu.Lock()
	end, err := f.end, f.err
	s.acked = max(s.acked, f.acked)
	f.mu.Unlock()
	if err != nil {
		return err
	}
	if f.journal != nil {
		if err = f.trimJournal(s, end); err == nil {
			return nil
		}
		err = fmt.Errorf("shortening a journal: %w", err)
		f.fail(err)
		return err
	}
	old, err := readPrefix(f.path, end)
	if err == nil {
		var short []byte
		var marks []mark
		if short, marks, err = rewrite(old, s, f.o.markEvery()); err == nil {
			return f.replace(short, marks, end)
		}
	}
	err = fmt.Errorf("shortening %s: %w", f.path, err)
	f.fail(err)
	return err
}

// replace puts a shorter journal in the place of the old one.
func (f *Feed) replace(short []byte, marks []mark, end int64) error {
	saved := end - int64(len(short))
	if saved <= 0 {
		f.mu.Lock()
		f.barren = true
		f.mu.Unlock()
		return nil
	}
	if err := atomicfile.WriteFile(f.path, short, journalPerm, "feedback.trim"); err != nil {
		err = fmt.Errorf("shortening: %w", err)
		f.fail(err)
		return err
	}
	f.closeFile() // it is the old one
	f.mu.Lock()
	f.end, f.marks = int64(len(short)), marks
	f.generation++
	f.mu.Unlock()
	f.o.Budget.add(-saved)
	return nil
}

func readPrefix(path string, n int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	b := make([]byte, n)
	_, err = io.ReadFull(file, b)
	return b, err
}
