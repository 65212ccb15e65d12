package testkit

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

// A snapshot is what was there before the tests.
type snapshot struct {
	goroutines  map[string]bool // by number
	descriptors map[string]string
	children    map[int]bool
}

func takeSnapshot() snapshot {
	s := snapshot{goroutines: map[string]bool{}, descriptors: descriptors(), children: map[int]bool{}}
	for _, g := range goroutines() {
		s.goroutines[g.number] = true
	}
	for _, pid := range children() {
		s.children[pid] = true
	}
	return s
}

// leaks lists what was not there before, one line each.
func (s snapshot) leaks() []string {
	var out []string
	for _, g := range goroutines() {
		if !s.goroutines[g.number] && !g.harmless() {
			out = append(out, "goroutine "+g.stack)
		}
	}
	for fd, target := range descriptors() {
		if s.descriptors[fd] != target && !harmlessDescriptor(target) {
			out = append(out, fmt.Sprintf("descriptor %s: %s", fd, target))
		}
	}
	for _, pid := range children() {
		if !s.children[pid] && alive(pid) {
			out = append(out, fmt.Sprintf("process %d: %s", pid, commandLine(pid)))
		}
	}
	return out
}

type goroutine struct{ number, stack string }

func goroutines() []goroutine {
	buf := make([]byte, 1<<20)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	var out []goroutine
	for block := range strings.SplitSeq(string(buf), "\n\n") {
		rest, ok := strings.CutPrefix(block, "goroutine ")
		if !ok {
			continue
		}
		number, _, _ := strings.Cut(rest, " ")
		out = append(out, goroutine{number, rest})
	}
	return out
}

// harmless goroutines are the ones that the standard library starts once and
// keeps: the signal loop after the first signal.Notify, the testing package's.
func (g goroutine) harmless() bool {
	for _, frame := range []string{
		"\nos/signal.loop(",
		"\nruntime.ensureSigM",
		"\ntesting.tRunner.func",
		"\ntesting.runFuzzing(",
		"\ngantry/internal/testkit.run(",
	} {
		if strings.Contains(g.stack, frame) {
			return true
		}
	}
	return false
}

// descriptors maps numbers to what they are.
func descriptors() map[string]string {
	out := map[string]string{}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		panic("testkit: " + err.Error()) // no /proc: the check would prove nothing
	}
	for _, e := range entries {
		// The descriptor of this directory itself is closed by now.
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			out[e.Name()] = target
		}
	}
	return out
}

// harmlessDescriptor: the poller that package net makes once, the random
// device, the log that the go command reads after the run.
func harmlessDescriptor(target string) bool {
	return target == "anon_inode:[eventpoll]" || target == "anon_inode:[eventfd]" ||
		target == "/dev/urandom" || strings.HasSuffix(target, "/testlog.txt")
}

// children lists the children of all our threads.
func children() []int {
	files, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil || len(files) == 0 {
		panic("testkit: needs /proc/self/task/*/children (CONFIG_PROC_CHILDREN)")
	}
	var out []int
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended; its children were given to another
		}
		for field := range strings.FieldsSeq(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil {
				out = append(out, pid)
			}
		}
	}
	return out
}

// alive is false for a zombie: it ended by itself, and holds nothing. One that
// we started and never waited for shows as its descriptor, pidfd.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	// pid (name) state …, and a name may have parentheses.
	_, after, _ := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')'):]), " ")
	return !strings.HasPrefix(after, "Z") && !strings.HasPrefix(after, "X")
}

func commandLine(pid int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return strings.TrimSpace(strings.ReplaceAll(string(text), "\x00", " "))
}

// endChildren kills what the tests left, generation after generation: the
// children of a killed child become ours.
func endChildren() []error {
	var errs []error
	for {
		pids := children()
		if len(pids) == 0 || len(errs) > 0 {
			return errs
		}
		for _, pid := range pids {
			if alive(pid) {
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
					errs = append(errs, err)
				}
			}
			if _, err := syscall.Wait4(pid, nil, 0, nil); err != nil && err != syscall.ECHILD {
				errs = append(errs, err)
			}
		}
	}
}

// files lists everything in the run's temporary directory: each test removes
// what it made.
func files(dir string) []string {
	var out []string
	entries, err := os.ReadDir(dir)
	if err != nil {
		return []string{err.Error()}
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		out = append(out, "file "+path)
		out = append(out, socketsAndStages(path)...)
	}
	return out
}

// stageDir is where an import keeps what is not published yet.
const stageDir = ".gantry"

// socketsAndStages looks for unix sockets and for anything in a folder
// .gantry below dir.
func socketsAndStages(dir string) []string {
	var out []string
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			if !os.IsNotExist(err) {
				out = append(out, err.Error())
			}
		case d.Type()&fs.ModeSocket != 0:
			out = append(out, "socket "+path)
		case filepath.Base(filepath.Dir(path)) == stageDir:
			out = append(out, "stage "+path)
		}
		return nil
	})
	return out
}
