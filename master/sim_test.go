package master

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gantry/api"
	"gantry/job"

	"github.com/go-json-experiment/json"
	"github.com/stretchr/testify/require"
)

var (
	seeds   = flag.Int("seeds", raceSeeds, "how many seeds the simulation tries")
	oneSeed = flag.Int("seed", 0, "the one seed to try again")
	plant   = flag.String("plant", "", "a bug to plant, see TestSimulationFindsAPlantedBug")
)

// TestSimulation runs masters on a simulated store, network and nodes, in a time
// of its own: seeds tells what fails and when. Each run ends with every job
// ended, and is judged by what the nodes and the store have seen.
func TestSimulation(t *testing.T) {
	if *oneSeed != 0 {
		faults, counts := simulate(t, *oneSeed, *plant)
		t.Logf("seed %d: %+v", *oneSeed, counts)
		require.Empty(t, faults)
		return
	}
	var mu sync.Mutex
	var total simCounts
	t.Run("seeds", func(t *testing.T) {
		workers := runtime.GOMAXPROCS(0)
		for k := range workers {
			t.Run(fmt.Sprint(k), func(t *testing.T) {
				t.Parallel()
				for seed := k + 1; seed <= *seeds && !t.Failed(); seed += workers {
					faults, counts := simulate(t, seed, *plant)
					if len(faults) > 0 {
						t.Errorf("seed %d: %q\nrun it again: go test ./master -run TestSimulation -seed %d", seed, faults, seed)
					}
					mu.Lock()
					total.add(counts)
					mu.Unlock()
				}
			})
		}
	})
	t.Logf("%d seeds: %+v", *seeds, total)
	if n := *seeds; n >= 200 && !t.Failed() {
		// A simulation in which nothing goes wrong proves nothing.
		require.Greater(t, total.Restarts, n/2)
		require.Greater(t, total.Retries, n/2)
		require.Greater(t, total.Unknown, n/10)
		require.Greater(t, total.Cancelled, n/10)
		require.Greater(t, total.Abandoned, n/100)
		require.Greater(t, total.Done, n)
	}
}

// TestSimulationFindsAPlantedBug: with Options.planted, another attempt begins
// although it is not proved that every task of the one before has ended. It
// takes a failed import and an export that is slow to end, or whose cancelling
// was lost.
func TestSimulationFindsAPlantedBug(t *testing.T) {
	for seed := 1; seed <= 2000; seed++ {
		if faults, _ := simulate(t, seed, plantedNoProof); len(faults) > 0 {
			t.Logf("seed %d finds it: %s", seed, faults[0])
			return
		}
	}
	t.Fatal("2,000 seeds did not find the planted bug")
}

type simCounts struct{ Jobs, Done, Failed, Cancelled, Restarts, Retries, Unknown, Stalled, Abandoned int }

func (c *simCounts) add(o simCounts) {
	c.Jobs += o.Jobs
	c.Done += o.Done
	c.Failed += o.Failed
	c.Cancelled += o.Cancelled
	c.Restarts += o.Restarts
	c.Retries += o.Retries
	c.Unknown += o.Unknown
	c.Stalled += o.Stalled
	c.Abandoned += o.Abandoned
}

// sim is one run.
type sim struct {
	// config; what is nil goes by the seed
	script      func(t *simTask) any            // what a task does
	refuse      func(node, op string) *api.Code // whether a start is refused
	unreachable func(node string) bool
	seed        uint64
	begin       time.Time

	disk  *simDisk
	nodes map[string]*simNode
	work  sync.WaitGroup // of the nodes

	mu      sync.Mutex
	master  *Master         // guarded by mu; nil: it is down
	changed chan struct{}   // guarded by mu; closed when master changes
	found   []string        // guarded by mu; what must not be
	live    map[string]bool // guarded by mu; ids of tasks that run
	tasks   []*simTask      // guarded by mu; in the order of their starts
	effects map[string]int  // guarded by mu; imports that are done, by path
	over    map[string]bool // guarded by mu; paths whose job was seen ended
	// abandoned has the paths whose job somebody wants to give up; guarded by mu.
	abandoned map[string]bool
	cutting   chan struct{} // guarded by mu; closed to cut every feed
	faulty    time.Duration // how long things go wrong
	counts    simCounts
}

// Sizes of a run.
const (
	simSlots  = 2
	simLimit  = 1
	simBound  = 12 * time.Hour // by then everything has ended
	simWatchs = 2
)

// simulate runs one seed and returns what must not have been.
func simulate(t *testing.T, seed int, planted string) (found []string, counts simCounts) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(uint64(seed))
		s.faulty = 10 * time.Minute
		ctx, stop := context.WithCancel(context.Background())
		var masters, clients sync.WaitGroup
		masters.Go(func() { s.serve(ctx, planted) })
		n := 2 + s.roll("jobs")%5
		ids := make([]string, n)
		for k := range n {
			clients.Go(func() { ids[k] = s.user(ctx, k) })
		}
		clients.Wait()
		stop()
		masters.Wait()
		for _, node := range s.nodes {
			node.endAll()
		}
		s.work.Wait()
		s.judge(ids)
		if *oneSeed != 0 {
			for k, id := range ids {
				t.Logf("job%d: %s", k, s.describe(id))
			}
		}
		found, counts = s.found, s.counts
	})
	return found, counts
}

func newSim(seed uint64) *sim {
	s := &sim{
		seed: seed, begin: time.Now(), disk: newSimDisk(), nodes: map[string]*simNode{}, changed: make(chan struct{}),
		live: map[string]bool{}, effects: map[string]int{}, over: map[string]bool{}, abandoned: map[string]bool{},
		cutting: make(chan struct{}),
	}
	for _, name := range []string{"alpha", "beta", "gamma"} {
		s.nodes[name] = newSimNode(s, name)
	}
	return s
}

// roll is a number that the seed has for these values.
func (s *sim) roll(of ...any) int {
	b := binary.LittleEndian.AppendUint64(nil, s.seed)
	b = fmt.Appendln(b, of...)
	return int(fnv(b) >> 2)
}

// fnv is FNV-1a, mixed: the same in every process.
func fnv(b []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	return h ^ h>>33
}

// faults is roll as long as things go wrong, then 0.
func (s *sim) faults(of ...any) int {
	if time.Since(s.begin) > s.faulty {
		return 0
	}
	return s.roll(of...)
}

// duration is up to d, to the nanosecond, so that hardly two things happen at
// the same time and a seed means the same run again.
func (s *sim) duration(d time.Duration, of ...any) time.Duration {
	return time.Duration(1 + s.roll(of...)%int(d))
}

func (s *sim) sleep(d time.Duration, of ...any) { time.Sleep(s.duration(d, of...)) }

// down reports whether a node cannot be reached now.
func (s *sim) down(node string) bool {
	if s.unreachable != nil {
		return s.unreachable(node)
	}
	return s.faults("down", node, time.Since(s.begin)/(40*time.Second))%4 == 1
}

func (s *sim) cuts() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cutting
}

// cutAll cuts every feed between a node and a master once.
func (s *sim) cutAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.cutting)
	s.cutting = make(chan struct{})
}

// cut is how long a feed lasts.
func (s *sim) cut(of ...any) time.Duration {
	if s.faults(of...)%2 == 1 {
		return s.duration(time.Minute, of...)
	}
	return 24 * time.Hour
}

func (s *sim) fault(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.found = append(s.found, fmt.Sprintf("%v: ", time.Since(s.begin))+fmt.Sprintf(format, args...))
}

// simLife is one process of a master.
type simLife struct {
	number int
	ctx    context.Context
	mu     sync.Mutex
	called map[string]int
}

// calls counts the calls about a task.
func (l *simLife) calls(id string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.called[id]++
	return l.called[id]
}

var errSimKilled = errors.New("killed")

// serve runs masters, one after the other.
func (s *sim) serve(ctx context.Context, planted string) {
	for number := 1; ctx.Err() == nil; number++ {
		s.life(ctx, number, planted)
		s.sleep(20*time.Second, "downtime", number)
	}
}

// life runs one master until it is killed, drained, loses its store, or the run ends.
func (s *sim) life(ctx context.Context, number int, planted string) {
	alive, kill := context.WithCancelCause(context.Background())
	defer kill(nil)
	life := &simLife{number: number, ctx: alive, called: map[string]int{}}
	broken := make(chan struct{})
	store := &simStore{simDisk: s.disk, s: s, life: number, done: map[string]int{}, broke: func(error) {}}
	if s.faults("store fails", number)%4 == 1 {
		store.failAt = time.Now().Add(s.duration(2*time.Minute, "store fails at", number))
	}
	m, err := New(ctx, Options{
		Store: store, DefaultSlots: simSlots, Limits: map[string]int{"backups": simLimit},
		Node:     func(name string) (job.Node, error) { return &simClient{s.nodes[name], life}, nil },
		OnBroken: func(error) { close(broken) },
		planted:  planted,
		random:   func() float64 { return float64(s.roll("jitter", number, time.Since(s.begin))%1000) / 1000 },
	})
	if err != nil {
		return
	}
	s.set(m)
	var end <-chan time.Time
	if time.Since(s.begin) < s.faulty {
		timer := time.NewTimer(s.duration(4*time.Minute, "life", number))
		defer timer.Stop()
		end = timer.C
	}
	select {
	case <-ctx.Done():
	case <-broken:
	case <-end:
		s.counts.Restarts++
		if s.roll("how", number)%2 == 0 {
			store.kill()
			kill(errSimKilled)
		}
	}
	s.set(nil)
	_ = m.Close() // of a broken one
}

func (s *sim) set(m *Master) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.master = m
	close(s.changed)
	s.changed = make(chan struct{})
}

// finishExport tells the export of an import that it is done.
func (s *sim) finishExport(im *simTask) {
	for _, n := range s.nodes {
		n.mu.Lock()
		for id, t := range n.tasks {
			if (id == im.peer || t.peer == im.req.ID) && !t.finished {
				t.finished = true
				close(t.finish)
			}
		}
		n.mu.Unlock()
	}
}

// endAll ends what still runs when the run is over.
func (n *simNode) endAll() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, t := range n.tasks {
		if !t.asked {
			t.asked = true
			close(t.cancelled)
		}
	}
}

func decodeLoosely(b []byte, v any) {
	if err := json.Unmarshal(b, v); err != nil {
		panic(err)
	}
}
