//go:build failpoints

package node_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gantry/api"
	"gantry/feedback"
	"gantry/internal/failpoint"
	"gantry/internal/testkit"

	"github.com/stretchr/testify/require"
)

// A keeper runs a responder as another process and starts it again when it
// dies. Each of its actions at failpoints is armed until it has acted.
type keeper struct {
	t       *testing.T
	m       *machine
	actions []string // name=verb
	log     string
	lives   atomic.Int32
	pid     atomic.Int32
	ending  chan struct{}
	done    chan struct{}
}

func keep(t *testing.T, m *machine, actions ...string) *keeper {
	k := &keeper{
		t: t, m: m, actions: actions, log: filepath.Join(m.dir, "state", "points"),
		ending: make(chan struct{}), done: make(chan struct{}),
	}
	command(t, gantry, "ask") // skips without root, copies the binary
	go k.run()
	t.Cleanup(func() {
		k.stop()
		testkit.PassOnFailpoints(t, k.log)
	})
	return k
}

func (k *keeper) run() {
	defer close(k.done)
	for {
		cmd := command(k.t, gantry, "run", k.m.config)
		cmd.Stderr = k.m.log
		cmd.Env = append(os.Environ(), "GANTRY_FAILPOINT_LOG="+k.log, "GANTRY_FAILPOINTS="+strings.Join(k.armed(), ","))
		if err := cmd.Start(); err != nil {
			k.t.Error(err)
			return
		}
		k.pid.Store(int32(cmd.Process.Pid))
		k.lives.Add(1)
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case <-ended:
		case <-k.ending:
			cmd.Process.Kill()
			<-ended
			return
		}
	}
}

// armed are the actions that have not acted.
func (k *keeper) armed() []string {
	text, err := os.ReadFile(k.log)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		k.t.Error(err)
	}
	return slices.DeleteFunc(slices.Clone(k.actions), func(a string) bool {
		done, _, _ := strings.Cut(a, "@")
		return strings.Contains(string(text), done+"\n")
	})
}

// kill ends the present life and waits for the next.
func (k *keeper) kill() {
	k.t.Helper()
	lives, pid := k.lives.Load(), int(k.pid.Load())
	require.NoError(k.t, syscall.Kill(pid, syscall.SIGKILL))
	require.Eventually(k.t, func() bool { return k.lives.Load() > lives }, 10*time.Second, 5*time.Millisecond)
}

func (k *keeper) stop() {
	select {
	case <-k.ending:
	default:
		close(k.ending)
	}
	<-k.done
	os.Remove(filepath.Join(k.m.dir, "s"))
}

// Wherever the importing responder dies, or a write of its own fails, the same
// task goes on and ends done, with one publication.
//
// Without -failpoints.all the seed picks some of the points: the ones of this
// package are all in TestFailpointsOfALife, and internal/cluster has them all.
func TestImportSurvivesEveryFailpoint(t *testing.T) {
	var points []string
	for _, name := range failpoint.Names {
		if strings.HasPrefix(name, "node.") || strings.HasPrefix(name, "transfer.") || strings.HasPrefix(name, "feedback.") {
			points = append(points, name)
		}
	}
	hit := map[string]bool{}
	for _, action := range []string{"kill", "kill-after"} {
		for _, point := range points {
			if testkit.EveryAction() || testkit.Pick(point+action, some) == 0 {
				t.Run(point+" "+action, func(t *testing.T) { importThrough(t, point+"="+action, hit) })
			}
		}
	}
	// A record of the node's own that cannot be written ends the responder, or
	// refuses the task before it exists; the next start goes on.
	for _, point := range slices.Concat(failpoint.Appending("feedback.append"), failpoint.Durable("node.accept.task"),
		failpoint.Durable("node.end"), failpoint.Durable("node.told")) {
		for _, action := range []string{"error", "error-after"} {
			if testkit.EveryAction() || testkit.Pick(point+action, some) == 0 {
				t.Run(point+" "+action, func(t *testing.T) { importThrough(t, point+"="+action, hit) })
			}
		}
	}
}

// some is the share of the long form that the short one tries.
const some = 30

func importThrough(t *testing.T, first string, hit map[string]bool) {
	w := newWorld(t, "", "alpha", "beta")
	alpha, beta := w.all["alpha"].start(), w.all["beta"]
	data := alpha.file("disks/a", 9<<20+5, 1)
	old := beta.file("disks/a", 100, 2)
	beta.ownedBy(gantry)
	target := filepath.Join(beta.dir, "disks/a")
	k := keep(t, beta, first)
	export, args := w.pair("a")
	args.Mode = api.ModeReplace
	alpha.follow("ann", export)
	req := newRequest(api.OpImport, args)

	var final feedback.Record
	var err error
	for deadline := time.Now().Add(30 * time.Second); ; {
		// A refusal that says that it may pass is tried again, as a user would.
		if final, err = beta.run("ann", req); err == nil || time.Now().After(deadline) {
			break
		}
		text, rerr := os.ReadFile(target)
		require.NoError(t, rerr)
		require.True(t, string(text) == string(old) || string(text) == string(data), "neither the old file nor the new one")
	}
	result := resultOf[api.ImportResult](t, final, err)
	require.Equal(t, digest(data), result.Digest)
	copied, err := os.ReadFile(target)
	require.NoError(t, err)
	require.True(t, string(data) == string(copied))

	require.Eventually(t, func() bool {
		info, err := alpha.as("ann").Task(t.Context(), export.ID)
		return err == nil && info.Outcome == api.Done
	}, 20*time.Second, 20*time.Millisecond, "the source was never told")
	k.settle(hit)
	require.LessOrEqual(t, countPublishing(t, beta, req), 2) // once more when a crash came right after it
	left, err := filepath.Glob(filepath.Join(beta.dir, "disks/.gantry/*"))
	require.NoError(t, err)
	require.Empty(t, left, "stages left")
}

// settle waits until a point that was reached has acted, and notes what was.
func (k *keeper) settle(hit map[string]bool) {
	point, _, _ := strings.Cut(k.actions[0], "=")
	require.Eventually(k.t, func() bool {
		text, err := os.ReadFile(k.log)
		reached := strings.Contains(string(text), point+"\n") && !strings.Contains(k.actions[0], "@")
		return err == nil && (len(k.armed()) == 0 || !reached)
	}, 10*time.Second, 10*time.Millisecond, "the point was reached and did nothing")
	text, err := os.ReadFile(k.log)
	require.NoError(k.t, err)
	for line := range strings.Lines(string(text)) {
		hit[strings.TrimSpace(line)] = true
	}
	require.Eventually(k.t, func() bool {
		_, err := k.m.as("ann").Status(k.t.Context())
		return err == nil
	}, 10*time.Second, 10*time.Millisecond)
}

// What is cancelled stays cancelled, and what is acknowledged keeps its final,
// wherever the responder dies.
func TestCancelAndAckSurviveEveryFailpoint(t *testing.T) {
	hit := map[string]bool{}
	for _, action := range []string{"kill", "kill-after"} {
		for _, point := range failpoint.Names {
			group := strings.Split(point+"..", ".")
			if testkit.EveryAction() && group[0] == "node" && group[1] != "floor" && group[1] != "load" {
				t.Run(point+" "+action, func(t *testing.T) { cancelThrough(t, point+"="+action, hit) })
			}
		}
	}
	// Between the answer to DELETE and the final record, among others.
	for n := range 8 {
		first := fmt.Sprintf("feedback.append.write=kill@%d", n+1)
		if testkit.EveryAction() || n%4 == testkit.Pick("append", 4) {
			t.Run(first, func(t *testing.T) { cancelThrough(t, first, hit) })
		}
	}
}

func cancelThrough(t *testing.T, first string, hit map[string]bool) {
	w := newWorld(t, "", "alpha", "beta") // alpha never runs: an import waits
	beta := w.all["beta"]
	data := beta.file("disks/a", 1000, 1)
	beta.ownedBy(gantry)
	k := keep(t, beta, first)
	again := func(what string, do func() bool) {
		t.Helper()
		require.Eventually(t, do, 20*time.Second, 10*time.Millisecond, what)
	}

	digested := newRequest(api.OpDigest, api.DigestArgs{File: api.File{Resource: "disks", Path: "a"}})
	var final feedback.Record
	again("digest", func() bool {
		var err error
		final, err = beta.run("ann", digested)
		return err == nil
	})
	require.Equal(t, digest(data), resultOf[api.DigestResult](t, final, nil).Digest)
	again("ack", func() bool { return beta.as("ann").Ack(t.Context(), digested.ID, final.Seq) == nil })

	_, args := w.pair("b")
	imported := newRequest(api.OpImport, args)
	again("import", func() bool {
		return beta.begin(imported) == 200
	})
	again("cancel", func() bool { return beta.as("ann").Cancel(t.Context(), imported.ID) == nil })
	k.settle(hit)
	var last feedback.Record
	var err error
	again("the end", func() bool { // it may have been killed while it ended
		last, err = beta.run("ann", imported)
		return err == nil
	})
	require.Equal(t, "cancelled", codeOf(t, last, nil))
	same, err := beta.run("ann", digested)
	require.NoError(t, err)
	require.Equal(t, string(final.Line), string(same.Line))
}
