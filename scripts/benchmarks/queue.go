package main

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"gantry/api"
	"gantry/feedback"
	"gantry/queue"

	_ "modernc.org/sqlite" // the ceiling of what the store can do
)

const (
	changing    = 3 * time.Second // each contender of a round
	changedJobs = 10_000
	callers     = 512
	bareGroup   = 256 // rows of one commit of bare SQLite
	queuedJobs  = 10_000
	endedJobs   = 100_000
)

// queues measures durable state changes of a master's store beside the disk
// and bare SQLite, and how soon it serves after a restart.
func (b *bench) queues(ctx context.Context) error {
	fmt.Printf("\n### Durable state changes of %d jobs, medians of %d rounds\n\n", changedJobs, b.rounds)
	dir, err := os.MkdirTemp(b.dir, "q-")
	if err != nil {
		return err
	}
	s, err := queue.Open(filepath.Join(dir, "queue.db"), queue.Options{})
	if err != nil {
		return err
	}
	defer s.Close()
	ids, err := addJobs(ctx, s, changedJobs)
	if err != nil {
		return err
	}
	bare, err := bareStore(filepath.Join(dir, "bare.db"))
	if err != nil {
		return err
	}
	defer bare.Close()
	contenders := []struct {
		name string
		run  func() (float64, error)
	}{
		{"append + fsync, one by one", func() (float64, error) { return fsyncs(filepath.Join(dir, "plain")) }},
		{"bare SQLite, one row a commit", func() (float64, error) { return bareChanges(bare, 1) }},
		{"the store, one caller", func() (float64, error) { return changes(ctx, s, ids, 1) }},
		{fmt.Sprintf("bare SQLite, %d rows a commit", bareGroup), func() (float64, error) { return bareChanges(bare, bareGroup) }},
		{fmt.Sprintf("the store, %d callers", callers), func() (float64, error) { return changes(ctx, s, ids, callers) }},
	}
	rates := make([][]float64, len(contenders))
	for round := range b.rounds {
		for k := range contenders {
			k = (k + round) % len(contenders)
			rate, err := contenders[k].run()
			if err != nil {
				return fmt.Errorf("%s: %w", contenders[k].name, err)
			}
			rates[k] = append(rates[k], rate)
		}
	}
	fmt.Println("| what | changes/s | ÷ append + fsync, by round |\n| --- | --- | --- |")
	for k, c := range contenders {
		ratios := make([]float64, b.rounds)
		for round := range ratios {
			ratios[round] = rates[k][round] / rates[0][round]
		}
		fmt.Printf("| %s | %.0f | %.2f (%.2f–%.2f) |\n", c.name, median(rates[k]), median(ratios), percentile(ratios, 0), percentile(ratios, 1))
	}
	return b.restarts(ctx, filepath.Join(dir, "history.db"))
}

// rate is how often fn is done in a second, by so many callers at once.
func rate(callers int, fn func(k int) error) (float64, error) {
	var n atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, callers)
	began := time.Now()
	for c := range callers {
		wg.Go(func() {
			for time.Since(began) < changing && errs[c] == nil {
				errs[c] = fn(int(n.Add(1)))
			}
		})
	}
	wg.Wait()
	took := time.Since(began).Seconds()
	for _, err := range errs {
		if err != nil {
			return 0, err
		}
	}
	return float64(n.Load()) / took, nil
}

func fsyncs(path string) (float64, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	line := make([]byte, 200)
	return rate(1, func(int) error {
		if _, err := f.Write(line); err != nil {
			return err
		}
		return f.Sync()
	})
}

func changes(ctx context.Context, s *queue.Store, ids []string, callers int) (float64, error) {
	return rate(callers, func(k int) error {
		_, err := s.Update(ctx, ids[k%len(ids)], func(j *queue.Job) error {
			j.State = []queue.State{queue.Running, queue.Stalled}[k/len(ids)%2]
			j.Attempt++
			return nil
		})
		return err
	})
}

// bareStore has a table of as many rows, with one index that changes.
func bareStore(path string) (*sql.DB, error) {
	db, err := sql.Open("sqlite", path+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	_, err = db.Exec(`CREATE TABLE jobs (n INTEGER PRIMARY KEY, state TEXT, attempt BIGINT, spec TEXT);
		WITH RECURSIVE c(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM c WHERE n < ` + fmt.Sprint(changedJobs) + `)
		INSERT INTO jobs SELECT n, 'queued', 0, printf('%400d', n) FROM c; CREATE INDEX jobs_state ON jobs (state, n)`)
	return db, err
}

func bareChanges(db *sql.DB, group int) (float64, error) {
	n := 0
	commits, err := rate(1, func(int) error {
		tx, err := db.Begin()
		if err != nil {
			return err
		}
		defer tx.Rollback()
		st, err := tx.Prepare("UPDATE jobs SET state=?, attempt=attempt+1 WHERE n=?")
		if err != nil {
			return err
		}
		defer st.Close()
		for range group {
			n++
			if _, err := st.Exec([]string{"running", "stalled"}[n/changedJobs%2], n%changedJobs); err != nil {
				return err
			}
		}
		return tx.Commit()
	})
	return commits * float64(group), err
}

// addJobs adds queued jobs.
func addJobs(ctx context.Context, s *queue.Store, n int) ([]string, error) {
	ids := make([]string, n)
	err := together(n, func(k int) error {
		j, _, err := s.Add(ctx, queue.Job{
			Kind: "copy", Owner: "spiffe://bench/operator/ann", Nodes: []string{"alpha", "beta"}, Key: fmt.Sprint("key ", k), BodyHash: "h",
			Spec: api.Raw(`{"kind":"copy","from":"alpha:images/vm1.img","to":"beta:images/vm1.img","mode":"create","compress":"auto","verify":true}`),
		})
		ids[k] = j.ID
		return err
	})
	return ids, err
}

// together calls fn with 0 to n-1 from many goroutines.
func together(n int, fn func(int) error) error {
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, callers)
	for c := range errs {
		wg.Go(func() {
			for k := next.Add(1) - 1; k < int64(n) && errs[c] == nil; k = next.Add(1) - 1 {
				errs[c] = fn(int(k))
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// restarts measures what a master does with its store before it serves.
func (b *bench) restarts(ctx context.Context, path string) error {
	s, err := queue.Open(path, queue.Options{})
	if err != nil {
		return err
	}
	ids, err := addJobs(ctx, s, endedJobs+queuedJobs)
	if err == nil {
		err = together(endedJobs, func(k int) error { return end(ctx, s, ids[k]) })
	}
	if cerr := s.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	var open, list, page []float64
	for range b.rounds {
		began := time.Now()
		s, err := queue.Open(path, queue.Options{})
		if err != nil {
			return err
		}
		opened := time.Now()
		jobs, err := s.Unfinished(ctx)
		listed := time.Now()
		if err == nil && len(jobs) != queuedJobs {
			err = fmt.Errorf("%d jobs are unfinished, not %d", len(jobs), queuedJobs)
		}
		if err == nil {
			_, err = s.Jobs(ctx, queue.Query{States: []queue.State{queue.Done}, Node: "alpha"})
		}
		paged := time.Now()
		if cerr := s.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return err
		}
		open, list, page = append(open, opened.Sub(began).Seconds()), append(list, listed.Sub(opened).Seconds()), append(page, paged.Sub(listed).Seconds())
	}
	fmt.Printf("\n### Restart with %d queued and %d finished jobs, store of %d MiB, page cache warm, medians of %d rounds, s\n\n", queuedJobs, endedJobs, info.Size()>>20, b.rounds)
	fmt.Println("| open and check | read the unfinished jobs | together, worst | a page of 100 finished jobs of one node |\n| --- | --- | --- | --- |")
	worst := 0.0
	for k := range open {
		worst = max(worst, open[k]+list[k])
	}
	fmt.Printf("| %.2f | %.2f | %.2f | %.4f |\n", median(open), median(list), worst, median(page))
	return nil
}

// end gives a job a short feed and an outcome.
func end(ctx context.Context, s *queue.Store, id string) error {
	f, err := feedback.OpenJournal(s.Journal(id), feedback.Options{ID: id, Job: true})
	if err != nil {
		return err
	}
	defer f.Close()
	f.Log("info", "", "a slot is free on alpha and beta")
	if err := f.Finish(map[string]int{"bytes": 1 << 30}, nil); err != nil {
		return err
	}
	final, _ := f.Final()
	_, err = s.Update(ctx, id, func(j *queue.Job) error {
		j.State, j.Outcome, j.Final, j.Attempt = queue.Done, api.Done, final.Line, 1
		return nil
	})
	return err
}
