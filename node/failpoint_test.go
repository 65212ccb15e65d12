//go:build failpoints

package node_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gantry/api"
	"gantry/feedback"
	"gantry/internal/failpoint"
	"gantry/internal/testkit"

	"github.com/stretchr/testify/require"
)

// TestFailpointsOfALife takes a responder through everything that it writes:
// its folder, a task accepted, ended, acknowledged, an import published and
// told, a restart, a cancel, and forgetting it all. One step of every durable
// write dies or fails, one after the other. Whatever was answered stays true.
func TestFailpointsOfALife(t *testing.T) {
	var groups []string // that have steps
	var single []string
	for _, name := range failpoint.Names {
		group, isGroup := strings.CutSuffix(name, ".write")
		switch {
		case isGroup && strings.HasPrefix(name, "node."):
			groups = append(groups, group)
		case strings.HasPrefix(name, "node.") && strings.Count(name, ".") == 2 && !slices.ContainsFunc(groups, func(g string) bool { return strings.HasPrefix(name, g+".") }):
			single = append(single, name)
		}
	}
	require.Equal(t, []string{"node.accept.dirsync", "node.load.dirsync"}, single)
	for _, step := range failpoint.Durable("") {
		names := make([]string, 0, len(groups)+len(single))
		for _, g := range groups {
			names = append(names, g+step)
		}
		if step == ".dirsync" {
			names = append(names, single...)
		}
		for _, verb := range testkit.Actions("life" + step) {
			t.Run(step[1:]+" "+verb, func(t *testing.T) { live(t, names, verb) })
		}
	}
}

// A life is what was promised so far.
type life struct {
	*testing.T
	k      *keeper
	beta   *machine
	target string
	finals map[string]string // the line, by id
	tasks  []*api.TaskRequest
	inode  uint64
}

func live(t *testing.T, names []string, verb string) {
	w := newWorld(t, "", "alpha", "beta")
	alpha, beta := w.all["alpha"].start(), w.all["beta"]
	small := beta.file("disks/small", 1000, 1)
	old, data := beta.file("disks/a", 100, 2), alpha.file("disks/a", 5<<20, 3)
	beta.freezes("", "", "")
	beta.ownedBy(gantry)
	var actions []string
	for _, name := range names {
		actions = append(actions, name+"="+verb)
	}
	l := &life{T: t, k: keep(t, beta, actions...), beta: beta, target: filepath.Join(beta.dir, "disks/a"), finals: map[string]string{}}

	digested := newRequest(api.OpDigest, api.DigestArgs{File: api.File{Resource: "disks", Path: "small"}})
	final := l.end(digested, nil)
	require.Equal(t, digest(small), resultOf[api.DigestResult](t, final, nil).Digest)
	l.again("ack", func() bool { // one that comes while the node stops leaves the feed as it is
		err := beta.as("ann").Ack(t.Context(), digested.ID, final.Seq)
		return err == nil && !strings.Contains(strings.Join(l.k.armed(), " "), "node.reduce.")
	})

	export, args := w.pair("a")
	args.Mode = api.ModeReplace
	alpha.follow("ann", export)
	content := func() string {
		text, err := os.ReadFile(l.target)
		require.NoError(t, err)
		require.True(t, string(text) == string(old) || string(text) == string(data), "neither the old file nor the new one")
		return string(text)
	}
	final = l.end(newRequest(api.OpImport, args), func() { content() })
	if strings.HasPrefix(verb, "error") { // of node.publishing, before the point of no return
		require.Equal(t, "internal", codeOf(t, final, nil))
		require.Equal(t, string(old), content(), "published, and reported as failed")
		final = l.end(newRequest(api.OpImport, args), func() { content() })
	}
	require.Equal(t, digest(data), resultOf[api.ImportResult](t, final, nil).Digest)
	require.Equal(t, digest(data), digest([]byte(content())))
	l.inode = inode(t, l.target)
	l.again("telling the source", func() bool {
		info, err := alpha.as("ann").Task(t.Context(), export.ID)
		return err == nil && info.Outcome == api.Done
	})
	alpha.halt() // an import waits from now on

	frozen := exportOf("snaps", "x") // of no file: it ends by itself, and what it froze is released
	l.again("a snapshot", func() bool {
		final, err := beta.run("ann", frozen)
		if err != nil {
			return false
		}
		l.finals[frozen.ID] = string(final.Line)
		if l.tasks = append(l.tasks, frozen); codeOf(t, final, nil) != "not_found" { // of node.freeze or node.frozen
			frozen = exportOf("snaps", "x")
			return false
		}
		return true
	})
	for _, req := range l.tasks {
		l.again("releasing", func() bool {
			text, err := os.ReadFile(filepath.Join(beta.dir, "state/tasks", req.ID, "task.json"))
			return err == nil && !strings.Contains(string(text), `"frozen"`)
		})
	}
	left, err := filepath.Glob(filepath.Join(beta.dir, "hooks/snap-*"))
	require.NoError(t, err)
	require.Empty(t, left)

	_, args = w.pair("b")
	waiting := newRequest(api.OpImport, args)
	l.tasks = append(l.tasks, waiting)
	l.again("starting an import", func() bool { return beta.begin(waiting) == http.StatusOK })
	half := filepath.Join(beta.dir, "state/tasks", api.NewID()) // of a task that was never accepted
	require.NoError(t, os.Mkdir(half, 0o700))
	require.NoError(t, os.Chown(half, gantry, gantry))
	l.k.kill()
	l.again("taking it up", func() bool {
		info, err := beta.as("ann").Task(t.Context(), waiting.ID)
		return err == nil && info.Start >= 2
	})
	require.NoDirExists(t, half)
	l.again("limiting", func() bool { return beta.as("ann").Limit(t.Context(), waiting.ID, 1<<20) == nil })
	l.again("cancel", func() bool { return beta.as("ann").Cancel(t.Context(), waiting.ID) == nil })
	require.Equal(t, "cancelled", codeOf(t, l.end(waiting, nil), nil))

	for _, req := range l.tasks {
		l.end(req, nil)
	}
	l.forgets()
	require.Empty(t, l.k.armed(), "never acted")
	for _, req := range l.tasks {
		n := strings.Count(beta.log.String(), fmt.Sprintf("msg=\"task accepted\" task=%s", req.ID))
		require.LessOrEqual(t, n, 1, "accepted twice")
	}
}

func (l *life) again(what string, do func() bool) {
	l.Helper()
	pause := time.NewTicker(10 * time.Millisecond)
	defer pause.Stop()
	for deadline := time.Now().Add(30 * time.Second); !do(); <-pause.C { // in this goroutine: do may fail the test
		require.True(l, time.Now().Before(deadline), "%s: not within 30 s", what)
	}
}

// end follows a task to its final, through refusals that may pass. A final
// that was seen is seen again. It asks between the tries.
func (l *life) end(req *api.TaskRequest, between func()) (final feedback.Record) {
	l.Helper()
	l.again(req.Op, func() bool {
		if between != nil {
			between()
		}
		var err error
		final, err = l.beta.run("ann", req)
		return err == nil
	})
	if before, ok := l.finals[req.ID]; ok {
		require.Equal(l, before, string(final.Line), "another final than the one that was shown")
	}
	l.finals[req.ID] = string(final.Line)
	if !slices.Contains(l.tasks, req) {
		l.tasks = append(l.tasks, req)
	}
	return final
}

// forgets makes the node forget its tasks. Before the floor is on disk an id
// gets its final, after it it is refused; it never runs again.
func (l *life) forgets() {
	f, err := os.OpenFile(l.beta.config, os.O_WRONLY|os.O_APPEND, 0)
	require.NoError(l, err)
	_, err = f.WriteString("[limits]\nkeep_final = \"1ms\"\n")
	require.NoError(l, err)
	require.NoError(l, f.Close())
	for range 2 { // the floor outlives a kill
		l.k.kill()
		for _, req := range l.tasks {
			l.again("forgetting", func() bool {
				body := api.Encode(req)
				r, err := l.beta.http("ann").Post("https://"+l.beta.addr+api.Prefix+"/tasks", api.TypeJSON, strings.NewReader(string(body)))
				if err != nil {
					return false
				}
				defer r.Body.Close()
				if r.StatusCode != http.StatusOK {
					return l.tooOld(r)
				}
				for rec, err := range feedback.NewReader(r.Body, feedback.ReaderOptions{ID: req.ID}).All() {
					if err != nil {
						return false // it died
					}
					if rec.Kind.Final() {
						require.Equal(l, l.finals[req.ID], string(rec.Line), "it ran again")
					}
				}
				return false
			})
		}
	}
	require.Equal(l, l.inode, inode(l.T, l.target), "published again")
	l.again("removing", func() bool {
		left, err := os.ReadDir(filepath.Join(l.beta.dir, "state/tasks"))
		return err == nil && len(left) == 0
	})
}

// tooOld is the refusal of an id that was forgotten; while nobody serves there
// are others.
func (l *life) tooOld(r *http.Response) bool {
	var p api.Problem
	return r.StatusCode == http.StatusConflict && api.Decode(r.Body, &p) == nil && p.Code == api.TooOld.Name
}
