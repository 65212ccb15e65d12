package transfer_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gantry/api"
	"gantry/feedback"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

var tasks atomic.Int64

// shProgram is a program that an administrator might fix: a script with the path of
// data as $0.
func shProgram(text, data string) transfer.Program {
	return transfer.Program{
		Argv: []string{"/bin/sh", "-c", text, data}, Dir: "/",
		Task: fmt.Sprintf("test-%d-%d", os.Getpid(), tasks.Add(1)),
	}
}

// dataFile holds data.
func dataFile(t testing.TB, data []byte) string {
	path := filepath.Join(t.TempDir(), "data")
	require.NoError(t, os.WriteFile(path, data, 0o600))
	return path
}

// openCommand exports a program's output, and sees that nothing is left of it.
func openCommand(t testing.TB, p transfer.Program) *transfer.Stream {
	t.Helper()
	x, err := transfer.OpenCommand(p, "dump", t.TempDir(), transfer.MinSpool, transfer.Silent{})
	require.NoError(t, err)
	t.Cleanup(func() {
		x.Close()
		requireGone(t, p.Task)
	})
	return x
}

// requireGone looks for processes with the mark of a task.
func requireGone(t testing.TB, task string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/environ")
	require.NoError(t, err)
	for _, path := range all {
		env, _ := os.ReadFile(path)
		require.NotContains(t, string(env), "GANTRY_TASK="+task+"\x00", "%s is left of the command", path)
	}
}

func TestCommandExport(t *testing.T) {
	for _, size := range []int{0, 1, piece - 1, piece, piece + 1, 5*piece + 9} {
		t.Run(fmt.Sprintf("%d bytes", size), func(t *testing.T) {
			data := mixed(size)
			x := openCommand(t, shProgram(`cat "$0"`, dataFile(t, data)))
			g := newTarget(t)
			res, err := g.imp(served{x}).Run(t.Context())
			require.NoError(t, err)
			g.holds(t, data)
			require.Equal(t, b3sum(t, g.path()), res.Digest)
		})
	}
}

// TestCommandExportFails: a command that dies is never a success, whatever it
// wrote before.
func TestCommandExportFails(t *testing.T) {
	for name, c := range map[string]struct {
		script, want string
		exit         int
		signal       string
	}{
		"at the start":               {"echo no such database >&2; exit 7", "exit status 7; its last words: no such database", 7, ""},
		"at the end":                 {`cat "$0"; exit 3`, "exit status 3", 3, ""},
		"by a signal":                {`cat "$0"; kill -9 $$`, "signal: killed", -1, "SIGKILL"},
		"after closing its output":   {`exec >&-; sleep 0.1; exit 4`, "exit status 4", 4, ""},
		"leaving a child behind":     {`cat "$0"; sleep 1000 & exit 0`, "holds its output open", 0, ""},
		"that, and by status":        {`sleep 1000 & exit 9`, "exit status 9", 9, ""},
		"with words for a terminal":  {`printf 'a\033[31mb\377' >&2; exit 1`, `a\x1b[31mb\xff`, 1, ""},
		"with more words than fit":   {`head -c 1000000000 /dev/zero >&2; echo xxxx >&2; exit 1`, "xxxx", 1, ""},
		"with a program left behind": {`setsid sleep 1000 & exit 2`, "exit status 2", 2, ""},
	} {
		t.Run(name, func(t *testing.T) {
			x := openCommand(t, shProgram(c.script, dataFile(t, content(1, 2*piece))))
			g := newTarget(t)
			_, err := g.imp(served{x}).Run(t.Context())
			requireCode(t, api.CommandFailed, err)
			require.NoFileExists(t, g.path())
			require.Empty(t, x.Digest())
			wire, ok := errors.AsType[*feedback.Error](x.Check())
			require.True(t, ok)
			require.Contains(t, wire.Message, c.want)
			var detail transfer.CommandDetail
			require.NoError(t, json.Unmarshal(wire.Detail, &detail))
			require.Equal(t, c.exit, detail.Exit)
			require.Equal(t, c.signal, detail.Signal)
			require.LessOrEqual(t, len(detail.Stderr), 4*8<<10)
		})
	}
	t.Run("that is not there", func(t *testing.T) {
		_, err := transfer.OpenCommand(transfer.Program{Argv: []string{"/nowhere"}, Dir: "/", Task: "t"}, "dump", t.TempDir(), 0, transfer.Silent{})
		requireCode(t, api.CommandFailed, err)
	})
}

func TestCommandKeepsQuietAboutOthers(t *testing.T) {
	t.Setenv("SECRET", "x")
	p := shProgram(`env; ls /proc/self/fd | wc -l`, "")
	p.Env = []string{"A=b c;d", "PATH=/usr/bin:/bin"}
	x := openCommand(t, p)
	g := newTarget(t)
	_, err := g.imp(served{x}).Run(t.Context())
	require.NoError(t, err)
	got, err := os.ReadFile(g.path())
	require.NoError(t, err)
	var lines []string
	for line := range strings.Lines(string(got)) {
		if !strings.HasPrefix(line, "PWD=") && !strings.HasPrefix(line, "_=") && !strings.HasPrefix(line, "SHLVL=") && !strings.HasPrefix(line, "OLDPWD=") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	require.ElementsMatch(t, []string{"A=b c;d", "PATH=/usr/bin:/bin", "GANTRY_TASK=" + p.Task, "4"}, lines, "its own files, and the one of ls")
}

func TestCommandWithShellCharacters(t *testing.T) {
	x := openCommand(t, transfer.Program{Argv: []string{"/bin/echo", "-n", "$(touch /x); `y` | z"}, Dir: "/", Task: "t-literal"})
	g := newTarget(t)
	_, err := g.imp(served{x}).Run(t.Context())
	require.NoError(t, err)
	g.holds(t, []byte("$(touch /x); `y` | z"))
}

// TestCommandStopped: closing the export ends what reads no signal, what does not
// write, and what cannot write because the spool is full.
func TestCommandStopped(t *testing.T) {
	for name, text := range map[string]string{
		"ignores TERM":      `trap '' TERM; sleep 1000 & while :; do wait; sleep 0.01; done`,
		"writes nothing":    `exec sleep 1000`,
		"writes for ever":   `exec cat /dev/zero`,
		"left its session":  `setsid sleep 1000 & setsid sleep 1000 & exec sleep 1000`,
		"stops by itself":   `kill -STOP $$`,
		"has gone long ago": `exit 0`,
	} {
		t.Run(name, func(t *testing.T) {
			x := openCommand(t, shProgram(text, ""))
			begin := time.Now()
			require.NoError(t, x.Close())
			require.Less(t, time.Since(begin), 20*time.Second)
		})
	}
}

func TestCommandNotStartedTwice(t *testing.T) {
	dir, p := t.TempDir(), shProgram(`echo x`, "")
	x, err := transfer.OpenCommand(p, "dump", dir, 0, transfer.Silent{})
	require.NoError(t, err)
	require.NoError(t, x.Close())
	_, err = transfer.OpenCommand(p, "dump", dir, 0, transfer.Silent{})
	requireCode(t, api.Interrupted, err)
	into := fed(t, served{export(t, nil)}, p)
	into.Dir = dir
	_, err = into.Run(t.Context())
	requireCode(t, api.Interrupted, err)
}

// fed imports into a program.
func fed(t testing.TB, src transfer.Source, p transfer.Program) *transfer.Import {
	t.Cleanup(func() { requireGone(t, p.Task) })
	return (&transfer.Import{Source: src, Name: "restore", Command: &p, Task: p.Task, Dir: t.TempDir()}).Fast()
}

func TestCommandImport(t *testing.T) {
	for _, size := range []int{0, 1, piece - 1, piece, piece + 1, 9*piece + 9} {
		for _, kind := range []string{"file", "stream"} {
			t.Run(fmt.Sprintf("%d bytes of a %s", size, kind), func(t *testing.T) {
				data, out := mixed(size), filepath.Join(t.TempDir(), "out")
				src := served{transfer.Exporter(export(t, data))}
				if kind == "stream" {
					src = served{smallStream(t, &produced{Reader: bytes.NewReader(data)}, 5)}
				}
				res, err := fed(t, src, shProgram(`cat > "$0"`, out)).Run(t.Context())
				require.NoError(t, err)
				require.Equal(t, api.TargetFed, res.Target)
				got, err := os.ReadFile(out)
				require.NoError(t, err)
				require.True(t, bytes.Equal(data, got))
				require.Equal(t, b3sum(t, out), res.Digest)
			})
		}
	}
}

func TestCommandToCommandCut(t *testing.T) {
	data, out := mixed(30*piece+7), filepath.Join(t.TempDir(), "out")
	x := openCommand(t, shProgram(`cat "$0"`, dataFile(t, data)))
	src := &faulty{Source: served{x}, content: func(k int, off, length int64) *fault {
		if k%3 == 0 {
			return &fault{cut: length / 2}
		}
		return nil
	}}
	res, err := fed(t, src, shProgram(`cat > "$0"`, out)).Run(t.Context())
	require.NoError(t, err)
	require.Positive(t, res.Cuts)
	require.Equal(t, b3sum(t, out), res.Digest)
}

func TestCommandImportFails(t *testing.T) {
	data := mixed(9*piece + 1)
	for name, c := range map[string]struct {
		script, want string
		size         int
	}{
		"at the start":                       {"echo no >&2; exit 5", "exit status 5; its last words: no", len(data)},
		"at the start, without input":        {"exit 5", "exit status 5", 0},
		"at the end":                         {"cat > /dev/null; exit 3", "exit status 3", len(data)},
		"by a signal":                        {"head -c 9000000 > /dev/null; kill -9 $$", "signal: killed", len(data)},
		"with status 0 after a part":         {"head -c 10 > /dev/null", "all of its input", len(data)},
		"with status 0 without reading":      {"exit 0", "all of its input", 100},
		"with status 0, less one byte":       {"dd bs=1 count=99 of=/dev/null 2>&1", "all of its input", 100},
		"closing its input and going on":     {"exec <&-; sleep 1000", "all of its input", len(data)},
		"closing its input, ignoring a TERM": {"trap '' TERM; exec <&-; while :; do sleep 0.1; done", "all of its input", len(data)},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := fed(t, direct{export(t, data[:c.size])}, shProgram(c.script, "")).Run(t.Context())
			requireCode(t, api.CommandFailed, err)
			require.ErrorContains(t, err, c.want)
		})
	}
}

// TestCommandImportSeesNoFalseEnd: the end of its input means that all of it was
// proved. A command that is fed something else is killed before.
func TestCommandImportSeesNoFalseEnd(t *testing.T) {
	done := filepath.Join(t.TempDir(), "done")
	im := fed(t, direct{export(t, mixed(3*piece))}, shProgram(`cat > /dev/null; touch "$0"`, done))
	im.Expect = "b3:" + strings.Repeat("0", 64)
	_, err := im.Run(t.Context())
	requireCode(t, api.DigestMismatch, err)
	require.NoFileExists(t, done)
	im = fed(t, &faulty{Source: direct{export(t, mixed(3*piece))}, content: func(k int, off, length int64) *fault {
		return &fault{flip: func(b []byte, pos int64) { b[0] ^= 1 }}
	}}, shProgram(`cat > /dev/null; touch "$0"`, done))
	_, err = im.Run(t.Context())
	requireCode(t, api.CorruptPiece, err)
	require.NoFileExists(t, done)
}

// TestCommandImportCancelled: also while the command does not read, and while it
// works on what it has.
func TestCommandImportCancelled(t *testing.T) {
	for name, text := range map[string]string{
		"while it does not read": "echo > \"$0\"; exec sleep 1000",
		"after its input":        "cat > /dev/null; echo > \"$0\"; exec sleep 1000",
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			begun := filepath.Join(t.TempDir(), "begun")
			im := fed(t, direct{export(t, content(1, 9*piece))}, shProgram(text, begun))
			done := make(chan error, 1)
			go func() {
				_, err := im.Run(ctx)
				done <- err
			}()
			require.Eventually(t, func() bool { _, err := os.Stat(begun); return err == nil }, 20*time.Second, time.Millisecond)
			cancel(api.RunFor.Err("it ran for a second"))
			requireCode(t, api.RunFor, <-done)
		})
	}
	im := fed(t, direct{export(t, nil)}, shProgram("cat", ""))
	im.Mode = api.ModeReplace
	_, err := im.Run(t.Context())
	requireCode(t, api.BadRequest, err)
}
