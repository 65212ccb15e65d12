package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"gantry/feedback"

	"github.com/go-json-experiment/json"
)

// Journal returns the journal of a job's feed, for feedback.OpenJournal. A
// task's record that was stored before is dropped: it leaves a gap. After the
// job is swept away, calls return ErrNotFound.
func (s *Store) Journal(job string) feedback.Journal { return &journal{s: s, id: job} }

// journal keeps the lines of one job.
type journal struct {
	s  *Store
	id string
}

func (j *journal) Load() (held feedback.Held, err error) {
	var job int64
	err = j.s.each(context.Background(), `SELECT n,
			COALESCE((SELECT MAX(place) FROM records WHERE place BETWEEN n * 4294967296 AND n * 4294967296 + 4294967295), 0),
			COALESCE((SELECT SUM(LENGTH(line) + 1) FROM records WHERE place BETWEEN n * 4294967296 AND n * 4294967296 + 4294967295), 0)
		FROM jobs WHERE id = ?`, []any{j.id}, func(scan scanner) error {
		return scan(&job, &held.Last, &held.Bytes)
	})
	held.Last &= maxSeq
	if err == nil && job == 0 {
		err = ErrNotFound
	}
	if err == nil && held.Last > 0 {
		_, err = j.Read(held.Last, 1, func(_ int64, line []byte) error {
			if rec, err := feedback.Decode(line); err != nil {
				return err
			} else if rec.Kind.Final() {
				held.Final = line
			}
			return nil
		})
	}
	if err != nil {
		return feedback.Held{}, fmt.Errorf("reading the feed of %s: %w", j.id, err)
	}
	return held, nil
}

// entry is a line on its way into a journal.
type entry struct {
	line []byte
	task string // "": no task's record
	seq  int64  // the task's own number
}

// taskKind is in every line of a task's record, near its beginning.
var taskKind = []byte(`"kind":"task"`)

// entryOf finds out whether a line is a task's record.
func entryOf(line []byte) (entry, error) {
	e := entry{line: line}
	if !bytes.Contains(line[:min(len(line), 128)], taskKind) {
		return e, nil
	}
	rec, err := feedback.Decode(line)
	if err != nil {
		return e, err
	}
	if t, ok := rec.Body.(*feedback.Task); ok {
		var inner struct {
			Seq int64 `json:"seq"`
		}
		if err := json.Unmarshal(t.Record, &inner); err != nil {
			return e, err
		}
		e.task, e.seq = t.Task, inner.Seq
	}
	return e, nil
}

func (j *journal) Append(seq int64, lines [][]byte) error {
	entries := make([]entry, len(lines))
	for i, line := range lines {
		var err error
		if entries[i], err = entryOf(line); err != nil {
			return fmt.Errorf("storing record %d of %s: %w", seq+int64(i), j.id, err)
		}
	}
	err := j.s.write(context.Background(), func(t *tx) error {
		n, err := t.job(j.id)
		if err != nil {
			return err
		}
		if last := t.last(n); t.err == nil && last != seq-1 {
			return fmt.Errorf("record %d follows %d: two feeds of one job are open", seq, last)
		}
		if seq+int64(len(entries)) > maxSeq {
			return errors.New("the feed has no more numbers")
		}
		for i, e := range entries {
			e.insert(t, n, seq+int64(i))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("storing record %d of %s: %w", seq, j.id, err)
	}
	return nil
}

// insert stores a line, or nothing but its number where it was stored before.
func (e *entry) insert(t *tx, job, seq int64) {
	if e.task != "" && e.seq > 0 {
		var last int64
		t.row("SELECT last FROM tasks WHERE job=? AND task=?", []any{job, e.task}, &last)
		if e.seq <= last {
			t.exec("INSERT INTO records (place, line, sum) VALUES (?, NULL, 0)", place(job, seq))
			return
		}
		t.exec("INSERT INTO tasks (job, task, last) VALUES (?, ?, ?) ON CONFLICT (job, task) DO UPDATE SET last=excluded.last", job, e.task, e.seq)
	}
	at := place(job, seq)
	t.exec("INSERT INTO records (place, line, sum) VALUES (?, ?, ?)", at, e.line, sum(at, e.line))
}

// errEnough ends a query early.
var errEnough = errors.New("enough")

// maxSeq is the greatest number of a record.
const maxSeq = 1<<32 - 1

// place is where a record lies: the feeds one after the other.
func place(job, seq int64) int64 { return job<<32 | seq }

// last returns the greatest number in a job's feed.
func (t *tx) last(job int64) (seq int64) {
	t.row("SELECT COALESCE(MAX(place), 0) FROM records WHERE place BETWEEN ? AND ?", []any{place(job, 0), place(job, maxSeq)}, &seq)
	return seq & maxSeq
}

const selectRecords = "SELECT place, sum, line FROM records WHERE "

// numbered is a line of a feed; nil where it is gone.
type numbered struct {
	seq  int64
	line []byte
}

// scanRecord reads the columns that selectRecords selects.
func scanRecord(scan scanner) (x numbered, err error) {
	var at, have int64
	if err := scan(&at, &have, &x.line); err != nil {
		return x, err
	}
	x.seq = at & maxSeq
	if x.line != nil && have != sum(at, x.line) {
		return x, fmt.Errorf("%w: record %d of a job is not what was written", ErrDamaged, x.seq)
	}
	return x, nil
}

func (j *journal) Read(seq int64, max int, fn func(seq int64, line []byte) error) (next int64, err error) {
	var all []numbered
	next = seq
	err = j.s.each(context.Background(), selectRecords+`place >= (SELECT n FROM jobs WHERE id = ?) * 4294967296 + ?
		AND place <= (SELECT n FROM jobs WHERE id = ?) * 4294967296 + ? ORDER BY place`, []any{j.id, seq, j.id, int64(maxSeq)}, func(scan scanner) error {
		x, err := scanRecord(scan)
		if err != nil {
			return err
		}
		if next = x.seq + 1; x.line == nil {
			return nil
		}
		all = append(all, x)
		if max -= len(x.line) + 1; max <= 0 {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return 0, err
	}
	for _, x := range all { // no connection is held while fn waits for a reader
		if err := fn(x.seq, x.line); err != nil {
			return 0, err
		}
	}
	return next, nil
}

func (j *journal) Trim(seqs []int64) error {
	err := j.s.write(context.Background(), func(t *tx) error {
		n, err := t.job(j.id)
		if err != nil {
			return err
		}
		last := t.last(n)
		for _, seq := range seqs {
			if seq == last {
				t.exec("UPDATE records SET line=NULL, sum=0 WHERE place=?", place(n, seq))
			} else {
				t.exec("DELETE FROM records WHERE place=?", place(n, seq))
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("shortening the feed of %s: %w", j.id, err)
	}
	return nil
}

// TaskSeq returns the greatest number of a task's own records that is stored in
// the feed of a job; 0: none. A reader that attaches to the task goes on after it.
func (s *Store) TaskSeq(ctx context.Context, job, task string) (last int64, err error) {
	err = s.each(ctx, "SELECT last FROM tasks WHERE job = (SELECT n FROM jobs WHERE id = ?) AND task = ?", []any{job, task}, func(scan scanner) error {
		return scan(&last)
	})
	if err != nil {
		return 0, fmt.Errorf("reading how far task %s was stored: %w", task, err)
	}
	return last, nil
}
