package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"gantry/api"
)

// Bounds of a hook's output, and of its patience with SIGTERM.
const (
	maxHookOut  = api.MaxPath + 1 // bytes of stdout: one path and its newline
	maxHookTail = 2048            // last bytes of stderr that are shown
	hookGrace   = 5 * time.Second
)

// hookPath is PATH for hooks; nothing of the responder's own environment is
// handed on.
const hookPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

var errHookOutput = fmt.Errorf("it printed more than %d bytes", maxHookOut)

// A hook is one run of an administrator's program: a fixed argv, no shell, a
// process group of its own.
type hook struct {
	argv    []string
	env     []string
	timeout time.Duration
	// runaway ends a hook that prints more than one path. One whose output
	// nobody reads may print.
	runaway bool
}

// run waits for the hook and returns what it printed. started says whether there
// was a process. The hook ends with ctx and after its timeout: SIGTERM, and after
// hookGrace SIGKILL, to its whole group.
func (h hook) run(ctx context.Context) (out string, started bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, h.timeout, fmt.Errorf("it took longer than %v", h.timeout))
	defer cancel()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	stdout := &head{most: maxHookOut}
	if h.runaway {
		stdout.over = func() { stop(errHookOutput) }
	}
	stderr := &tail{most: maxHookTail}
	cmd := exec.CommandContext(ctx, h.argv[0], h.argv[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = stdout, stderr, "/"
	cmd.Env = append([]string{hookPath, "LANG=C.UTF-8"}, h.env...)
	// A responder that is killed takes the hook along, or its next start would
	// release what is still being made. The signal comes when the thread ends
	// that started it, so the thread waits too.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = hookGrace
	if err := cmd.Start(); err != nil {
		return "", false, err
	}
	err = cmd.Wait()
	if errors.Is(err, exec.ErrWaitDelay) && ctx.Err() == nil {
		err = nil // it succeeded and left a process that holds its output, as FUSE mounts do
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if err != nil {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what is left of its group
		return "", true, said(err, stderr.b)
	}
	return stdout.b.String(), true, nil
}

// said adds what the hook wrote to stderr.
func said(err error, stderr []byte) error {
	text := strings.TrimSpace(strings.Map(func(r rune) rune {
		if r == '\n' {
			return ' '
		}
		if !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, string(stderr)))
	if text == "" {
		return err
	}
	return fmt.Errorf("%w: %s", err, text)
}

// head keeps the first bytes of what is written to it.
type head struct {
	b    bytes.Buffer
	most int
	over func() // called when there is more; may be nil
}

func (h *head) Write(p []byte) (int, error) {
	keep := min(len(p), h.most-h.b.Len())
	h.b.Write(p[:keep])
	if keep < len(p) && h.over != nil {
		h.over()
	}
	return len(p), nil
}

// tail keeps the last bytes.
type tail struct {
	b    []byte
	most int
}

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p[max(0, len(p)-t.most):]...)
	t.b = t.b[max(0, len(t.b)-t.most):]
	return len(p), nil
}

// snapshotPath judges what a snapshot hook printed: one line, the absolute path
// of a directory, or of a block device.
func snapshotPath(out string, device bool) (string, error) {
	line, rest, ended := strings.Cut(out, "\n")
	switch {
	case out == "":
		return "", errors.New("it printed nothing; the path of the snapshot is needed")
	case rest != "":
		return "", errors.New("it printed more than one line")
	case !ended:
		return "", errors.New("its line has no end")
	case !utf8.ValidString(line) || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return "", errors.New("it printed what is no path")
	case !filepath.IsAbs(line) || filepath.Clean(line) != line || line == "/":
		return "", fmt.Errorf("it printed %q; an absolute path in its shortest form is needed", line)
	}
	return line, isFrozenRoot(line, device)
}

// isFrozenRoot says whether there is what an export of the kind reads.
func isFrozenRoot(path string, device bool) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return fmt.Errorf("the snapshot cannot be looked at: %w", err)
	case device && info.Mode()&(os.ModeDevice|os.ModeCharDevice) != os.ModeDevice:
		return fmt.Errorf("%q is not a block device", path)
	case !device && !info.IsDir():
		return fmt.Errorf("%q is not a directory", path)
	}
	return nil
}
