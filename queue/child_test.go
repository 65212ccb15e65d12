package queue_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"gantry/api"
	"gantry/feedback"
	"gantry/queue"

	"github.com/stretchr/testify/require"
)

// child works on the store at path until it is killed or the store breaks: it
// adds jobs, changes them, writes feeds and the audit log from several
// goroutines, and prints a line for everything that was acknowledged.
func child(path string) error {
	s, err := queue.Open(path, queue.Options{})
	if err != nil {
		return err
	}
	var mu sync.Mutex
	out := bufio.NewWriter(os.Stdout)
	acked := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(out, format+"\n", args...)
		out.Flush()
	}
	acked("open")
	if to := os.Getenv("QUEUE_TEST_BACKUP"); to != "" {
		if err := s.Backup(context.Background(), to); err != nil {
			return err
		}
		acked("backup")
	}
	rounds, _ := strconv.Atoi(os.Getenv("QUEUE_TEST_ROUNDS"))
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for g := range errs {
		wg.Go(func() {
			for round := 0; (rounds == 0 || round < rounds) && errs[g] == nil; round++ {
				errs[g] = life(s, acked)
			}
		})
	}
	wg.Wait()
	return errors.Join(append(errs, s.Close())...)
}

// life is that of one job.
func life(s *queue.Store, acked func(string, ...any)) error {
	ctx := context.Background()
	j := aJob()
	j.ID, j.Key = api.NewID(), api.NewID()
	if _, _, err := s.Add(ctx, j); err != nil {
		return err
	}
	acked("job %s queued", j.ID)
	e, err := s.Audit(ctx, queue.AuditEntry{Who: "ann", What: "submit", Object: j.ID, Decision: "allowed"})
	if err != nil {
		return err
	}
	acked("audit %d %s", e.Seq, e.Hash)
	f, err := feedback.OpenJournal(s.Journal(j.ID), feedback.Options{Job: true})
	if err != nil {
		return err
	}
	defer f.Close()
	for _, state := range []queue.State{queue.Running, queue.Stalled, queue.Running} {
		if _, err := s.Update(ctx, j.ID, func(j *queue.Job) error { j.State = state; j.Attempt++; return nil }); err != nil {
			return err
		}
		acked("job %s %s", j.ID, state)
		if err := f.State(string(state), nil); err != nil {
			return err
		}
		acked("feed %s %d", j.ID, f.Last())
	}
	if err := f.Finish("the end", nil); err != nil {
		return err
	}
	acked("feed %s %d", j.ID, f.Last())
	final, _ := f.Final()
	if _, err := s.Update(ctx, j.ID, func(j *queue.Job) error {
		j.State, j.Outcome, j.Final = queue.Done, api.Done, final.Line
		return nil
	}); err != nil {
		return err
	}
	acked("job %s done", j.ID)
	return nil
}

// history is what children have acknowledged.
type history struct {
	states map[string]string // of jobs
	feeds  map[string]int64
	audit  map[int64]string
	seen   []string // the other lines
}

func newHistory() *history {
	return &history{states: map[string]string{}, feeds: map[string]int64{}, audit: map[int64]string{}}
}

func (h *history) line(text string) {
	word := strings.Fields(text)
	n := int64(0)
	if len(word) == 3 {
		n, _ = strconv.ParseInt(word[2], 10, 64)
	}
	switch {
	case len(word) == 3 && word[0] == "job":
		h.states[word[1]] = word[2]
	case len(word) == 3 && word[0] == "feed":
		h.feeds[word[1]] = n
	case len(word) == 3 && word[0] == "audit":
		seq, _ := strconv.ParseInt(word[1], 10, 64)
		h.audit[seq] = word[2]
	default:
		h.seen = append(h.seen, text)
	}
}

// run runs a child until it ends, or kills it after so many lines.
func (h *history) run(t *testing.T, lines int, env ...string) error {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), env...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	in := bufio.NewScanner(out)
	for in.Scan() {
		h.line(in.Text())
		if lines--; lines == 0 {
			require.NoError(t, cmd.Process.Kill()) // and read what is still in the pipe
		}
	}
	require.NoError(t, in.Err())
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%w: %s", err, stderr.String())
	}
	return nil
}

// next are the states in which a job may be when one was acknowledged: the
// change after it may have been committed, or not.
var next = map[string][]queue.State{
	"queued":  {queue.Queued, queue.Running},
	"running": {queue.Running, queue.Stalled, queue.Done},
	"stalled": {queue.Stalled, queue.Running},
	"done":    {queue.Done},
}

// check compares the store at path with what was acknowledged.
func (h *history) check(t *testing.T, path string) {
	t.Helper()
	ctx := t.Context()
	s, err := queue.Open(path, queue.Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	require.NoError(t, s.Check(ctx))
	for id, state := range h.states {
		j, err := s.Job(ctx, id)
		require.NoError(t, err, "a job was acknowledged and is not there")
		require.True(t, slices.Contains(next[state], j.State), "job %s was %s and is %s", id, state, j.State)
		require.Equal(t, j.State == queue.Done, j.Final != nil, "half a change")
		again := aJob()
		again.Key = j.Key
		_, existed, err := s.Add(ctx, again)
		require.NoError(t, err)
		require.True(t, existed, "its key is known")
	}
	for id, last := range h.feeds {
		f, err := feedback.OpenJournal(s.Journal(id), feedback.Options{Job: true})
		require.NoError(t, err)
		require.GreaterOrEqual(t, f.Last(), last, "a record was acknowledged and is not there")
		require.LessOrEqual(t, f.Last(), last+1)
		seq := int64(0)
		for rec, err := range f.Records(0) {
			require.NoError(t, err)
			seq++
			require.Equal(t, seq, rec.Seq)
		}
		require.NoError(t, f.Close())
	}
	var kept []api.AuditHead
	for seq, hash := range h.audit {
		kept = append(kept, api.AuditHead{Seq: seq, Hash: hash})
	}
	_, err = s.VerifyAudit(ctx, kept...)
	require.NoError(t, err)
}

// What was acknowledged is there after kill -9 at any moment.
func TestKilledStore(t *testing.T) {
	_, path := newClosed(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	h := newHistory()
	for range 5 {
		require.Error(t, h.run(t, 2+rng.IntN(150), "QUEUE_TEST_STORE="+path))
		h.check(t, path)
	}
	require.Greater(t, len(h.states), 5)
	t.Logf("%d jobs, %d feeds, %d audit entries, all there", len(h.states), len(h.feeds), len(h.audit))
}

// newClosed is a store that nobody has open.
func newClosed(t testing.TB) (*queue.Store, string) {
	s, path := newStore(t)
	require.NoError(t, s.Close())
	return s, path
}
