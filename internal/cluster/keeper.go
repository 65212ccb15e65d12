package cluster

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// restartMin and restartMax bound the pause before a program that died is
	// started again: short, because whoever waits for it is a person or a test.
	restartMin = 50 * time.Millisecond
	restartMax = time.Second
	// settled is how long a program must have run for its next restart to be
	// quick again.
	settled = 300 * time.Millisecond
	// stopWithin is how long a program may take to end after SIGTERM.
	stopWithin = 10 * time.Second
)

// A program is one server that a keeper keeps running.
type program struct {
	Name string   `json:"name"` // NODE/node or NODE/front
	Args []string `json:"args"`
	Env  []string `json:"env"`
	Dir  string   `json:"dir"`
	Log  string   `json:"log"` // stdout and stderr are appended to this file
}

// An order is one line from the maker to its keeper.
type order struct {
	Start *program `json:"start,omitempty"`
	// Once is the environment of the program's next start only. Sent before
	// the program is killed, it arms what the restarted one does.
	Once *once `json:"once,omitempty"`
	// Kill names a program that gets SIGKILL: only its uid and root can.
	Kill string `json:"kill,omitempty"`
	// Empty lists folders whose content is removed when all programs have
	// ended: only their owner can.
	Empty []string `json:"empty,omitempty"`
}

type once struct {
	Name string   `json:"name"`
	Env  []string `json:"env"`
}

// An event is one line from a keeper to its maker.
type event struct {
	Name   string `json:"name"`
	PID    int    `json:"pid"`
	Starts int    `json:"starts"`          // how often it was started, this one included
	Ended  string `json:"ended,omitempty"` // how it ended, when it has
	Error  string `json:"error,omitempty"` // it could not be started
}

// keeper runs programs under its own uid until its input ends.
type keeper struct {
	out   *json.Encoder
	outMu sync.Mutex

	mu   sync.Mutex
	once map[string][]string // guarded by mu
	pids map[string]int      // guarded by mu; of what runs, until it is reaped
	dirs []string            // guarded by mu
}

// Keep is the body of a keeper process: it reads orders from in, writes events
// to out, and returns when in ends and every program has ended. Each program
// is the leader of a process group of its own, of which nothing survives the
// program.
func Keep(in io.Reader, out io.Writer) error {
	// What a killed server leaves (nginx's workers) becomes ours and is reaped.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("becoming a subreaper: %w", err)
	}
	k := &keeper{out: json.NewEncoder(out), once: map[string][]string{}, pids: map[string]int{}}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	lines := bufio.NewReader(in)
	var failed error
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			if !errors.Is(err, io.EOF) {
				failed = fmt.Errorf("reading orders: %w", err)
			}
			break
		}
		var o order
		if err := json.Unmarshal(line, &o); err != nil {
			failed = fmt.Errorf("reading an order: %w", err)
			break
		}
		k.mu.Lock()
		k.dirs = append(k.dirs, o.Empty...)
		if o.Once != nil {
			k.once[o.Once.Name] = o.Once.Env
		}
		if pid := k.pids[o.Kill]; pid > 0 {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		k.mu.Unlock()
		if o.Start != nil {
			running.Go(func() { k.keep(ctx, *o.Start) })
		}
	}
	stop()
	running.Wait()
	for _, dir := range k.dirs {
		failed = errors.Join(failed, empty(dir))
	}
	return failed
}

// keep starts p again and again until ctx ends. The thread is locked because
// the death signal of a child is tied to the thread that made it.
func (k *keeper) keep(ctx context.Context, p program) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pause := restartMin
	for starts := 1; ctx.Err() == nil; starts++ {
		k.mu.Lock()
		env := append(p.Env[:len(p.Env):len(p.Env)], k.once[p.Name]...)
		delete(k.once, p.Name)
		k.mu.Unlock()

		began := time.Now()
		err := k.run(ctx, p, env, starts)
		if err != nil {
			k.tell(event{Name: p.Name, Starts: starts, Error: err.Error()})
		}
		if time.Since(began) > settled {
			pause = restartMin
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		pause = min(2*pause, restartMax)
	}
}

// run starts p once and returns when it and its whole group have ended.
func (k *keeper) run(ctx context.Context, p program, env []string, starts int) error {
	log, err := os.OpenFile(p.Log, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return fmt.Errorf("opening log: %w", err)
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, p.Args[0], p.Args[1:]...)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = env, p.Dir, log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopWithin
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	pid := cmd.Process.Pid
	k.setPID(p.Name, pid)
	k.tell(event{Name: p.Name, PID: pid, Starts: starts})

	// Wait without reaping first: as long as the leader is a zombie its number
	// is taken, so the signal cannot hit a stranger's group.
	for unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
	k.setPID(p.Name, 0)
	syscall.Kill(-pid, syscall.SIGKILL)
	cmd.Wait()
	for {
		if _, err := syscall.Wait4(-pid, nil, 0, nil); err != nil && err != syscall.EINTR {
			break // ECHILD: the group is gone
		}
	}
	k.tell(event{Name: p.Name, PID: pid, Starts: starts, Ended: cmd.ProcessState.String()})
	return nil
}

func (k *keeper) setPID(name string, pid int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pids[name] = pid
}

// tell writes one event. A maker that is gone has closed our input too.
func (k *keeper) tell(e event) {
	k.outMu.Lock()
	defer k.outMu.Unlock()
	k.out.Encode(e)
}

// empty removes what is in dir and leaves dir to its parent's owner.
func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("emptying %s: %w", dir, err)
	}
	var all error
	for _, e := range entries {
		all = errors.Join(all, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return all
}
