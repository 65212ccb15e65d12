package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gantry/api"
	"gantry/feedback"
	"gantry/front"
	"gantry/internal/testkit"

	"github.com/creack/pty"
	"github.com/stretchr/testify/require"
)

// A process of a demo, as /proc shows it.
type proc struct {
	pid, uid int
	exe      string
	args     string
}

// session lists the live processes of a session: the demo, and everything that
// it started.
func session(sid int) []proc {
	var out []proc
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		// pid (name) state ppid pgrp session …
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(fields) < 4 || fields[3] != strconv.Itoa(sid) || fields[0] == "Z" || fields[0] == "X" {
			continue
		}
		p := proc{pid: pid, uid: -1}
		p.exe, _ = os.Readlink("/proc/" + e.Name() + "/exe")
		args, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		p.args = strings.ReplaceAll(string(args), "\x00", " ")
		var st syscall.Stat_t
		if status, err := os.ReadFile("/proc/" + e.Name() + "/status"); err == nil {
			for line := range strings.Lines(string(status)) {
				if rest, ok := strings.CutPrefix(line, "Uid:"); ok {
					// The greatest right of real, effective, saved and file system uid.
					p.uid, _ = strconv.Atoi(strings.Fields(rest)[0])
					for _, f := range strings.Fields(rest) {
						if f == "0" {
							p.uid = 0
						}
					}
				}
			}
		} else if syscall.Stat("/proc/"+e.Name(), &st) != nil {
			continue
		}
		out = append(out, p)
	}
	return out
}

// running is a demo under way.
type running struct {
	cmd    *exec.Cmd
	mu     sync.Mutex
	out    bytes.Buffer // stdout, or all of a terminal; guarded by mu
	stderr bytes.Buffer // guarded by mu
	ended  chan struct{}
}

// guarded writes to a buffer of r.
type guarded struct {
	r   *running
	buf *bytes.Buffer
}

func (g guarded) Write(p []byte) (int, error) {
	g.r.mu.Lock()
	defer g.r.mu.Unlock()
	return g.buf.Write(p)
}

func (r *running) text() (out, stderr string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.String(), r.stderr.String()
}

// startDemo runs gantry demo in a session of its own, without a terminal.
func startDemo(t *testing.T, cmd *exec.Cmd) *running {
	t.Helper()
	r := &running{cmd: cmd, ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = guarded{r, &r.out}, guarded{r, &r.stderr}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setsid = true
	require.NoError(t, cmd.Start())
	go func() { defer close(r.ended); cmd.Wait() }()
	return r
}

// wait waits for the end, and for the end of everything that was started.
func (r *running) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-r.ended:
	case <-time.After(2 * time.Minute):
		r.cmd.Process.Kill()
		<-r.ended
		out, stderr := r.text()
		require.FailNow(t, "the demo did not end", "%s\n%s", out, stderr)
	}
	sid := r.cmd.Process.Pid
	require.Eventually(t, func() bool { return len(session(sid)) == 0 }, 15*time.Second, 20*time.Millisecond,
		"left running: %+v", session(sid))
	return r.cmd.ProcessState.ExitCode()
}

// ready waits until the servers run, after which nothing is root.
func (r *running) ready(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool {
		out, stderr := r.text()
		return strings.Contains(out+stderr, "folder  ")
	}, 30*time.Second, 5*time.Millisecond)
}

// folder is the cluster's folder as the demo printed it first.
func folder(t *testing.T, text string) string {
	t.Helper()
	m := regexp.MustCompile(`folder  (/\S+)`).FindStringSubmatch(text)
	require.NotNil(t, m, "%s", text)
	return m[1]
}

func TestDemo(t *testing.T) {
	program := filepath.Join(testkit.Dir(t), "gantry") // a folder that every uid can enter
	out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	for name, test := range map[string]func(*testing.T, string){
		"a live bar on a terminal":       demoOnATerminal,
		"the real servers, none as root": demoFronts,
		"json alone on stdout":           demoJSON,
		"keeps a file of the user's":     demoKeepsAFile,
		"leaves nothing":                 demoLeavesNothing,
		"without root":                   demoWithoutRoot,
		"misuse":                         demoMisuse,
		"a master that is killed":        demoMasterKilled,
	} {
		t.Run(name, func(t *testing.T) { test(t, program) })
	}
}

func demoOnATerminal(t *testing.T, program string) {
	cmd := exec.Command(program, "demo", "--front", "embedded")
	tty, err := pty.Start(cmd) // a session of its own
	require.NoError(t, err)
	defer tty.Close()
	r := &running{cmd: cmd, ended: make(chan struct{})}
	var read sync.WaitGroup
	read.Go(func() {
		buf := make([]byte, 4096)
		for {
			n, err := tty.Read(buf)
			guarded{r, &r.out}.Write(buf[:n])
			if err != nil {
				return // EIO: nobody has the other side open any more
			}
		}
	})
	go func() { defer close(r.ended); cmd.Wait() }()
	code := r.wait(t)
	read.Wait()
	out, _ := r.text()
	require.Zero(t, code, "%s", out)
	seen := map[string]bool{}
	for _, m := range regexp.MustCompile(`([0-9]+(\.[0-9]+)?) ?%`).FindAllStringSubmatch(out, -1) {
		seen[m[1]] = true
	}
	require.GreaterOrEqual(t, len(seen), 3, "a live bar shows at least three values: %q", out)
	require.NoDirExists(t, folder(t, out))
}

// Behind each front: the real servers, and nothing as root.
func demoFronts(t *testing.T, program string) {
	for _, kind := range front.Kinds {
		t.Run(string(kind), func(t *testing.T) {
			exe := "gantry"
			if kind != front.EmbeddedServer {
				path, err := front.Program(kind)
				if err != nil {
					t.Skipf("needs %s: %v", kind, err)
				}
				exe = path
			}
			r := startDemo(t, exec.Command(program, "demo", "--front", string(kind), "--size", "128MiB", "--cut", "3"))
			r.ready(t)
			uids := map[string]map[int]bool{}
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for over := false; !over; {
				for _, p := range session(r.cmd.Process.Pid) {
					if p.exe == "" || p.uid < 0 {
						continue // it ended while we looked
					}
					if os.Geteuid() == 0 {
						require.NotZero(t, p.uid, "a process runs as root: %+v", p)
					}
					role := filepath.Base(p.exe)
					for _, hidden := range []string{"__node", "__front", "__keep"} {
						if strings.Contains(p.args, hidden) {
							role = hidden
						}
					}
					if uids[role] == nil {
						uids[role] = map[int]bool{}
					}
					uids[role][p.uid] = true
					if p.exe == exe {
						uids["the front"] = uids[role]
					}
				}
				select {
				case <-r.ended:
					over = true
				case <-tick.C:
				}
			}
			code := r.wait(t)
			out, stderr := r.text()
			require.Zero(t, code, "%s%s", out, stderr)
			require.Contains(t, out, "cuts    3 of 3")
			require.NotEmpty(t, uids["__node"], "no responder was seen: %v", uids)
			if kind == front.EmbeddedServer {
				require.NotEmpty(t, uids["__front"], "no front was seen: %v", uids)
				uids["the front"] = uids["__front"]
			}
			require.NotEmpty(t, uids["the front"], "no process runs %s: %v", exe, uids)
			if os.Geteuid() == 0 {
				require.NotEqual(t, uids["__node"], uids["the front"], "responder and front share a uid")
			}
			require.NoDirExists(t, folder(t, out))
		})
	}
}

func demoJSON(t *testing.T, program string) {
	r := startDemo(t, exec.Command(program, "demo", "--json", "--size", "64MiB", "--cut", "2", "--front", "embedded"))
	code := r.wait(t)
	out, stderr := r.text()
	require.Zero(t, code, "%s%s", out, stderr)
	var final feedback.Record
	for line := range strings.Lines(out) {
		rec, err := feedback.Decode([]byte(strings.TrimRight(line, "\n")))
		require.NoError(t, err, "stdout has something else than the feed: %q", line)
		final = rec
	}
	body, ok := final.Body.(*feedback.Result)
	require.True(t, ok, "%s", final.Line)
	var result api.ImportResult
	require.NoError(t, json.Unmarshal(body.Value, &result))
	require.EqualValues(t, 64<<20, result.Size)
	require.EqualValues(t, 2, result.Cuts)
}

// Behind each front: the master dies half way, and whoever watches misses
// nothing and sees nothing twice.
func demoMasterKilled(t *testing.T, program string) {
	for _, kind := range front.Kinds {
		t.Run(string(kind), func(t *testing.T) {
			if _, err := front.Program(kind); err != nil && kind != front.EmbeddedServer {
				t.Skipf("needs %s: %v", kind, err)
			}
			r := startDemo(t, exec.Command(program, "demo", "--master", "--json", "--size", "192MiB", "--front", string(kind)))
			code := r.wait(t)
			out, stderr := r.text()
			require.Zero(t, code, "%s%s", out, stderr)
			require.Regexp(t, `master  process \d+ killed half way \(SIGKILL\); its successor \d+ went on`, stderr)
			sums := regexp.MustCompile(`(?m)^(source|copy) +(b3:[0-9a-f]{64})`).FindAllStringSubmatch(stderr, -1)
			require.Len(t, sums, 2, "%s", stderr)
			require.Equal(t, sums[0][2], sums[1][2])
			next, last := int64(1), feedback.Record{}
			for line := range strings.Lines(out) {
				rec, err := feedback.Decode([]byte(strings.TrimRight(line, "\n")))
				require.NoError(t, err, "stdout has something else than the feed: %q", line)
				if last = rec; rec.Kind.Stored() {
					require.Equal(t, next, rec.Seq)
					next++
				}
			}
			body, ok := last.Body.(*feedback.Result)
			require.True(t, ok, "%s", last.Line)
			require.Contains(t, string(body.Value), sums[0][2])
			require.NoDirExists(t, folder(t, stderr))
		})
	}
}

// A file of the user's, kept: cmp and b3sum, which are not ours, agree.
func demoKeepsAFile(t *testing.T, program string) {
	source := filepath.Join(t.TempDir(), "disk one.img")
	f, err := os.Create(source)
	require.NoError(t, err)
	// A hole, data, a hole, and a tail that is no whole block.
	_, err = f.WriteAt(bytes.Repeat([]byte("gantry "), 3<<20), 9<<20)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("end"), 77<<20)
	require.NoError(t, err)
	require.NoError(t, f.Close())

	dir := filepath.Join(testkit.Dir(t), "kept")
	r := startDemo(t, exec.Command(program, "demo", source, "--dir", dir, "--front", "embedded"))
	code := r.wait(t)
	out, stderr := r.text()
	require.Zero(t, code, "%s%s", out, stderr)
	copied := filepath.Join(dir, "beta", "disks", "disk one.img")
	for _, path := range []string{filepath.Join(dir, "alpha", "disks", "disk one.img"), copied} {
		diff, err := exec.Command("cmp", source, path).CombinedOutput()
		require.NoError(t, err, "%s", diff)
	}
	if _, err := exec.LookPath("b3sum"); err != nil {
		t.Skip("needs b3sum, to have a digest that is not ours")
	}
	sum, err := exec.Command("b3sum", "--no-names", copied).Output()
	require.NoError(t, err)
	require.Equal(t, 2, strings.Count(out, "b3:"+strings.TrimSpace(string(sum))), "both digests are printed: %s", out)

	// The same folder again is refused, and untouched.
	r = startDemo(t, exec.Command(program, "demo", "--dir", dir))
	require.NotZero(t, r.wait(t))
	_, stderr = r.text()
	require.Contains(t, stderr, "is not empty")
	require.FileExists(t, copied)
}

func demoLeavesNothing(t *testing.T, program string) {
	for _, c := range []struct {
		name   string
		signal syscall.Signal
		code   int
		folder bool // may stay: nobody was left to remove it
	}{
		{"told to end", syscall.SIGTERM, api.ExitLeft, false},
		{"hung up", syscall.SIGHUP, api.ExitDone, false},
		{"killed", syscall.SIGKILL, -1, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := startDemo(t, exec.Command(program, "demo", "--size", "512MiB", "--front", "embedded"))
			r.ready(t)
			require.NoError(t, r.cmd.Process.Signal(c.signal))
			code := r.wait(t) // and for the servers
			out, stderr := r.text()
			require.Equal(t, c.code, code, "%s%s", out, stderr)
			dir := folder(t, out)
			if c.folder {
				require.NoError(t, os.RemoveAll(dir))
			}
			require.NoDirExists(t, dir)
		})
	}
}

func demoWithoutRoot(t *testing.T, program string) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to become somebody else")
	}
	const somebody = 58299
	cmd := exec.Command(program, "demo", "--size", "32MiB", "--front", "embedded")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: somebody, Gid: somebody, Groups: []uint32{}}}
	r := startDemo(t, cmd)
	code := r.wait(t)
	out, stderr := r.text()
	require.Zero(t, code, "%s%s", out, stderr)
	require.Contains(t, out, fmt.Sprintf("share uid %d: not isolated", somebody))
}

func demoMisuse(t *testing.T, program string) {
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--size", "1GB"}, api.ExitMisuse, "--size"},
		{[]string{"--size", "-1"}, api.ExitMisuse, "--size"},
		{[]string{"--cut", "-1"}, api.ExitMisuse, "--cut"},
		{[]string{"--front", "apache"}, api.ExitMisuse, "lighttpd"},
		{[]string{"/nonexistent/file"}, api.ExitNotFound, "/nonexistent/file"},
		{[]string{"/tmp"}, api.ExitMisuse, "regular"},
	} {
		r := startDemo(t, exec.Command(program, append([]string{"demo"}, c.args...)...))
		require.Equal(t, c.code, r.wait(t), "%v", c.args)
		out, stderr := r.text()
		require.Empty(t, out)
		require.Contains(t, stderr, c.says)
	}
}
