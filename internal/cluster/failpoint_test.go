//go:build failpoints

package cluster_test

import (
	"fmt"
	"hash/fnv"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"gantry/api"
	"gantry/front"
	"gantry/internal/cluster"
	"gantry/internal/failpoint"
	"gantry/internal/testkit"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

// actions at a failpoint: a death before and after the step, a step that
// fails, and one that is reported as failed and was not.
var actions = []string{"kill", "kill-after", "error", "error-after"}

// elsewhere are failpoints that no command reaches today, and why. Their
// packages' own tests hit them.
var elsewhere = map[string]string{
	"test.":               "package atomicfile's own",
	"feedback.trim.":      "a journal of more than its share, which takes 16 MiB of records",
	"transfer.map.forget": "a piece map that contradicts the source, whose responder hashed it again",
	"transfer.takeover":   "no command names a task to take over",
	"node.floor.":         "an entry older than 30 days",
	"node.reduce.":        "an entry older than 30 days",
	"node.tidy.":          "an entry older than 30 days",
	"master.":             "a master: TestFailpointsOfMaster",

	"queue.": "the store of a master",

	// Kinds and options that the tours do not take.
	"transfer.keep.": "an old copy that is kept",
	"tree.":          "the export of a tree",
	"treein.":        "the import of a tree",
	"device.":        "a device",
	"command.":       "a command",
	"node.limit.":    "a limit that is changed",
	"node.freeze.":   "a source that is frozen",
	"node.frozen.":   "a source that is frozen",
	"node.thaw.":     "a source that is frozen",
}

// tour is a way to reach failpoints.
type tour func(t *testing.T, f *failing, name string)

// tours says which way reaches a failpoint, by the longest prefix.
var tours = map[string]tour{
	"":                     copyTour,
	"feedback.open.sync":   restartTour,
	"feedback.open.cut":    tornTour,
	"transfer.stage.mkdir": firstTour,
	"node.start.":          restartTour,
	"node.load.":           halfTour,
	"node.cancel.":         cancelTour,
	"node.dir.":            freshTour,
	"pki.":                 caTour,
	"pki.crl.":             crlTour,
}

func longest[V any](table map[string]V, name string) (v V, ok bool) {
	for _, prefix := range slices.SortedFunc(maps.Keys(table), func(a, b string) int { return len(b) - len(a) }) {
		if strings.HasPrefix(name, prefix) {
			return table[prefix], true
		}
	}
	return v, false
}

// TestFailpoints kills, or makes fail, the responders and the caller at every
// durable step, and demands after each that nothing published is reported as
// anything but done, that the target is whole, and that the same command gets
// it there.
func TestFailpoints(t *testing.T) {
	t.Parallel()
	seed := theSeed(t)
	f := newFailing(t, cluster.Options{})
	tried := 0
	for _, name := range failpoint.Names {
		if why, ok := longest(elsewhere, name); ok {
			t.Logf("%s is not reached here: %s", name, why)
			continue
		}
		walk, _ := longest(tours, name)
		actions := actions
		if slices.Contains(failpoint.Moments, name) {
			actions = []string{"kill", "error"}
		}
		h := fnv.New64a()
		fmt.Fprint(h, seed, name)
		pick := int(h.Sum64() % uint64(len(actions)))
		for i, action := range actions {
			if !testkit.EveryAction() && i != pick {
				continue
			}
			tried++
			t.Run(name+"="+action, func(t *testing.T) {
				f.n++
				f.arm = []string{
					"GANTRY_FAILPOINTS=" + name + "=" + action,
					"GANTRY_FAILPOINT_LOG=" + f.log,
				}
				require.NoError(t, os.Truncate(f.log, 0))
				began := time.Now()
				walk(t, f, name)
				f.hit(t, name)
				require.Less(t, time.Since(began), recovered)
			})
		}
	}
	t.Logf("%d actions at failpoints, all hit", tried)
}

// failing is a cluster whose programs have failpoints.
type failing struct {
	*killing
	log string
	arm []string // environment of what is to fail
	n   int      // number of the case
}

// failSize is some pieces and a rest.
const failSize = 21<<20 + 5

func newFailing(t *testing.T, o cluster.Options) *failing {
	o.Program, o.Front, o.Proxied = program(t, "failpoints"), front.EmbeddedServer, true
	f := &failing{killing: &killing{c: newCluster(t, o, func(c *cluster.Cluster) { random(t, c, "src.img", 7, failSize) })}}
	f.log = filepath.Join(f.c.Dir(), "log", "failpoints")
	require.NoError(t, os.WriteFile(f.log, nil, 0o600))
	require.NoError(t, os.Chmod(f.log, 0o666)) // responders and caller write to it
	return f
}

// hit demands that the failpoint is reached: some steps come after the end of
// the copy.
func (f *failing) hit(t *testing.T, name string) {
	t.Helper()
	require.Eventually(t, func() bool {
		text, err := os.ReadFile(f.log)
		return err == nil && slices.Contains(strings.Fields(string(text)), name)
	}, 20*time.Second, 5*time.Millisecond, "the failpoint was not reached")
	testkit.PassOnFailpoints(t, f.log)
}

// rearm restarts both responders, armed.
func (f *failing) rearm(t *testing.T) {
	t.Helper()
	f.arming(t, "alpha/node", "beta/node")
}

// arming restarts programs, armed.
func (f *failing) arming(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		// A responder that dies of the case before may be restarted between the
		// two steps, and take the arming with it: then once more.
		require.Eventually(t, func() bool { return f.rearmed(t, name) }, 20*time.Second, time.Millisecond)
	}
}

func (f *failing) rearmed(t *testing.T, name string) bool {
	before := f.c.Process(name)
	if before.PID == 0 || f.c.Once(name, f.arm...) != nil || f.c.Kill(name) != nil {
		return false
	}
	var after cluster.Process
	if f.c.Await(deadline(t), name, func(p cluster.Process) bool { after = p; return p.Starts > before.Starts && p.PID != 0 }) != nil {
		return false
	}
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", after.PID))
	if err != nil || len(env) == 0 { // it is dead already: of its arm, then
		text, err := os.ReadFile(f.log)
		return err == nil && len(text) > 0
	}
	return strings.Contains(string(env), f.arm[0])
}

// copyTour copies while everything is armed from the start.
func copyTour(t *testing.T, f *failing, _ string) {
	f.rearm(t)
	require.NoError(t, f.c.Ready(t.Context()))
	args, replace := f.command(t)
	cmd := start(t, f.c, f.arm, args...)
	f.finish(t, cmd, args, replace)
}

// restartTour arms the responders in the middle of a copy.
func restartTour(t *testing.T, f *failing, _ string) {
	p := f.c.Proxy("alpha")
	p.Limit(20 << 20)
	args, replace := f.command(t)
	sent := p.Sent()
	cmd := start(t, f.c, nil, args...)
	require.Eventually(t, func() bool { return p.Sent()-sent > failSize/3 }, 20*time.Second, time.Millisecond)
	p.Limit(0)
	f.rearm(t)
	f.finish(t, cmd, args, replace)
}

// tornTour repeats, armed, a command that was killed in the middle of a line
// of its job's feed.
func tornTour(t *testing.T, f *failing, _ string) {
	p := f.c.Proxy("alpha")
	p.Limit(20 << 20)
	args, replace := f.command(t)
	sent := p.Sent()
	cmd := start(t, f.c, nil, args...)
	require.Eventually(t, func() bool { return p.Sent()-sent > failSize/3 }, 20*time.Second, time.Millisecond)
	require.NoError(t, cmd.Process.Kill())
	<-cmd.done
	p.Limit(0)
	feeds, err := filepath.Glob(filepath.Join(f.c.State(), "gantry", "jobs", "*", "feed"))
	require.NoError(t, err)
	newest := slices.Max(feeds) // ids begin with their time
	feed, err := os.OpenFile(newest, os.O_WRONLY|os.O_APPEND, 0)
	require.NoError(t, err)
	_, err = feed.WriteString(`{"seq":99,"t":"20`)
	require.NoError(t, err)
	require.NoError(t, feed.Close())
	f.finish(t, start(t, f.c, f.arm, args...), args, replace)
}

// firstTour copies into a resource that never had a stage.
func firstTour(t *testing.T, f *failing, name string) {
	require.NoError(t, os.RemoveAll(f.c.Path("beta", transfer.StageDir)))
	copyTour(t, f, name)
}

// halfTour starts responders on a task that was not accepted to its end.
func halfTour(t *testing.T, f *failing, name string) {
	for _, node := range []string{"alpha", "beta"} {
		tasks := filepath.Join(f.c.Dir(), node, "node", "dir", "tasks")
		info, err := os.Stat(tasks)
		require.NoError(t, err)
		half := filepath.Join(tasks, api.NewID())
		require.NoError(t, os.Mkdir(half, 0o700))
		owner := info.Sys().(*syscall.Stat_t)
		require.NoError(t, os.Chown(half, int(owner.Uid), int(owner.Gid)))
	}
	copyTour(t, f, name)
}

// cancelTour arms the responders in the middle of a copy and cancels it.
func cancelTour(t *testing.T, f *failing, _ string) {
	f.rearm(t)
	require.NoError(t, f.c.Ready(t.Context()))
	p := f.c.Proxy("alpha")
	p.Limit(20 << 20)
	defer p.Limit(0)
	args, replace := f.command(t)
	sent := p.Sent()
	cmd := start(t, f.c, nil, args...)
	require.Eventually(t, func() bool { return p.Sent()-sent > failSize/3 }, 20*time.Second, time.Millisecond)
	imports := f.list(t, "beta", api.OpImport, f.target())
	require.NotEmpty(t, imports)
	c := f.c.Client("beta")
	defer c.Close()
	err := c.Cancel(t.Context(), imports[0].ID) // it may die of it
	t.Log("cancel:", err)
	p.Limit(0)
	f.finish(t, cmd, args, replace)
}

// freshTour starts responders on folders that are empty.
func freshTour(t *testing.T, f *failing, _ string) {
	c, err := cluster.New(cluster.Options{Program: program(t, "failpoints"), Front: front.EmbeddedServer, Env: serverEnv()})
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close()) }()
	require.NoError(t, c.Once("alpha/node", f.arm...))
	if err := c.Start(t.Context()); err != nil {
		showLogs(t, c)
		require.NoError(t, err)
	}
}

// crlTour sends a new revocation list to armed responders.
func crlTour(t *testing.T, f *failing, _ string) {
	f.rearm(t)
	require.NoError(t, f.c.Ready(t.Context()))
	push := []string{"ca", "crl", "--push", "--dir", f.c.CA()}
	gantry(t, f.c, push...) // a responder may die of it
	require.NoError(t, f.c.Ready(t.Context()))
	code, out, stderr := gantry(t, f.c, push...)
	require.Zero(t, code, "%s%s", out, stderr)
	copyAlone(t, f)
}

// copyAlone copies with nothing armed.
func copyAlone(t *testing.T, f *failing) {
	args, replace := f.command(t)
	f.finish(t, start(t, f.c, nil, args...), args, replace)
}

// caTour makes a CA, issues and revokes, all armed, and then again without.
func caTour(t *testing.T, f *failing, _ string) {
	dir := filepath.Join(f.c.Home(), fmt.Sprintf("ca%d", f.n))
	steps := [][]string{
		{"ca", "init", "other", "--dir", dir},
		{"ca", "issue", "operator", "ann", "--dir", dir, "--out", dir + "-ann"},
		{"ca", "revoke", "operator/ann", "--dir", dir},
		{"ca", "list", "--dir", dir},
	}
	for _, args := range steps {
		start(t, f.c, f.arm, args...).code(t)
	}
	if _, err := os.Stat(dir); os.IsNotExist(err) {
		code, out, stderr := gantry(t, f.c, steps[0]...)
		require.Zero(t, code, "%s%s", out, stderr)
	}
	issue := slices.Clone(steps[1])
	issue[len(issue)-1] = dir + "-again"
	for _, args := range [][]string{issue, steps[2], steps[3]} {
		code, out, stderr := gantry(t, f.c, args...)
		require.Zero(t, code, "%v: %s%s", args, out, stderr)
	}
}

func (f *failing) target() string { return fmt.Sprintf("f%d.img", f.n) }

// command is the copy of this case; every second one replaces an old file.
func (f *failing) command(t *testing.T) (args []string, replace bool) {
	t.Helper()
	args = []string{"copy", "alpha:disks/src.img", "beta:disks/" + f.target()}
	if replace = f.n%2 == 0; replace {
		f.putOld(t, f.target())
		args = append(args, "--replace")
	}
	return args, replace
}

// finish judges what the armed command left, and repeats it, with nothing
// armed, until it is done.
func (f *failing) finish(t *testing.T, cmd *command, args []string, replace bool) {
	t.Helper()
	const tries = 4 // an armed failpoint acts once in each of three processes
	for range tries {
		code := cmd.code(t)
		what := fmt.Sprintf("exit code %d\n%s\n%s", code, &cmd.out, &cmd.err)
		f.whole(t, f.target(), replace, what)
		info, err := os.Stat(f.c.Path("beta", f.target()))
		published := err == nil && info.Size() == failSize
		switch code {
		case api.ExitDone:
			require.True(t, published, "reported done, and nothing is there: %s", what)
			require.NoError(t, os.Remove(f.c.Path("beta", f.target())))
			return
		case -1, api.ExitUnknown:
		default:
			require.False(t, published, "published, and reported as something else than done: %s", what)
		}
		require.NoError(t, f.c.Ready(t.Context()))
		cmd = start(t, f.c, nil, args...)
	}
	require.Fail(t, "the same command never got there", "%s\n%s", &cmd.out, &cmd.err)
}
