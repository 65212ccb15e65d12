package node_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gantry/api"
	"gantry/feedback"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// snapScript is a hook that copies the resource and writes down what it is
// asked. The file "hold" makes the step of its name wait until it is gone, the
// file "fail" makes release fail once.
const snapScript = `#!/bin/sh
echo "$1 $GANTRY_TASK $GANTRY_RESOURCE $GANTRY_PATH" >> "$2/log"
snap="$2/snap-$GANTRY_TASK"
case $1 in
create) cp -a "$GANTRY_PATH" "$snap"; echo "noise" >&2
	while [ -e "$2/hold-create" ]; do sleep 0.02; done; echo "$snap" ;;
remove) if [ -e "$2/fail" ]; then rm "$2/fail"; echo "not now" >&2; exit 3; fi
	while [ -e "$2/hold-remove" ]; do sleep 0.02; done; rm -rf "$snap" ;;
esac
`

// freezes gives a machine the resource "snaps", whose hooks are snapshot and
// release in TOML; "" is the script above.
func (m *machine) freezes(snapshot, release, more string) {
	m.t.Helper()
	script := m.write(m.name+"/hooks/snap", snapScript, 0o755)
	hooks := filepath.Dir(script)
	if snapshot == "" {
		snapshot = fmt.Sprintf("[%q, \"create\", %q]", script, hooks)
	}
	if release == "" {
		release = fmt.Sprintf("[%q, \"remove\", %q]", script, hooks)
	}
	if release != "none" {
		more += "\nrelease = " + release
	}
	require.NoError(m.t, os.MkdirAll(filepath.Join(m.dir, "snaps"), 0o755))
	text, err := os.ReadFile(m.config)
	require.NoError(m.t, err)
	text = fmt.Appendf(text, `
[[resource]]
name = "snaps"
kind = "files"
path = "%s/snaps"
snapshot = %s
%s
[[grant]]
who = "spiffe://demo/operator/ann"
may = ["export", "digest"]
resources = ["snaps"]
`, m.dir, snapshot, more)
	require.NoError(m.t, os.WriteFile(m.config, text, 0o644))
}

// hooked returns the steps that were asked of the script, once there are n.
func (m *machine) hooked(n int) []string {
	m.t.Helper()
	var steps []string
	require.Eventually(m.t, func() bool {
		text, err := os.ReadFile(filepath.Join(m.dir, "hooks/log"))
		steps = strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' })
		return err == nil && len(steps) >= n
	}, 20*time.Second, 10*time.Millisecond, "steps: %v", steps)
	for i := range steps {
		steps[i], _, _ = strings.Cut(steps[i], " ")
	}
	return steps
}

// thawed waits until nothing is frozen any more.
func (m *machine) thawed(task string) {
	m.t.Helper()
	require.Eventually(m.t, func() bool {
		text, err := os.ReadFile(filepath.Join(m.dir, "state/tasks", task, "task.json"))
		return err == nil && !strings.Contains(string(text), `"frozen"`)
	}, 20*time.Second, 10*time.Millisecond)
	left, err := filepath.Glob(filepath.Join(m.dir, "hooks/snap-*"))
	require.NoError(m.t, err)
	require.Empty(m.t, left)
}

func (m *machine) hold(step string) (release func()) {
	path := m.write(m.name+"/hooks/hold-"+step, "", 0o666)
	return func() { require.NoError(m.t, os.Remove(path)) }
}

func exportOf(resource, path string) *api.TaskRequest {
	return newRequest(api.OpExport, api.ExportArgs{File: api.File{Resource: resource, Path: path}})
}

// content reads an export; it waits for its snapshot.
func (m *machine) content(task string) string {
	r := m.ask("ann", "GET", "/tasks/"+task+"/content", nil, "")
	require.Equal(m.t, 200, r.status, r.body)
	return r.body
}

func TestSnapshotHook(t *testing.T) {
	w := newWorld(t, "", "alpha")
	alpha := w.all["alpha"]
	alpha.freezes("", "", "")
	old := string(alpha.file("snaps/dir/a", 5<<20, 1))
	alpha.start()
	req := exportOf("snaps", "dir/a")
	done := alpha.follow("ann", req)
	require.Equal(t, old, alpha.content(req.ID))
	alpha.file("snaps/dir/a", 1<<20, 2) // the source goes on changing
	require.Equal(t, old, alpha.content(req.ID))
	require.Equal(t, []string{"create"}, alpha.hooked(1))
	log, err := os.ReadFile(filepath.Join(alpha.dir, "hooks/log"))
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintf("create %s snaps %s/snaps\n", req.ID, alpha.dir), string(log))

	alpha.restart() // goes on with the same snapshot
	require.Equal(t, old, alpha.content(req.ID))
	require.NoError(t, alpha.as("ann").Finish(t.Context(), req.ID, "", digest([]byte(old))))
	resultOf[api.ExportResult](t, <-done, nil)
	alpha.thawed(req.ID)
	require.Equal(t, []string{"create", "remove"}, alpha.hooked(2))
}

func TestSnapshotIsReleasedAfterCancelAndAfterFailure(t *testing.T) {
	w := newWorld(t, "", "alpha")
	alpha := w.all["alpha"]
	alpha.freezes("", "", "")
	alpha.file("snaps/a", 1000, 1)
	alpha.write("alpha/hooks/fail", "", 0o666) // the first release fails
	alpha.start()
	req := exportOf("snaps", "a")
	done := alpha.follow("ann", req)
	alpha.content(req.ID)
	require.NoError(t, alpha.as("ann").Cancel(t.Context(), req.ID))
	require.Equal(t, "cancelled", codeOf(t, <-done, nil))
	alpha.thawed(req.ID)
	require.Equal(t, []string{"create", "remove", "remove"}, alpha.hooked(3))
	require.Contains(t, alpha.log.String(), "exit status 3: not now")

	t.Run("cancelled while it is made", func(t *testing.T) {
		release := alpha.hold("create")
		req := exportOf("snaps", "a")
		done := alpha.follow("ann", req)
		alpha.hooked(4)
		require.NoError(t, alpha.as("ann").Cancel(t.Context(), req.ID))
		require.Equal(t, "cancelled", codeOf(t, <-done, nil))
		release()
		alpha.thawed(req.ID)
	})
	t.Run("no such file", func(t *testing.T) {
		req := exportOf("snaps", "nothing")
		final, err := alpha.run("ann", req)
		require.Equal(t, "not_found", codeOf(t, final, err))
		alpha.thawed(req.ID)
		require.Equal(t, []string{"create", "remove"}, alpha.hooked(7)[5:])
	})
}

// Whatever a hook does, the export fails with a sentence, and what the hook may
// have begun is released, once.
func TestSnapshotHookThatMisbehaves(t *testing.T) {
	sh := func(script string) string { return fmt.Sprintf("[\"/bin/sh\", \"-c\", %q]", script) }
	for name, row := range map[string]struct{ snapshot, why string }{
		"hangs":                 {sh("sleep 1000"), "it took longer than 300ms"},
		"hangs with children":   {sh("sleep 1000 & sleep 1000"), "it took longer than 300ms"},
		"ignores SIGTERM":       {sh("trap '' TERM; sleep 1000 & wait; sleep 1"), "it took longer than 300ms"},
		"garbage":               {sh(`printf '/\001\377\n'`), "it printed what is no path"},
		"relative path":         {sh("echo snaps/x"), `it printed "snaps/x"; an absolute path`},
		"path with ..":          {sh("echo /tmp/../etc"), "an absolute path in its shortest form"},
		"the root":              {sh("echo /"), "an absolute path"},
		"exit 1":                {sh("echo volume is busy >&2; exit 1"), "exit status 1: volume is busy"},
		"a path and exit 1":     {sh("echo /tmp; exit 1"), "exit status 1"},
		"killed":                {sh("kill -9 $$"), "signal: killed"},
		"two lines":             {sh("echo /tmp; echo /tmp"), "it printed more than one line"},
		"nothing":               {sh("true"), "it printed nothing"},
		"half a line":           {sh("printf /tmp"), "its line has no end"},
		"1 GB":                  {sh("head -c 1000000000 /dev/zero"), "it printed more than 4097 bytes"},
		"100 MB of errors":      {sh("head -c 100000000 /dev/zero >&2; exit 1"), "exit status 1"},
		"a path that is none":   {sh("echo /nothing/here"), "cannot be looked at"},
		"a file":                {sh("echo /etc/passwd"), "is not a directory"},
		"a program that is not": {`["/nothing/here"]`, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "", "alpha")
			alpha := w.all["alpha"]
			timeout := "20s"
			if strings.Contains(row.why, "300ms") {
				timeout = "300ms"
			}
			alpha.freezes(row.snapshot, "", fmt.Sprintf("hook_timeout = %q", timeout))
			alpha.file("snaps/a", 1000, 1)
			alpha.start()
			req := exportOf("snaps", "a")
			final, err := alpha.run("ann", req)
			require.Equal(t, "snapshot_failed", codeOf(t, final, err))
			body := final.Body.(*feedback.Error)
			require.Contains(t, body.Message, row.why)
			require.Less(t, len(body.Message), 4096)
			alpha.thawed(req.ID)
			if name == "a program that is not" {
				require.NoFileExists(t, filepath.Join(alpha.dir, "hooks/log"), "released, and nothing had been started")
				return
			}
			require.Equal(t, []string{"remove"}, alpha.hooked(1))
		})
	}
}

// A life is a responder as a process that can be killed.
func (m *machine) process() *exec.Cmd {
	m.t.Helper()
	cmd := command(m.t, gantry, "run", m.config)
	cmd.Stderr = m.log
	require.NoError(m.t, cmd.Start())
	m.t.Cleanup(func() {
		if cmd.ProcessState == nil {
			cmd.Process.Signal(unix.SIGTERM)
			cmd.Wait()
		}
	})
	require.Eventually(m.t, func() bool {
		_, err := m.as("ann").Status(m.t.Context())
		return err == nil
	}, 20*time.Second, 20*time.Millisecond)
	return cmd
}

func kill(t *testing.T, cmd *exec.Cmd) {
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
}

// However the responder dies, the snapshot is released once the export is over,
// and an export that goes on reads the snapshot that it had.
func TestSnapshotOutlivesKills(t *testing.T) {
	w := newWorld(t, "", "alpha")
	alpha := w.all["alpha"]
	alpha.freezes("", "", "")
	old := string(alpha.file("snaps/a", 3<<20, 1))
	release := alpha.hold("create")
	alpha.ownedBy(gantry)

	life := alpha.process()
	req := exportOf("snaps", "a")
	done := alpha.follow("ann", req)
	alpha.hooked(1)
	kill(t, life) // while the snapshot is being made: released, and made anew
	release()
	life = alpha.process()
	require.Equal(t, old, alpha.content(req.ID))
	require.Equal(t, []string{"create", "remove", "create"}, alpha.hooked(3))

	require.NoError(t, os.WriteFile(filepath.Join(alpha.dir, "snaps/a"), []byte("new"), 0o644))
	kill(t, life) // while it is read: the same snapshot
	life = alpha.process()
	require.Equal(t, old, alpha.content(req.ID))
	require.Len(t, alpha.hooked(3), 3)

	release = alpha.hold("remove")
	require.NoError(t, os.Chown(filepath.Join(alpha.dir, "hooks/hold-remove"), gantry, gantry))
	require.NoError(t, alpha.as("ann").Finish(t.Context(), req.ID, "", digest([]byte(old))))
	resultOf[api.ExportResult](t, <-done, nil)
	alpha.hooked(4)
	kill(t, life) // while it is released, after the end of the export: released again
	release()
	alpha.process()
	alpha.thawed(req.ID)
	require.Equal(t, []string{"create", "remove", "create", "remove", "remove"}, alpha.hooked(5))
}

// A tree is read from its snapshot as a file is.
func TestSnapshotOfATree(t *testing.T) {
	w := newWorld(t, "", "alpha")
	alpha := w.all["alpha"]
	alpha.freezes("", "", "")
	text, err := os.ReadFile(alpha.config)
	require.NoError(t, err)
	edited := strings.Replace(string(text), "name = \"snaps\"\nkind = \"files\"", "name = \"snaps\"\nkind = \"tree\"", 1)
	require.NoError(t, os.WriteFile(alpha.config, []byte(edited), 0o644))
	old := alpha.file("snaps/dir/a", 1000, 1)
	alpha.start()
	req := exportOf("snaps", "")
	alpha.follow("ann", req)
	alpha.hooked(1)
	manifest := "/tasks/" + req.ID + "/manifest"
	require.Contains(t, alpha.ask("ann", "GET", manifest, nil, "").body, digest(old))
	alpha.file("snaps/dir/a", 500, 2)
	alpha.file("snaps/dir/b", 500, 3)
	alpha.restart()
	r := alpha.ask("ann", "GET", manifest, nil, "")
	require.Contains(t, r.body, digest(old))
	require.NotContains(t, r.body, "dir/b")
	require.Equal(t, string(old), alpha.ask("ann", "GET", "/tasks/"+req.ID+"/content", map[string]string{"Range": "bytes=0-999"}, "").body)
	require.NoError(t, alpha.as("ann").Cancel(t.Context(), req.ID))
	alpha.thawed(req.ID)
}
