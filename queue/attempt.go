package queue

import (
	"context"
	"fmt"
	"time"

	"gantry/api"
)

// Attempt is one try of a job. Info holds what the driver must know to go on
// with it, with tickets: it never goes into a reply.
type Attempt struct {
	Job     string // id
	N       int    // from 1
	Info    api.Raw
	Started time.Time
	Ended   time.Time
	Outcome api.Outcome
	Why     string
}

func (a *Attempt) values() []any {
	return []any{int64(a.N), micros(a.Started), micros(a.Ended), string(a.Outcome), a.Why, append([]byte{}, a.Info...)}
}

// SaveAttempt stores an attempt, in place of what was stored of it before.
func (s *Store) SaveAttempt(ctx context.Context, a Attempt) error {
	values := a.values()
	err := s.write(ctx, func(t *tx) error {
		n, err := t.job(a.Job)
		if err != nil {
			return err
		}
		t.exec(`INSERT INTO attempts (job, number, started, ended, outcome, why, info, sum) VALUES (?,?,?,?,?,?,?,?)
			ON CONFLICT (job, number) DO UPDATE SET started=excluded.started, ended=excluded.ended, outcome=excluded.outcome,
			why=excluded.why, info=excluded.info, sum=excluded.sum`,
			append(append([]any{n}, values...), sum(append(values, n)...))...)
		return nil
	})
	if err != nil {
		return fmt.Errorf("saving attempt %d of job %s: %w", a.N, a.Job, err)
	}
	return nil
}

// job returns the number of a job.
func (t *tx) job(id string) (n int64, err error) {
	if !t.row("SELECT n FROM jobs WHERE id=?", []any{id}, &n) && t.err == nil {
		return 0, ErrNotFound
	}
	return n, t.err
}

const selectAttempts = "SELECT job, number, started, ended, outcome, why, info, sum FROM attempts WHERE "

// Attempts returns the attempts of a job, in order.
func (s *Store) Attempts(ctx context.Context, job string) ([]Attempt, error) {
	var all []Attempt
	err := s.each(ctx, selectAttempts+"job = (SELECT n FROM jobs WHERE id = ?) ORDER BY number", []any{job}, func(scan scanner) error {
		a, err := scanAttempt(scan)
		a.Job = job
		all = append(all, a)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading attempts of %s: %w", job, err)
	}
	return all, nil
}

// scanAttempt reads the columns that selectAttempts selects; Job is left empty.
func scanAttempt(scan scanner) (a Attempt, err error) {
	var job, started, ended, have int64
	var outcome string
	var info []byte
	if err := scan(&job, &a.N, &started, &ended, &outcome, &a.Why, &info, &have); err != nil {
		return a, err
	}
	a.Started, a.Ended, a.Outcome, a.Info = moment(started), moment(ended), api.Outcome(outcome), info
	if have != sum(append(a.values(), job)...) {
		return a, fmt.Errorf("%w: attempt %d is not what was written", ErrDamaged, a.N)
	}
	return a, nil
}
