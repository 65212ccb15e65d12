package queue

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// Options of a store. The zero value works.
type Options struct {
	// Now is the clock of the times that the store sets itself; nil: time.Now.
	Now func() time.Time
	// OnBroken is called once, when the store can no longer be written. It runs
	// in a goroutine of the store: it must not call Close.
	OnBroken func(error)
}

// Store is one file of jobs. Its methods may be called from several goroutines.
type Store struct {
	// config
	path string
	o    Options

	held   *os.File // the lock
	writes *sql.DB  // one connection, the writer's
	reads  *sql.DB  // read-only connections
	tx     *tx      // owned by the writer

	kick    chan struct{} // tells the writer that something waits
	ended   chan struct{} // closed when the writer has ended
	latency latency
	samples sampler
	closed  sync.Once

	mu      sync.Mutex
	pending []*change // guarded by mu
	closing bool      // guarded by mu
	broken  error     // guarded by mu; sticks
}

// Open opens the store at path, and makes it if there is none; its folder must
// be there. It refuses a file that another process has open (ErrLocked), that is
// damaged or no store (ErrDamaged), or that a newer version has written
// (ErrNewer), and changes nothing then. The checks at opening take about a
// second at most, whatever the size; Check goes through everything.
func Open(path string, o Options) (*Store, error) {
	s, err := open(path, o)
	if err != nil {
		return nil, fmt.Errorf("opening the store %s: %w", path, err)
	}
	return s, nil
}

func open(path string, o Options) (_ *Store, err error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Store{path: path, o: o, kick: make(chan struct{}, 1), ended: make(chan struct{})}
	s.samples.seen = make(map[sampled]int64)
	if s.held, err = lock(path); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = s.release() // the first error counts
		}
	}()
	if err := present(path); err != nil {
		return nil, err
	}
	if s.reads, err = connect(path, readOnly); err != nil {
		return nil, err
	}
	ctx := context.Background()
	if err := known(ctx, s.reads); err != nil {
		return nil, err
	}
	if err := glance(ctx, s.reads); err != nil {
		return nil, err
	}
	if s.writes, err = connect(path, readWrite); err != nil { // nothing was written before
		return nil, err
	}
	if err := migrate(ctx, s.writes); err != nil {
		return nil, explain(err)
	}
	conn, err := s.writes.Conn(ctx)
	if err != nil {
		return nil, explain(err)
	}
	s.tx = &tx{conn: conn, stmts: make(map[string]*sql.Stmt), rows: make(map[string]row)}
	go s.run()
	return s, nil
}

// Err returns why the store can no longer be written, or nil. It sticks.
func (s *Store) Err() error { return s.broke() }

// Close commits what was handed over, and closes the file.
func (s *Store) Close() error {
	var err error
	s.closed.Do(func() {
		s.mu.Lock()
		s.closing = true
		s.mu.Unlock()
		s.wake()
		<-s.ended
		for _, st := range s.tx.stmts {
			err = errors.Join(err, st.Close())
		}
		err = errors.Join(err, s.tx.conn.Close(), s.release())
	})
	return err
}

// release closes what is open, the connection that may checkpoint last.
func (s *Store) release() (err error) {
	if s.reads != nil {
		err = errors.Join(err, s.reads.Close())
	}
	if s.writes != nil {
		err = errors.Join(err, s.writes.Close())
	}
	return errors.Join(err, s.held.Close())
}

func (s *Store) now() time.Time { return s.o.Now().UTC().Truncate(time.Microsecond) }

// scanner reads the columns of a row.
type scanner func(dest ...any) error

// each hands the rows of a query to fn. Callers return nothing of what it found
// when it fails. Damage breaks the store: what it holds must not be acted on.
func (s *Store) each(ctx context.Context, query string, args []any, fn func(scanner) error) error {
	err := eachRow(ctx, s.reads, query, args, fn)
	if errors.Is(err, ErrDamaged) {
		return s.fail(err)
	}
	return err
}

func eachRow(ctx context.Context, db *sql.DB, query string, args []any, fn func(scanner) error) error {
	rows, err := db.QueryContext(ctx, query, args...)
	if err == nil {
		for rows.Next() && err == nil {
			err = fn(rows.Scan)
		}
		err = errors.Join(err, rows.Err(), rows.Close())
	}
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return explain(err)
}
