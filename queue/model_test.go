package queue_test

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"gantry/api"
	"gantry/queue"

	"github.com/stretchr/testify/require"
)

var (
	modelSeed  = flag.Uint64("queue.seed", 0, "seed of TestModel; 0 draws one")
	modelSteps = flag.Int("queue.steps", 600, "operations of TestModel")
)

// model is the store as simple as it can be.
type model struct {
	jobs     map[string]queue.Job
	keys     map[[2]string]string
	attempts map[string]map[int]queue.Attempt
	feeds    map[string][]string // lines; "" is gone
	audit    []queue.AuditEntry
	swept    map[string]bool
}

// newest returns the ids, newest first.
func (m *model) newest() []string {
	var ids []string
	for id := range m.jobs {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b string) int { return cmp.Compare(b, a) })
	return ids
}

// Random operations, in one order, do to the store what they do to a model of
// maps; it is opened anew now and then.
func TestModel(t *testing.T) {
	seed := cmp.Or(*modelSeed, rand.Uint64())
	t.Logf("-queue.seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	now := time.Unix(1_800_000_000, 0).UTC()
	s, path := newClosed(t)
	open := func() {
		var err error
		s, err = queue.Open(path, queue.Options{Now: func() time.Time { return now }})
		require.NoError(t, err)
	}
	open()
	defer func() { require.NoError(t, s.Close()) }()
	m := &model{jobs: map[string]queue.Job{}, keys: map[[2]string]string{}, attempts: map[string]map[int]queue.Attempt{}, feeds: map[string][]string{}, swept: map[string]bool{}}
	owners, kinds, nodes := []string{"ann", "bob", "local:0"}, []string{"copy", "call"}, []string{"alpha", "beta", "gamma"}
	pick := func(all []string) string { return all[rng.IntN(len(all))] }
	anyJob := func() string {
		if ids := m.newest(); len(ids) > 0 && rng.IntN(20) > 0 {
			return pick(ids)
		}
		return api.NewID()
	}
	ctx := t.Context()
	for range *modelSteps {
		now = now.Add(time.Duration(rng.Int64N(int64(time.Minute)))).Truncate(time.Microsecond)
		switch op := rng.IntN(100); {
		case op < 20: // add
			j := queue.Job{ID: api.NewID(), Kind: pick(kinds), Owner: pick(owners), Spec: api.Raw(fmt.Sprintf(`{"n":%d}`, rng.IntN(100))), Priority: rng.IntN(5) - 2}
			for range rng.IntN(3) {
				j.Nodes = append(j.Nodes, pick(nodes))
			}
			if rng.IntN(2) == 0 {
				j.Key, j.BodyHash = fmt.Sprint("key", rng.IntN(30)), fmt.Sprint("hash", rng.IntN(2))
			}
			got, existed, err := s.Add(ctx, j)
			old, known := m.jobs[m.keys[[2]string{j.Owner, j.Key}]]
			switch {
			case j.Key != "" && known && old.BodyHash != j.BodyHash:
				require.ErrorIs(t, err, queue.ErrKeyReused)
			case j.Key != "" && known:
				require.NoError(t, err)
				require.True(t, existed)
				require.Equal(t, old, got)
			default:
				require.NoError(t, err)
				require.False(t, existed)
				j.State, j.Created, j.Changed = queue.Queued, now, now
				require.Equal(t, j, got)
				m.jobs[j.ID] = j
				if j.Key != "" {
					m.keys[[2]string{j.Owner, j.Key}] = j.ID
				}
			}
		case op < 45: // change
			id := anyJob()
			state := api.JobStates[rng.IntN(len(api.JobStates))]
			boom := errors.New("boom")
			fails := rng.IntN(10) == 0
			got, err := s.Update(ctx, id, func(j *queue.Job) error {
				if fails {
					return boom
				}
				j.State, j.Why, j.Attempt, j.NextAt = state, fmt.Sprint("why ", state), j.Attempt+1, now.Add(time.Second)
				if state.Final() && j.Final == nil {
					j.Outcome, j.Final = api.Outcome(state), api.Raw(`{"seq":1}`)
				}
				return nil
			})
			j, known := m.jobs[id]
			switch {
			case !known:
				require.ErrorIs(t, err, queue.ErrNotFound)
			case fails:
				require.ErrorIs(t, err, boom)
			case j.State.Final() && j.State != state:
				require.ErrorIs(t, err, queue.ErrEnded)
			default:
				require.NoError(t, err)
				j.State, j.Why, j.Attempt, j.NextAt, j.Changed = state, fmt.Sprint("why ", state), j.Attempt+1, now.Add(time.Second), now
				if state.Final() && j.Final == nil {
					j.Outcome, j.Final, j.Ended = api.Outcome(state), api.Raw(`{"seq":1}`), now
				}
				require.Equal(t, j, got)
				m.jobs[id] = j
			}
		case op < 55: // attempt
			id := anyJob()
			a := queue.Attempt{Job: id, N: 1 + rng.IntN(3), Info: api.Raw(`{"tasks":{}}`), Started: now, Why: fmt.Sprint(rng.IntN(9))}
			err := s.SaveAttempt(ctx, a)
			if _, known := m.jobs[id]; !known {
				require.ErrorIs(t, err, queue.ErrNotFound)
				break
			}
			require.NoError(t, err)
			if m.attempts[id] == nil {
				m.attempts[id] = map[int]queue.Attempt{}
			}
			m.attempts[id][a.N] = a
		case op < 75: // feed
			id := anyJob()
			j := s.Journal(id)
			if _, known := m.jobs[id]; !known {
				require.Error(t, j.Append(1, [][]byte{[]byte("{}")}))
				break
			}
			if old := len(m.feeds[id]); rng.IntN(4) == 0 && old > 0 {
				seq := 1 + rng.IntN(old)
				require.NoError(t, j.Trim([]int64{int64(seq)}))
				m.feeds[id][seq-1] = ""
				break
			}
			var lines [][]byte
			seq := int64(len(m.feeds[id]) + 1)
			for range 1 + rng.IntN(4) {
				line := fmt.Sprintf(`{"seq":%d,"kind":"log","n":%d}`, len(m.feeds[id])+1, rng.Int())
				lines, m.feeds[id] = append(lines, []byte(line)), append(m.feeds[id], line)
			}
			require.NoError(t, j.Append(seq, lines))
		case op < 82:
			e, err := s.Audit(ctx, queue.AuditEntry{Who: pick(owners), What: "submit", Object: anyJob(), Decision: "allowed", Reason: "<it & \"may\">\xff"})
			require.NoError(t, err)
			m.audit = append(m.audit, e)
		case op < 84: // sweep
			now = now.Add(time.Hour)
			r := queue.Retention{Age: 2 * time.Hour, History: 6 * time.Hour}
			_, err := s.Sweep(ctx, r)
			require.NoError(t, err)
			m.sweep(now, r)
		case op < 87:
			require.NoError(t, s.Close())
			open()
		default: // look
			m.compare(t, s, anyJob())
			q := queue.Query{Limit: 1 + rng.IntN(8)}
			for range rng.IntN(3) {
				q.States = append(q.States, api.JobStates[rng.IntN(len(api.JobStates))])
			}
			if rng.IntN(2) == 0 {
				q.Owner = pick(owners)
			}
			if rng.IntN(2) == 0 {
				q.Node = pick(nodes)
			}
			if rng.IntN(2) == 0 {
				q.Kind = pick(kinds)
			}
			m.list(t, s, q)
		}
	}
	for id := range m.jobs {
		m.compare(t, s, id)
	}
	require.NoError(t, s.Check(ctx))
	require.NotEmpty(t, m.swept, "the run was long enough")
	t.Logf("%d jobs, %d swept, %d audit entries", len(m.jobs), len(m.swept), len(m.audit))
}

func (m *model) sweep(now time.Time, r queue.Retention) {
	for id, j := range m.jobs {
		if j.Ended.IsZero() {
			continue
		}
		if j.Ended.Before(now.Add(-r.Age)) && !m.swept[id] {
			m.swept[id] = true
			delete(m.attempts, id)
			if feed := m.feeds[id]; len(feed) > 0 {
				last := feed[len(feed)-1]
				m.feeds[id] = make([]string, len(feed))
				m.feeds[id][len(feed)-1] = last
			}
		}
		if j.Ended.Before(now.Add(-r.History)) {
			delete(m.jobs, id)
			delete(m.feeds, id)
			if j.Key != "" {
				delete(m.keys, [2]string{j.Owner, j.Key})
			}
		}
	}
}

// compare looks at everything about one job, and at the lists of all.
func (m *model) compare(t *testing.T, s *queue.Store, id string) {
	t.Helper()
	ctx := t.Context()
	got, err := s.Job(ctx, id)
	want, known := m.jobs[id]
	if !known {
		require.ErrorIs(t, err, queue.ErrNotFound)
		return
	}
	require.NoError(t, err)
	require.Equal(t, want, got)
	attempts, err := s.Attempts(ctx, id)
	require.NoError(t, err)
	require.Len(t, attempts, len(m.attempts[id]))
	for _, a := range attempts {
		require.Equal(t, m.attempts[id][a.N], a)
	}
	seen := make([]string, len(m.feeds[id]))
	j := s.Journal(id)
	for seq := int64(1); ; {
		next, err := j.Read(seq, 100, func(seq int64, line []byte) error { seen[seq-1] = string(line); return nil })
		require.NoError(t, err)
		if next == seq {
			break
		}
		seq = next
	}
	require.Equal(t, append([]string{}, m.feeds[id]...), seen)
	var open []string
	for _, id := range m.newest() {
		if !m.jobs[id].State.Final() {
			open = append([]string{id}, open...)
		}
	}
	unfinished, err := s.Unfinished(ctx)
	require.NoError(t, err)
	require.Equal(t, open, ids(unfinished))
	entries, err := s.AuditEntries(ctx, 0, 1000)
	require.NoError(t, err)
	require.Equal(t, m.audit, entries)
}

// list turns all pages of a query.
func (m *model) list(t *testing.T, s *queue.Store, q queue.Query) {
	t.Helper()
	var want, got []string
	for _, id := range m.newest() {
		j := m.jobs[id]
		if (len(q.States) == 0 || slices.Contains(q.States, j.State)) && (q.Owner == "" || q.Owner == j.Owner) &&
			(q.Node == "" || slices.Contains(j.Nodes, q.Node)) && (q.Kind == "" || q.Kind == j.Kind) {
			want = append(want, id)
		}
	}
	for {
		page, err := s.Jobs(t.Context(), q)
		require.NoError(t, err)
		require.LessOrEqual(t, len(page), q.Limit)
		got = append(got, ids(page)...)
		if len(page) < q.Limit {
			break
		}
		q.Before = page[len(page)-1].ID
	}
	require.Equal(t, want, got, "%+v", q)
}

func ids(jobs []queue.Job) (all []string) {
	for _, j := range jobs {
		all = append(all, j.ID)
	}
	return all
}
