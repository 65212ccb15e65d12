package cluster_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gantry/front"
	"gantry/internal/cluster"
	"gantry/internal/history"

	"github.com/stretchr/testify/require"
)

var masterKills = flag.Int("masterkills", 60, "how many kills TestMasterKills makes, over all fronts")

const (
	// masterSources files of up to copiedSize bytes are copied at some MiB a
	// second: a job lasts a second or two.
	masterSources = 4
	copiedSize    = 12 << 20
	// masterClients is how many clients work at a time.
	masterClients = 5
	// masterSettle is how long the jobs may take to end after the last kill:
	// more than three heartbeats, so that a job that stands still shows.
	masterSettle = 60 * time.Second
)

// masterVictims are killed in a random order, each once before any is killed
// again: so the master, which is here more often, gets its share in every run.
var masterVictims = []string{"hub/master", "hub/master", "hub/master", "hub/master", "hub/front", "alpha/node", "beta/node", "alpha/front", "beta/front"}

// TestMasterKills kills master, responders and fronts with kill -9 at random
// points inside running jobs, while clients submit, watch, cancel and retry
// copies of real files. What they asked and were shown, and what lies on the
// disks, is then judged from outside, by package history.
func TestMasterKills(t *testing.T) {
	t.Parallel()
	seed := theSeed(t)
	kinds := front.Kinds
	for i, kind := range kinds {
		n := *masterKills*(i+1)/len(kinds) - *masterKills*i/len(kinds)
		t.Run(string(kind), func(t *testing.T) {
			needFront(t, kind)
			k := newMasterKilling(t, kind, seed+uint64(i))
			k.run(t, n)
		})
	}
}

// masterKilling is one run behind one kind of front.
type masterKilling struct {
	*masterLoad
	rng    *rand.Rand
	landed int            // kills with a job inside its attempt
	states map[string]int // of jobs at the kills
	by     map[string]int // kills by victim
}

func newMasterKilling(t *testing.T, kind front.Kind, seed uint64) *masterKilling {
	rng := rand.New(rand.NewPCG(seed, 5))
	c := newCluster(t, cluster.Options{Front: kind, Master: "hub"}, func(c *cluster.Cluster) {
		for i := range masterSources {
			random(t, c, fmt.Sprintf("src%d.img", i), rng.Uint64(), copiedSize-rng.Int64N(copiedSize/2))
		}
	})
	return &masterKilling{newMasterLoad(c, string(kind)), rng, 0, map[string]int{}, map[string]int{}}
}

func (k *masterKilling) run(t *testing.T, kills int) {
	for i := range masterSources {
		k.look(t, fmt.Sprintf("alpha:disks/src%d.img", i))
	}
	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	var order []int
	for i := range masterClients {
		c := k.client(fmt.Sprint(i), k.rng.Uint64())
		clients.Go(func() { c.work(ctx, t) })
	}
	for i := range kills {
		turn := i % len(masterVictims)
		if turn == 0 {
			order = k.rng.Perm(len(masterVictims))
		}
		k.kill(t, masterVictims[order[turn]])
	}
	close(k.quit)
	ended := make(chan struct{})
	go func() { clients.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(masterSettle):
		t.Errorf("after %v there are jobs that have not ended: %v", masterSettle, k.inStates())
	}
	stop()
	<-ended
	k.mu.Lock()
	counts, readers := maps.Clone(k.counts), k.readers
	k.mu.Unlock()
	t.Logf("kills: %d of %d inside a running job, by victim %v; states of the jobs at the kills: %v", k.landed, kills, k.by, k.states)
	k.judge(t,
		history.Load{What: "kills inside a running job", N: k.landed, Floor: kills * 8 / 10},
		history.Load{What: "kills of the master", N: k.by["hub/master"], Floor: kills / 5},
		history.Load{What: "jobs done", N: counts["result"], Floor: kills / 4},
		history.Load{What: "cancels", N: counts["cancels"], Floor: kills / 20},
		history.Load{What: "submissions that were not answered", N: counts["lost replies"], Floor: kills / 50},
		history.Load{What: "readers", N: readers, Floor: kills},
	)
}

// kill waits for a job to be inside its attempt, and a moment, and kills victim.
func (k *masterKilling) kill(t *testing.T, victim string) {
	pause(t.Context(), time.Duration(20+k.rng.IntN(700))*time.Millisecond)
	ctx := deadline(t)
	require.NoError(t, k.c.Await(ctx, victim, func(p cluster.Process) bool { return p.PID != 0 }))
	inside := func(states map[string]int) bool {
		return len(states) > states["queued"]+states["waiting_retry"]
	}
	for until := time.Now().Add(5 * time.Second); !inside(k.inStates()) && time.Now().Before(until); {
		pause(ctx, time.Millisecond)
	}
	states := k.inStates()
	before := k.c.Process(victim)
	require.NoError(t, k.c.Kill(victim))
	k.by[victim]++
	if inside(states) {
		k.landed++
	}
	for s, n := range states {
		k.states[s] += n
	}
	// What is at the targets now, or is not, a crash must not have made.
	k.glance(t, k.rng)
	require.NoError(t, k.c.Await(ctx, victim, func(p cluster.Process) bool { return p.Starts > before.Starts && p.PID != 0 }))
}

// judge completes the history and has it judged. What fell under its floor makes
// it void.
func (k *masterKilling) judge(t *testing.T, loads ...history.Load) {
	require.NoError(t, k.c.Ready(t.Context()))
	last := k.client("last", 1)
	last.complete(t.Context(), t)
	last.http.CloseIdleConnections()
	published := k.onDisk(t)
	t.Logf("load: %v, %d readers, %d tasks published", k.counts, k.readers, published)
	for _, l := range loads {
		k.rec.Add(history.Event{Load: &l})
	}
	k.rec.Add(history.Event{End: &history.End{}})
	for _, v := range history.Check(k.rec.Events(), history.Options{}) {
		t.Error(v)
	}
	if t.Failed() {
		k.keep(t)
	}
}

// keep writes the history where go test -artifacts keeps it.
func (k *masterKilling) keep(t *testing.T) {
	path := filepath.Join(t.ArtifactDir(), "history")
	f, err := os.Create(path)
	require.NoError(t, err)
	r := history.NewRecorder(f)
	for _, e := range k.rec.Events() {
		r.Add(e)
	}
	require.NoError(t, r.Err())
	require.NoError(t, f.Close())
	t.Logf("the history is %s", path)
}

// onDisk records what the nodes keep of tasks and what is left behind; it returns
// how many tasks published.
func (k *masterKilling) onDisk(t *testing.T) (published int) {
	unsuccessful := 0
	for _, node := range []string{"alpha", "beta"} {
		tasks := k.tasks(t, node)
		// Nodes tell each other that a task is over, and try again when one is away.
		const courtesy = 20 * time.Second
		open := func(t history.Task) bool { return t.Ended.IsZero() }
		for until := time.Now().Add(courtesy); slices.ContainsFunc(tasks, open) && time.Now().Before(until); tasks = k.tasks(t, node) {
			pause(t.Context(), 100*time.Millisecond)
		}
		for _, task := range tasks {
			if task.Published {
				published++
			}
			if task.Op == "import" && task.Outcome != "done" {
				unsuccessful++
			}
			k.rec.Add(history.Event{Task: &task})
		}
		// The stage of an import that did not succeed may be taken over for a day.
		stages, err := filepath.Glob(k.c.Path(node, ".gantry/*"))
		require.NoError(t, err)
		k.rec.Add(history.Event{Count: &history.Count{What: "stages at " + node, N: len(stages), Most: unsuccessful}})
	}
	for _, name := range k.c.Programs() {
		k.process(t, name)
	}
	return published
}

// tasks reads what a node keeps of its tasks.
func (k *masterKilling) tasks(t *testing.T, node string) (tasks []history.Task) {
	files, err := filepath.Glob(filepath.Join(k.c.NodeDir(node), "node", "dir", "tasks", "*", "task.json"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, path := range files {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		var f struct {
			ID   string `json:"id"`
			Op   string `json:"op"`
			File struct {
				Resource string `json:"resource"`
				Path     string `json:"path"`
			} `json:"file"`
			Created    time.Time       `json:"created"`
			Publishing json.RawMessage `json:"publishing"`
			Ended      struct {
				Time    time.Time `json:"time"`
				Outcome string    `json:"outcome"`
			} `json:"ended"`
		}
		require.NoError(t, json.Unmarshal(text, &f), path)
		tasks = append(tasks, history.Task{
			Node: node, ID: f.ID, Op: f.Op, Place: node + ":" + f.File.Resource + "/" + f.File.Path, Created: f.Created,
			Ended: f.Ended.Time, Outcome: f.Ended.Outcome, Published: len(f.Publishing) > 0 && string(f.Publishing) != "null",
		})
	}
	return tasks
}

// process records what a server holds when nothing is to do.
func (k *masterKilling) process(t *testing.T, name string) {
	const idle = 40 // listeners, logs, the store, connections that are kept
	pid := k.c.Process(name).PID
	require.NotZero(t, pid, name)
	open := func() int {
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		require.NoError(t, err)
		return len(fds)
	}
	for until := time.Now().Add(10 * time.Second); open() > idle && time.Now().Before(until); {
		pause(t.Context(), 50*time.Millisecond)
	}
	k.rec.Add(history.Event{Count: &history.Count{What: "open files of " + name, N: open(), Most: idle}})
	if strings.HasSuffix(name, "/front") {
		return // nginx has workers
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	require.NoError(t, err)
	if len(children) > 0 {
		k.rec.Add(history.Event{Left: &history.Left{What: "children of " + name + ": " + string(children)}})
	}
}
