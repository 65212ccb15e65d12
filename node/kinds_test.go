package node_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gantry/api"
	"gantry/feedback"

	"github.com/stretchr/testify/require"
)

// kinds are resources of every node: a program that prints the file /disks/NAME
// of its node, one that keeps its input there, one that fails, and a device.
var kinds = shell("dump", "export", `exec cat "$0"`, true) +
	shell("fail", "export", "echo begun; echo lost >&2; exit 3", false) +
	shell("slow", "export", "setsid sleep 1000 & cat /dev/zero", false) +
	shell("restore", "import", `cat > "$0"`, true) +
	shell("sink", "import", "setsid sleep 1000 & exec sleep 1000", false) + `
[[resource]]
name = "vm1"
kind = "device"
path = "%[2]s"
writable = true
[[grant]]
who = "spiffe://demo/operator/ann"
may = ["command", "export", "digest", "list", "import:create", "import:update", "import:replace"]
resources = ["dump", "fail", "slow", "restore", "sink", "vm1"]
[[grant]]
who = "spiffe://demo/operator/bob"
may = ["export", "import:create"]
resources = ["dump", "restore"]
`

// shell is a command resource: a line of shell, whose $0 is a file in %[1]s that
// the request names.
func shell(name, direction, line string, file bool) string {
	text := fmt.Sprintf("[[resource]]\nname = %q\nkind = \"command\"\ndirection = %q\nargv = [\"/bin/sh\", \"-c\", %q", name, direction, line)
	if file {
		return text + ", \"{file}\"]\ndir = \"%[1]s\"\n[resource.args]\nfile = \"name\"\n"
	}
	return text + "]\n"
}

// kindsWorld runs alpha and beta with all kinds of resources, their commands in
// dir, and as vm1 the same device.
func kindsWorld(t *testing.T, device string) (w *world, dir string) {
	dir = t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o777))
	w = newWorld(t, fmt.Sprintf(kinds, dir, device), "alpha", "beta")
	return w, dir
}

// loopDevice is a block device of so many bytes, and what it holds.
func loopDevice(t *testing.T, data []byte) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for a loop device")
	}
	backing := filepath.Join(t.TempDir(), "backing")
	require.NoError(t, os.WriteFile(backing, data, 0o600))
	out, err := exec.Command("losetup", "--find", "--show", backing).CombinedOutput()
	if err != nil {
		t.Skipf("this machine has no loop devices: %s", out)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() { require.NoError(t, exec.Command("losetup", "--detach", device).Run()) })
	return device
}

// place is a resource of either node, with a path or arguments.
type place struct {
	resource, path string
	args           []string
}

// between makes the requests of a copy from alpha to beta.
func (w *world) between(from, to place, mode string) (export, imp *api.TaskRequest) {
	ticket := api.NewTicket()
	export = newRequest(api.OpExport, api.ExportArgs{
		File: api.File{Resource: from.resource, Path: from.path}, Args: from.args,
		Reader: &api.Reader{ID: "spiffe://demo/node/beta", TicketSHA256: api.TicketSHA256(ticket)},
	})
	return export, newRequest(api.OpImport, api.ImportArgs{
		File: api.File{Resource: to.resource, Path: to.path}, Args: to.args, Mode: mode,
		Source: api.Source{Node: "alpha", Task: export.ID, Ticket: ticket},
	})
}

// copied copies, and returns the import's result.
func (w *world) copied(from, to place, mode string) api.ImportResult {
	export, imp := w.between(from, to, mode)
	exported := w.all["alpha"].follow("ann", export)
	rec, err := w.all["beta"].run("ann", imp)
	result := resultOf[api.ImportResult](w.t, rec, err)
	require.Equal(w.t, result.Digest, resultOf[api.ExportResult](w.t, <-exported, nil).Digest)
	return result
}

// TestKindsOfResources: each kind into each other.
func TestKindsOfResources(t *testing.T) {
	device := loopDevice(t, make([]byte, 12<<20))
	w, dir := kindsWorld(t, device)
	alpha := w.all["alpha"].start()
	w.all["beta"].start()
	data := alpha.file("disks/a", 9<<20+4096, 1)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "source"), data, 0o644))
	file, dump := place{"disks", "a", nil}, place{"dump", "", []string{"file=source"}}
	vm1, restore := place{resource: "vm1"}, place{"restore", "", []string{"file=target"}}
	fed := func() {
		got, err := os.ReadFile(filepath.Join(dir, "target"))
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, got))
		require.NoError(t, os.Remove(filepath.Join(dir, "target")))
	}
	there := func(name string, want []byte) {
		got, err := os.ReadFile(filepath.Join(w.all["beta"].dir, "disks", name))
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got))
	}
	t.Run("file to device", func(t *testing.T) {
		res := w.copied(file, vm1, api.ModeUpdate)
		require.Equal(t, digest(data), res.Digest)
		require.Equal(t, api.TargetReplaced, res.Target)
		require.EqualValues(t, len(data), w.copied(file, vm1, api.ModeReplace).Bytes.Carried, "it is there already")
	})
	t.Run("device to file", func(t *testing.T) {
		whole := append(bytes.Clone(data), make([]byte, 12<<20-len(data))...)
		require.Equal(t, digest(whole), w.copied(vm1, place{"disks", "b", nil}, "").Digest)
		there("b", whole)
	})
	t.Run("command to file", func(t *testing.T) {
		require.Equal(t, digest(data), w.copied(dump, place{"disks", "c", nil}, "").Digest)
		there("c", data)
	})
	t.Run("file to command", func(t *testing.T) {
		require.Equal(t, api.TargetFed, w.copied(file, restore, "").Target)
		fed()
	})
	t.Run("command to command", func(t *testing.T) {
		require.Equal(t, digest(data), w.copied(dump, restore, "").Digest)
		fed()
	})
	t.Run("command to device", func(t *testing.T) {
		require.Equal(t, digest(data), w.copied(dump, vm1, api.ModeUpdate).Digest)
	})
	t.Run("size of a device", func(t *testing.T) {
		list, err := alpha.as("ann").Resources(t.Context())
		require.NoError(t, err)
		i := slices.IndexFunc(list.Resources, func(r api.Resource) bool { return r.Name == "vm1" })
		require.EqualValues(t, 12<<20, list.Resources[i].Size)
	})
	t.Run("digest of a device", func(t *testing.T) {
		rec, err := alpha.run("ann", newRequest(api.OpDigest, api.DigestArgs{File: api.File{Resource: "vm1"}}))
		require.EqualValues(t, 12<<20, resultOf[api.DigestResult](t, rec, err).Size)
	})
}

// TestCommandThatDies: both sides end failed, with what the command said, and
// nothing is there.
func TestCommandThatDies(t *testing.T) {
	w, _ := kindsWorld(t, "/dev/null")
	w.all["alpha"].start()
	beta := w.all["beta"].start()
	export, imp := w.between(place{resource: "fail"}, place{"disks", "x", nil}, "")
	exported := w.all["alpha"].follow("ann", export)
	rec, err := beta.run("ann", imp)
	require.Contains(t, []string{api.CommandFailed.Name, api.TooLate.Name}, codeOf(t, rec, err))
	require.Contains(t, string(rec.Line), "lost")
	final := <-exported
	require.Equal(t, api.CommandFailed.Name, codeOf(t, final, nil))
	require.Contains(t, string(final.Body.(*feedback.Error).Detail), `"exit":3`)
	require.NoFileExists(t, filepath.Join(beta.dir, "disks", "x"))
}

func TestKindsRefuse(t *testing.T) {
	w, _ := kindsWorld(t, "/dev/null")
	alpha := w.all["alpha"].start()
	beta := w.all["beta"].start()
	file, arg := place{"disks", "a", nil}, []string{"file=a"}
	for name, c := range map[string]struct {
		from place
		code *api.Code
	}{
		"a path of a command":       {place{"dump", "a", arg}, api.BadPath},
		"a path of a device":        {place{"vm1", "a", nil}, api.BadPath},
		"no argument":               {place{"dump", "", nil}, api.BadRequest},
		"F98 an option":             {place{"dump", "", []string{"file=-rf"}}, api.BadRequest},
		"F99 shell characters":      {place{"dump", "", []string{"file=$(id)"}}, api.BadRequest},
		"an argument of no one":     {place{"dump", "", []string{"file=a", "x=y"}}, api.BadRequest},
		"an argument of a file":     {place{"disks", "a", arg}, api.BadRequest},
		"the output of what has no": {place{"restore", "", arg}, api.BadRequest},
		"a device that is none":     {place{"vm1", "", nil}, api.NotDevice},
	} {
		t.Run(name, func(t *testing.T) {
			export, _ := w.between(c.from, file, "")
			r := alpha.ask("ann", "POST", "/tasks", jsonType, string(api.Encode(export)))
			if c.code == api.NotDevice { // seen when it is opened
				require.Contains(t, r.body, c.code.Name)
				return
			}
			require.Equal(t, c.code.Status, r.status)
			require.Equal(t, c.code.Name, r.problem.Code)
		})
	}
	for name, c := range map[string]struct {
		who  string
		to   place
		mode string
		code *api.Code
	}{
		"input of what takes none":      {"ann", place{"dump", "", arg}, "", api.BadRequest},
		"create of a device":            {"ann", place{resource: "vm1"}, "", api.BadRequest},
		"without the right of commands": {"bob", place{"restore", "", arg}, "", api.Forbidden},
	} {
		t.Run(name, func(t *testing.T) {
			_, imp := w.between(file, c.to, c.mode)
			r := beta.ask(c.who, "POST", "/tasks", jsonType, string(api.Encode(imp)))
			require.Equal(t, c.code.Status, r.status)
			require.Equal(t, c.code.Name, r.problem.Code)
		})
	}
	r := alpha.ask("ann", "GET", "/resources/dump/files", nil, "")
	require.Equal(t, api.BadRequest.Name, r.problem.Code)
}

// TestCommandCancelled: nothing of it runs on, on either side, and a restart ends
// it interrupted.
func TestCommandCancelled(t *testing.T) {
	w, _ := kindsWorld(t, "/dev/null")
	alpha, beta := w.all["alpha"].start(), w.all["beta"].start()
	t.Run("cancelled", func(t *testing.T) {
		export, imp := w.between(place{resource: "slow"}, place{resource: "sink"}, "")
		exported, imported := alpha.follow("ann", export), beta.follow("ann", imp)
		require.Eventually(t, func() bool { return running(t, export.ID) && running(t, imp.ID) }, 20*time.Second, 5*time.Millisecond)
		err := beta.as("ann").Cancel(t.Context(), imp.ID)
		require.NoError(t, err)
		require.Equal(t, api.CancelledBy.Name, codeOf(t, <-imported, nil))
		err = alpha.as("ann").Cancel(t.Context(), export.ID)
		require.NoError(t, err)
		require.Equal(t, api.CancelledBy.Name, codeOf(t, <-exported, nil))
		require.False(t, running(t, export.ID) || running(t, imp.ID))
	})
	t.Run("restarted", func(t *testing.T) {
		export, imp := w.between(place{resource: "slow"}, place{resource: "sink"}, "")
		exported, imported := alpha.follow("ann", export), beta.follow("ann", imp)
		require.Eventually(t, func() bool { return running(t, export.ID) && running(t, imp.ID) }, 20*time.Second, 5*time.Millisecond)
		beta.restart()
		final := <-imported
		require.Equal(t, api.Interrupted.Name, codeOf(t, final, nil))
		require.False(t, final.Body.(*feedback.Error).Retryable, "a master would feed the command again by itself")
		alpha.restart()
		final = <-exported
		require.Equal(t, api.Interrupted.Name, codeOf(t, final, nil))
		require.True(t, final.Body.(*feedback.Error).Retryable, "what a command prints can be asked for again")
		require.False(t, running(t, export.ID) || running(t, imp.ID))
	})
}

// running says whether a process has the mark of a task.
func running(t *testing.T, task string) bool {
	all, err := filepath.Glob("/proc/[0-9]*/environ")
	require.NoError(t, err)
	for _, path := range all {
		if env, _ := os.ReadFile(path); bytes.Contains(env, []byte("GANTRY_TASK="+task+"\x00")) {
			return true
		}
	}
	return false
}
