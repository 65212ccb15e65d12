package transfer_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gantry/api"
	"gantry/internal/atomicfile"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

var kills = flag.Int("transfer.kills", 8, "imports to kill at a random byte")

// childEnv holds the order of the child as JSON.
const childEnv = "TRANSFER_TEST_CHILD"

// order is what a child does: one start of an import task.
type order struct {
	Device  string   // the target is one
	Command []string // the target is its input

	Source, Target, Task string // source file; resource folder; task folder
	Old                  string // task folder to take a stage over from
	ID                   string // of the task
	Mode                 string
	KeepOld              bool
	KillAt               int64 // content bytes after which it kills itself, 0: never
}

// Exit codes of a child.
const (
	childDone = iota
	childFailed
	childUnsettled
)

// journal is a Reporter whose states are durable, as a feed's are.
type journal struct {
	transfer.Silent
	path string
}

func (j journal) State(name string, detail any) error {
	data, err := json.Marshal(detail)
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(j.path, data, 0o600, "test.file")
}

// child is one start: it goes on with whatever it finds.
func child() int {
	var o order
	if err := json.Unmarshal([]byte(os.Getenv(childEnv)), &o); err != nil {
		panic(err)
	}
	res, err := o.start()
	switch {
	case err == nil:
		fmt.Println(res.Digest, res.Target)
		return childDone
	case errors.Is(err, transfer.ErrUnsettled):
		fmt.Println(err)
		return childUnsettled
	}
	fmt.Println(err)
	return childFailed
}

func (o order) start() (res api.ImportResult, err error) {
	from, err := os.OpenRoot(filepath.Dir(o.Source))
	if err != nil {
		return res, err
	}
	to, err := os.OpenRoot(o.Target)
	if err != nil {
		return res, err
	}
	spool := filepath.Join(o.Task, "export")
	if err := os.MkdirAll(spool, 0o700); err != nil {
		return res, err
	}
	x, err := transfer.OpenExport(from, filepath.Base(o.Source), spool, transfer.Silent{})
	if err != nil {
		return res, err
	}
	defer x.Close()
	src := &faulty{Source: direct{x}}
	if o.KillAt > 0 {
		src.content = func(k int, off, length int64) *fault {
			return &fault{flip: func(b []byte, _ int64) {
				if src.bytes.Load() >= o.KillAt {
					syscall.Kill(os.Getpid(), syscall.SIGKILL)
				}
			}}
		}
	}
	if o.Old != "" {
		if _, err := transfer.TakeOver(o.Old, o.Task); err != nil {
			return res, err
		}
	}
	states := filepath.Join(o.Task, "state.json")
	im := (&transfer.Import{Source: src, Root: to, Name: "disk", Task: o.ID, Dir: o.Task, Mode: o.Mode, KeepOld: o.KeepOld, Report: journal{path: states}}).Fast()
	if im.Device = o.Device; o.Command != nil {
		im.Command = &transfer.Program{Argv: o.Command, Dir: "/", Task: o.ID}
	}
	if data, err := os.ReadFile(states); err == nil {
		var p api.Publishing
		if err := json.Unmarshal(data, &p); err != nil {
			return res, err
		}
		return im.Recover(p)
	}
	return im.Run(context.Background())
}

// run starts a child. It returns its exit code, -1 when it was killed, and what
// it said.
func (o order) run(t testing.TB, env ...string) (int, string) {
	t.Helper()
	text, err := json.Marshal(o)
	require.NoError(t, err)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), childEnv+"="+string(text)), env...)
	out, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		status := exit.Sys().(syscall.WaitStatus)
		if status.Signaled() && status.Signal() == syscall.SIGKILL {
			return -1, string(out)
		}
		require.LessOrEqual(t, exit.ExitCode(), childUnsettled, "child: %s", out)
		return exit.ExitCode(), string(out)
	}
	require.NoError(t, err)
	return childDone, string(out)
}

// disk is a target that is watched: it is the old file or the complete new one.
type watchedTarget struct {
	path     string
	old, new []byte
}

// published says whether the new file is there; anything but old or new fails.
func (w watchedTarget) published(t testing.TB) bool {
	t.Helper()
	got, err := os.ReadFile(w.path)
	if errors.Is(err, os.ErrNotExist) {
		require.Nil(t, w.old, "the old file is gone")
		return false
	}
	require.NoError(t, err)
	switch {
	case string(got) == string(w.new):
		return true
	case w.old != nil && string(got) == string(w.old):
		return false
	}
	t.Fatalf("the target is neither the old file nor the new one: %d bytes", len(got))
	return false
}

// scene makes a source, a target with or without an old file, and an order.
func scene(t testing.TB, data []byte, mode string) (order, watchedTarget) {
	t.Helper()
	dir := t.TempDir()
	o := order{Source: filepath.Join(dir, "src"), Target: filepath.Join(dir, "to"), Task: filepath.Join(dir, "task"), ID: "task", Mode: mode}
	require.NoError(t, os.WriteFile(o.Source, data, 0o600))
	require.NoError(t, os.Mkdir(o.Target, 0o755))
	require.NoError(t, os.Mkdir(o.Task, 0o700))
	w := watchedTarget{path: filepath.Join(o.Target, "disk"), new: data}
	if mode == api.ModeReplace {
		w.old = []byte("the only copy of something")
		require.NoError(t, os.WriteFile(w.path, w.old, 0o600))
	}
	return o, w
}

// TestKilled kills importers at random bytes, some of them again and again; the
// next start goes on.
func TestKilled(t *testing.T) {
	landed := 0
	for i := range *kills {
		s := *seed + uint64(i)
		r := rand.New(rand.NewPCG(s, 1))
		t.Run(fmt.Sprint(s), func(t *testing.T) {
			data := content(s, 4*piece+1+r.IntN(4*piece))
			clear(data[2*piece : 3*piece])
			o, w := scene(t, data, []string{api.ModeCreate, api.ModeReplace}[i%2])
			stage := filepath.Join(o.Target, transfer.StageDir, "task.stage")
			for range 1 + r.IntN(3) {
				o.KillAt = 1 + r.Int64N(int64(len(data)-piece))
				code, out := o.run(t)
				if code == childDone {
					break // so much was there already that the byte never came
				}
				require.Equal(t, -1, code, out)
				landed++
				soundStage(t, stage, data)
				require.False(t, w.published(t))
			}
			o.KillAt = 0
			code, out := o.run(t)
			if code != childDone && strings.Contains(out, "exists") {
				t.Fatal("the new file was taken for another's")
			}
			require.Equal(t, childDone, code, out)
			require.True(t, w.published(t))
			require.Contains(t, out, b3sum(t, w.path))
			require.NoFileExists(t, stage)
		})
	}
	t.Logf("kills that landed: %d", landed)
	require.GreaterOrEqual(t, landed*10, *kills*8, "too few kills landed")
}
