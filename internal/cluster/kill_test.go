package cluster_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gantry/api"
	"gantry/feedback"
	"gantry/front"
	"gantry/internal/cluster"
	"gantry/job"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

var (
	kills = flag.Int("kills", 24, "how many kill points TestKill tries, over all fronts")
	only  = flag.String("victim", "", "kill only this one: alpha/node, beta/node, alpha/front, beta/front or caller")
	seed  = flag.Uint64("seed", 0, "seed of the campaigns; 0: a new one, which is printed")
)

const (
	// killSize and killRate make a copy last most of a second: long enough to
	// be hit anywhere.
	killSize = 96 << 20
	killRate = 125 << 20
	// recovered is how much longer a copy may take with a kill in it than the
	// fastest. The restart takes a fraction of a second and a retry as long;
	// whoever waits for a silent connection to be given up, 30 s, has missed
	// that it is dead.
	recovered = 25 * time.Second
	// caller is the victim that is no server.
	caller = "caller"
)

// victims are killed in turn. The caller is one of them.
var victims = []string{"alpha/node", "beta/node", "alpha/front", "beta/front", caller}

func theSeed(t *testing.T) uint64 {
	s := *seed
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", s)
	return s
}

// A kill that landed came between the first piece written and the end.
type landing struct {
	victim string
	share  float64 // of the bytes that had gone over the wire
}

func TestKill(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(theSeed(t), 0))
	var landed []landing
	done, tried := 0, 0
	for i, kind := range front.Kinds {
		n := *kills * (i + 1) / len(front.Kinds)
		t.Run(string(kind), func(t *testing.T) {
			needFront(t, kind)
			k := newKilling(t, kind, rng)
			for ; done < n; done++ {
				k.run(t, done)
				tried++
			}
			landed = append(landed, k.landed...)
		})
		done = n
	}
	if t.Failed() || t.Skipped() {
		return
	}
	report(t, landed, tried)
}

// report prints where the kills landed; too few of them prove nothing.
func report(t *testing.T, landed []landing, tried int) {
	var histogram [11]int
	by := map[string]int{}
	for _, l := range landed {
		histogram[min(int(l.share*10), 10)]++
		by[l.victim]++
	}
	t.Logf("kills: %d of %d landed; by tenth of the bytes, then publishing: %v; by victim: %v", len(landed), tried, histogram, by)
	if len(landed)*100 < tried*80 {
		t.Errorf("void: %d of %d kills landed, fewer than 80%%", len(landed), tried)
	}
}

// killing is the campaign behind one kind of front.
type killing struct {
	c      *cluster.Cluster
	rng    *rand.Rand
	landed []landing
	// How long the fastest and the slowest run took, and which that was.
	fastest, slowest time.Duration
	slow             string
}

func newKilling(t *testing.T, kind front.Kind, rng *rand.Rand) *killing {
	send := []string{"stream", "front"}[rng.IntN(2)]
	t.Logf("%s, send = %q", kind, send)
	c := newCluster(t, cluster.Options{Front: kind, Send: send, Proxied: true}, func(c *cluster.Cluster) {
		random(t, c, "src.img", rng.Uint64(), killSize)
	})
	c.Proxy("alpha").Limit(killRate)
	return &killing{c: c, rng: rng}
}

// run copies a file, kills somebody on the way, and judges what is left.
func (k *killing) run(t *testing.T, i int) {
	victim := victims[i%len(victims)]
	if *only != "" {
		victim = *only
	}
	replace := i/len(victims)%2 == 0
	share := 0.2 + 0.82*k.rng.Float64() // from the first piece on; beyond 1: while it is published
	target := fmt.Sprintf("t%d.img", i)
	what := fmt.Sprintf("run %d: %s killed at %.2f, replace %v", i, victim, share, replace)

	args := []string{"copy", "alpha:disks/src.img", "beta:disks/" + target}
	if replace {
		args = append(args, "--replace")
		k.putOld(t, target)
	}
	before, began := k.c.Process(victim).Starts, time.Now()
	cmd := start(t, k.c, nil, args...)
	k.reach(cmd, share)
	hit := k.written(t)
	if victim == caller {
		cmd.Process.Kill()
	} else {
		require.NoError(t, k.c.Kill(victim), what)
	}
	k.whole(t, target, replace, what)
	if hit {
		k.landed = append(k.landed, landing{victim, min(share, 1.01)})
	}

	code := cmd.code(t)
	if victim == caller && code != 0 {
		require.Equal(t, -1, code, what)
		cmd = start(t, k.c, nil, args...)
		code = cmd.code(t)
	}
	if victim != caller {
		require.NoError(t, k.c.Await(deadline(t), victim, func(p cluster.Process) bool { return p.Starts > before && p.PID != 0 }), what)
		require.NoError(t, k.c.Ready(t.Context()), what)
	}
	require.Zero(t, code, "%s: exit code\n%s\n%s", what, &cmd.out, &cmd.err)
	require.True(t, same(t, k.c.Path("alpha", "src.img"), k.c.Path("beta", target)), "%s: reported done, and it differs", what)
	k.tasks(t, target, victim, hit, what)
	k.publications(t, target, what)
	k.took(t, time.Since(began), what)
	t.Logf("%s, landed %v: done after %.1f s", what, hit, time.Since(began).Seconds())
	require.NoError(t, os.Remove(k.c.Path("beta", target)))
}

// took judges how long a run took: against the others, because the machine may be
// busy.
func (k *killing) took(t *testing.T, d time.Duration, what string) {
	if d > k.slowest {
		k.slowest, k.slow = d, what
	}
	if k.fastest == 0 || d < k.fastest {
		k.fastest = d
	}
	require.Less(t, k.slowest-k.fastest, recovered, "%s took %v, and the fastest run %v", k.slow, k.slowest, k.fastest)
}

// deadline bounds a wait for a server.
func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// oldSize tells the old file from the new one at a glance.
const oldSize = 3<<20 + 17

// putOld puts a file where the copy will go.
func (k *killing) putOld(t *testing.T, name string) {
	require.NoError(t, k.c.CreateFile("beta", name, func(f *os.File) error {
		return cluster.Fill(t.Context(), f, cluster.Random(1, oldSize))
	}))
}

// reach waits until share of the bytes went over the wire, or, beyond all of
// them, for some milliseconds of what comes then.
func (k *killing) reach(cmd *command, share float64) {
	p := k.c.Proxy("alpha")
	from := p.Sent()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for float64(p.Sent()-from) < min(share, 0.995)*killSize {
		select {
		case <-cmd.done:
			return
		case <-tick.C:
		}
	}
	if share > 1 {
		select {
		case <-cmd.done:
		case <-time.After(time.Duration((share - 1) * float64(time.Second))):
		}
	}
}

// written says whether a stage is there with at least a piece in it: the first
// piece was written, and the stage was not published yet.
func (k *killing) written(t *testing.T) bool {
	stages, err := filepath.Glob(k.c.Path("beta", transfer.StageDir+"/*"))
	require.NoError(t, err)
	for _, path := range stages {
		var st syscall.Stat_t
		if syscall.Lstat(path, &st) == nil && st.Blocks*512 >= transfer.PieceSize {
			return true
		}
	}
	return false
}

// whole demands that the target is the old file, the complete new one, or,
// when there was none, absent.
func (k *killing) whole(t *testing.T, target string, replace bool, what string) {
	info, err := os.Stat(k.c.Path("beta", target))
	switch {
	case os.IsNotExist(err):
		require.False(t, replace, "%s: the old file is gone", what)
	case err != nil:
		require.NoError(t, err, what)
	case info.Size() == oldSize:
		require.True(t, replace, what)
	default:
		require.True(t, same(t, k.c.Path("alpha", "src.img"), k.c.Path("beta", target)), "%s: neither the old file nor the new one", what)
	}
}

// tasks demands one import of the target, which went on under its id.
func (k *killing) tasks(t *testing.T, target, victim string, hit bool, what string) {
	want := map[string]int{"alpha": 1, "beta": 1}
	if node, ok := strings.CutSuffix(victim, "/node"); ok && hit {
		want[node] = 2
	}
	imports := k.list(t, "beta", api.OpImport, target)
	require.Len(t, imports, 1, "%s: imports of the target", what)
	require.Equal(t, api.Done, imports[0].Outcome, what)
	exports := k.list(t, "alpha", api.OpExport, "src.img")
	if hit {
		require.Equal(t, want["beta"], imports[0].Start, "%s: starts of the import", what)
		require.Equal(t, want["alpha"], exports[0].Start, "%s: starts of the export", what)
	}
}

// list asks a node for the operator's tasks of one file, newest first.
func (k *killing) list(t *testing.T, node, op, path string) []api.TaskInfo {
	c := k.c.Client(node)
	defer c.Close()
	list, err := c.Tasks(t.Context(), "")
	require.NoError(t, err)
	var out []api.TaskInfo
	for _, info := range list.Tasks {
		if info.Op == op && info.File != nil && info.File.Path == path {
			out = append(out, info)
		}
	}
	return out
}

// publications demands one job for the target, in whose feed the import
// publishes once.
func (k *killing) publications(t *testing.T, target, what string) {
	store, err := job.OpenStore(filepath.Join(k.c.State(), "gantry", "jobs"))
	require.NoError(t, err)
	infos, err := store.List()
	require.NoError(t, err)
	var ours []*job.Info
	for _, info := range infos {
		if info.Spec.To.Path == target {
			ours = append(ours, info)
		}
	}
	require.Len(t, ours, 1, "%s: jobs", what)
	require.Equal(t, api.Done, ours[0].Outcome, what)
	j, err := store.Open(ours[0].ID)
	require.NoError(t, err)
	defer j.Close()
	published := 0
	require.NoError(t, j.Watch(t.Context(), 0, func(rec feedback.Record) error {
		if task, ok := rec.Body.(*feedback.Task); ok {
			inner, err := feedback.Decode(task.Record)
			require.NoError(t, err)
			if state, ok := inner.Body.(*feedback.State); ok && state.State == api.StatePublishing {
				published++
			}
		}
		return nil
	}))
	require.Equal(t, 1, published, "%s: publications", what)
}
