package queue

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"gantry/internal/failpoint"
)

// maxBatch is how many changes one commit takes: some 50 ms of work.
const maxBatch = 1024

// A change is one caller's part of a batch.
type change struct {
	do   func(*tx) error
	err  error // set before done is closed
	done chan struct{}
	turn atomic.Int32 // waiting, taken or left
}

const (
	waiting int32 = iota
	taken
	left // its caller's context ended first
)

// write has the writer run do and returns when it is committed. do reads and
// checks first, and returns an error only as long as it has written nothing.
// When ctx ends before do's turn, nothing is written.
func (s *Store) write(ctx context.Context, do func(*tx) error) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	c := &change{do: do, done: make(chan struct{})}
	s.mu.Lock()
	if err := s.state(); err != nil {
		s.mu.Unlock()
		return err
	}
	s.pending = append(s.pending, c)
	s.mu.Unlock()
	s.wake()
	select {
	case <-c.done:
	case <-ctx.Done():
		if c.turn.CompareAndSwap(waiting, left) {
			return context.Cause(ctx)
		}
		<-c.done
	}
	return c.err
}

// state says why nothing can be written; mu is held.
func (s *Store) state() error {
	switch {
	case s.broken != nil:
		return s.broken
	case s.closing:
		return ErrClosed
	}
	return nil
}

// wake tells the writer that something waits.
func (s *Store) wake() {
	select {
	case s.kick <- struct{}{}:
	default: // it was told
	}
}

// run is the writer. It ends when the store is closing and nothing waits.
func (s *Store) run() {
	defer close(s.ended)
	for {
		s.mu.Lock()
		batch := s.pending
		s.pending = nil
		if len(batch) > maxBatch {
			s.pending = batch[maxBatch:]
			batch = batch[:maxBatch:maxBatch]
		}
		samples, closing := s.samples.take(len(batch) > 0 || s.closing), s.closing
		s.mu.Unlock()
		if len(batch)+len(samples) > 0 {
			s.commit(batch, samples)
			continue
		}
		if closing {
			return
		}
		select {
		case <-s.kick:
		case <-s.samples.due():
			s.samples.ripe()
		}
	}
}

// commit runs a batch and answers its callers.
func (s *Store) commit(batch []*change, samples []sample) {
	began := time.Now()
	taking := batch[:0]
	for _, c := range batch {
		if c.turn.CompareAndSwap(waiting, taken) {
			taking = append(taking, c)
		}
	}
	if len(taking)+len(samples) == 0 {
		return
	}
	err := s.broke()
	if err == nil {
		if err = s.transact(taking, samples); err != nil {
			err = s.fail(err)
		}
	}
	s.latency.note(time.Since(began), len(taking))
	for _, c := range taking {
		if err != nil {
			c.err = err
		}
		close(c.done)
	}
}

// transact commits a batch, or returns why nothing of it was committed, as far
// as is known.
func (s *Store) transact(batch []*change, samples []sample) (err error) {
	t := s.tx
	t.err = nil
	defer func() {
		if err != nil {
			_, _ = t.conn.ExecContext(context.Background(), "ROLLBACK") // it may be over already
		}
	}()
	t.exec("BEGIN IMMEDIATE")
	for _, c := range batch {
		t.wrote = false
		c.err = c.do(t)
		if t.err == nil && c.err != nil && t.wrote {
			t.err = fmt.Errorf("a change was given up half way: %w", c.err)
		}
		if t.err != nil {
			return t.err
		}
	}
	for _, x := range samples {
		x.insert(t)
	}
	if t.err != nil {
		return t.err
	}
	if err := failpoint.Hit("queue.commit"); err != nil {
		return err
	}
	if t.exec("COMMIT"); t.err != nil {
		return t.err
	}
	return failpoint.HitAfter("queue.commit")
}

// fail breaks the store.
func (s *Store) fail(err error) error {
	err = fmt.Errorf("%w: %w", ErrBroken, explain(err))
	s.mu.Lock()
	first := s.broken == nil
	if first {
		s.broken = err
	}
	err = s.broken
	s.mu.Unlock()
	if first && s.o.OnBroken != nil {
		s.o.OnBroken(err)
	}
	return err
}

func (s *Store) broke() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broken
}

// tx is what a change may do. It belongs to the writer. The first error sticks
// and undoes the whole batch.
type tx struct {
	conn  *sql.Conn
	stmts map[string]*sql.Stmt
	rows  map[string]row // jobs that changed lately, by id
	err   error
	wrote bool
}

// stmt prepares a statement once. Statements are constants, and few.
func (t *tx) stmt(query string) *sql.Stmt {
	st := t.stmts[query]
	if st == nil && t.err == nil {
		if st, t.err = t.conn.PrepareContext(context.Background(), query); t.err == nil {
			t.stmts[query] = st
		}
	}
	return st
}

// exec runs a statement and returns how many rows it changed.
func (t *tx) exec(query string, args ...any) int64 {
	st := t.stmt(query)
	if t.err != nil {
		return 0
	}
	t.wrote = true
	r, err := st.Exec(args...)
	if err != nil {
		t.err = err
		return 0
	}
	n, err := r.RowsAffected()
	if err != nil {
		t.err = err
	}
	return n
}

// row reads at most one row.
func (t *tx) row(query string, args []any, dest ...any) (found bool) {
	st := t.stmt(query)
	if t.err != nil {
		return false
	}
	err := st.QueryRow(args...).Scan(dest...)
	if errors.Is(err, sql.ErrNoRows) {
		return false
	}
	t.err = err
	return err == nil
}
