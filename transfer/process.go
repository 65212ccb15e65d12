package transfer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"gantry/api"
	"gantry/internal/atomicfile"

	"golang.org/x/sys/unix"
)

// Program is a program as an administrator fixed it. No shell sees any of it.
type Program struct {
	Argv []string // the absolute path first
	Env  []string // all of its environment, but a standard PATH where none is given, and its mark
	Dir  string   // working directory
	Task string   // id of the task, which marks the processes
}

// Limits of a process.
const (
	// maxTail is how much of a program's last words is kept.
	maxTail = 8 << 10
	// maxTailShown is how much of them is in the message; all is in its detail.
	maxTailShown = 1 << 10
	// maxEnviron bounds what is read of another process's environment.
	maxEnviron = 1 << 20
	// standardPath is the PATH of a program that has none in Env.
	standardPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	// markName is the variable by which a program's processes are found again
	// after the responder was killed.
	markName = "GANTRY_TASK="
)

var (
	// termPatience is the time between SIGTERM and SIGKILL.
	termPatience = 5 * time.Second
	// leftPatience is how long a program's output may stay open, without a byte,
	// after the program itself has ended.
	leftPatience = 5 * time.Second
	// wordsPatience is the same for its last words, which nothing depends on.
	wordsPatience = 500 * time.Millisecond
)

// process is a program that runs, in a session of its own, with three files and
// nothing else of ours. The kernel kills it when the responder dies (PDEATHSIG);
// what it started itself is found by its mark, see [KillMarked].
type process struct {
	program Program
	cmd     *exec.Cmd
	words   *os.File // its stderr, our end
	tail    tail

	ended   chan struct{} // closed when the program has ended; it is not reaped yet
	release chan struct{} // closed when nobody needs its group any more
	gone    chan struct{} // closed when all of it is gone and cmd.ProcessState is set

	stop    sync.Once
	free    sync.Once
	stopped chan struct{} // closed by Stop
}

// start runs a program. in and out are its ends of what it reads and writes, nil
// for nothing and for its last words; the caller closes them.
func (p Program) start(in, out *os.File) (*process, error) {
	words, theirs, err := os.Pipe()
	if err != nil {
		return nil, local(err, "starting %s", p.Argv[0])
	}
	defer theirs.Close()
	r := &process{
		program: p, words: words, stopped: make(chan struct{}),
		ended: make(chan struct{}), release: make(chan struct{}), gone: make(chan struct{}),
	}
	r.cmd = &exec.Cmd{
		Path: p.Argv[0], Args: p.Argv, Dir: p.Dir, Stderr: theirs, Stdout: theirs, Env: p.env(),
		SysProcAttr: &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL},
	}
	if in != nil {
		r.cmd.Stdin = in
	}
	if out != nil {
		r.cmd.Stdout = out
	}
	// What this process inherited without knowing is not handed on.
	if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EINVAL) {
		words.Close()
		return nil, local(err, "starting %s", p.Argv[0])
	}
	started := make(chan error, 1)
	go r.live(started)
	if err := <-started; err != nil {
		words.Close()
		return nil, commandFailed(fmt.Sprintf("%s cannot be started: %s", p.Argv[0], err), nil, nil)
	}
	return r, nil
}

func (p Program) env() []string {
	env := append([]string{}, p.Env...)
	has := func(v string) bool { return strings.HasPrefix(v, "PATH=") }
	for _, v := range p.Env {
		if has(v) {
			return append(env, markName+p.Task)
		}
	}
	return append(env, standardPath, markName+p.Task)
}

// live starts the program and sees it to its end. PDEATHSIG is sent when the
// starting thread ends, so that one is kept.
func (r *process) live(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(r.gone)
	err := r.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		io.Copy(&r.tail, r.words) //nolint:errcheck // a deadline ends it
	}()
	// Not reaped before its group was killed: so long nobody else gets its number.
	for unix.Waitid(unix.P_PID, r.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
	r.words.SetReadDeadline(time.Now().Add(wordsPatience))
	<-heard
	r.words.Close()
	close(r.ended)
	<-r.release
	syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL)
	r.cmd.Wait() //nolint:errcheck // ProcessState says it
	if err := KillMarked(r.program.Task); err != nil {
		r.tail.Write([]byte("\n(looking for what it left: " + err.Error() + ")"))
	}
}

// Stop ends the program and all that it started, and returns when it is gone: by
// SIGTERM, and by SIGKILL if that does not help.
func (r *process) Stop() {
	r.stop.Do(func() { close(r.stopped) })
	select {
	case <-r.ended:
	default:
		patience := time.NewTimer(termPatience)
		defer patience.Stop()
		syscall.Kill(-r.cmd.Process.Pid, syscall.SIGTERM)
		select {
		case <-r.ended:
		case <-patience.C:
			syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL)
			<-r.ended
		}
	}
	r.reap()
}

// reap ends what an ended program left, and waits until it is gone.
func (r *process) reap() {
	r.free.Do(func() { close(r.release) })
	<-r.gone
}

func (r *process) isStopped() bool {
	select {
	case <-r.stopped:
		return true
	default:
		return false
	}
}

// result says, after reap, how it ended: nil after exit 0.
func (r *process) result() error {
	state := r.cmd.ProcessState
	if state.Success() {
		return nil
	}
	return commandFailed(fmt.Sprintf("%s ended with %s", r.program.Argv[0], state), state, &r.tail)
}

// failed is an error of a program that has ended although it was not to.
func (r *process) failed(why string) error {
	return commandFailed(r.program.Argv[0]+" "+why, r.cmd.ProcessState, &r.tail)
}

// CommandDetail is the detail of a command_failed.
type CommandDetail struct {
	Exit   int    `json:"exit"`             // -1 when it did not exit by itself
	Signal string `json:"signal,omitzero"`  // that ended it
	Stderr string `json:"stderr,omitempty"` // its last 8 KiB, escaped
}

func commandFailed(message string, state *os.ProcessState, t *tail) error {
	detail := CommandDetail{Exit: -1}
	if state != nil {
		detail.Exit = state.ExitCode()
		if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			detail.Signal = unix.SignalName(ws.Signal())
		}
	}
	if t != nil {
		detail.Stderr = t.String()
		if shown := detail.Stderr; shown != "" {
			message += "; its last words: " + shown[max(0, len(shown)-maxTailShown):]
		}
	}
	err := api.CommandFailed.Err(strings.ToValidUTF8(message, "�"))
	err.Detail = api.Encode(detail)
	return err
}

// tail keeps the last bytes that were written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

// Write never fails.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(p) >= maxTail {
		t.b = append(t.b[:0], p[len(p)-maxTail:]...)
		return len(p), nil
	}
	if over := len(t.b) + len(p) - maxTail; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	t.b = append(t.b, p...)
	return len(p), nil
}

// String is printable on one line: what is not is escaped.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	quoted := strconv.Quote(string(bytes.TrimSpace(t.b)))
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

// KillMarked kills every process of this user that a command of the task started,
// also those that left its session, and returns when no more are found. It is for
// a task whose command runs no more, or whose responder was killed.
func KillMarked(task string) error {
	if !validTask(task) {
		return fail(api.BadRequest, nil, "task id %.80q", task)
	}
	for range 100 { // a process may have forked meanwhile
		found, err := killMarked(task)
		if err != nil || !found {
			return err
		}
		time.Sleep(10 * time.Millisecond) // until the kernel is done with them
	}
	return fail(api.IO, nil, "processes of the command come again and again")
}

func killMarked(task string) (found bool, err error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return false, local(err, "looking for processes")
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return false, local(err, "looking for processes")
	}
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil && pid != os.Getpid() && killIfMarked(pid, task) {
			found = true
		}
	}
	return found, nil
}

// killIfMarked holds the process by a descriptor, so that it is the one that was
// looked at that is killed.
func killIfMarked(pid int, task string) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	f, err := os.Open(filepath.Join("/proc", strconv.Itoa(pid), "environ"))
	if err != nil {
		return false // another user's
	}
	defer f.Close()
	env, err := io.ReadAll(io.LimitReader(f, maxEnviron))
	if err != nil || !bytes.Contains(append([]byte{0}, env...), []byte("\x00"+markName+task+"\x00")) {
		return false
	}
	return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil
}

// commandRecord says that the task's command was started.
const commandRecord = "command.json"

// CommandBegun reports whether the command of the task whose folder is dir has
// been started, or was about to be.
func CommandBegun(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, commandRecord))
	return err == nil
}

// claim makes it durable that the command is about to be started in the task
// whose folder is dir. A command is never started twice: after a restart of the
// responder what is left of it is killed, and the code is interrupted.
func (p Program) claim(dir string) error {
	path := filepath.Join(dir, commandRecord)
	_, err := os.Lstat(path)
	switch {
	case err == nil:
		if err := KillMarked(p.Task); err != nil {
			return err
		}
		return fail(api.Interrupted, nil, "the responder was restarted while %s ran, and a command is not started twice", p.Argv[0])
	case !errors.Is(err, os.ErrNotExist):
		return local(err, "looking for the record of the command")
	}
	return local(atomicfile.WriteFile(path, []byte("{\"v\":1}\n"), 0o600, "command.start"), "recording the command")
}
