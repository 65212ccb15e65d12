// Command benchmarks measures gantry side by side with what people use today
// and prints the tables of docs/benchmarks.md:
//
//	go run ./scripts/benchmarks -size 4096 -rounds 5
//
// Every row of a table is run in turn, round after round, in one run: the
// machine's speed drifts, so ratios are formed within a round and the median is
// quoted. A rival that is not installed is printed as missing. It is not a
// test: nothing here fails because something was slow.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const allParts = "copy,delta,tree,line,peak,feed,memory,request,queue,load"

func main() {
	if part, err := hidden(os.Args[1:]); part {
		if err != nil {
			fmt.Fprintln(os.Stderr, "benchmarks:", err)
			os.Exit(1)
		}
		return
	}
	var b bench
	var parts string
	flag.Int64Var(&b.size, "size", 4096, "size of the copied file, MiB")
	flag.IntVar(&b.rounds, "rounds", 5, "rounds of each table")
	flag.StringVar(&parts, "parts", allParts, "which tables")
	flag.StringVar(&b.only, "only", "", "run just the contenders with this in their name")
	flag.StringVar(&b.perf, "perf", "", "folder for a profile of each run, by perf record, which slows it down")
	flag.StringVar(&b.dir, "dir", os.TempDir(), "folder for a temporary folder; its file system is measured")
	flag.Float64Var(&b.loadMinutes, "load.minutes", 10, "how long the load lasts; less than one, for developing, leaves the history out")
	flag.StringVar(&b.loadFront, "load.front", "nginx", "the front before master and node under load")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := b.run(ctx, strings.Split(parts, ",")); err != nil {
		fmt.Fprintln(os.Stderr, "benchmarks:", err)
		os.Exit(1)
	}
}

type bench struct {
	size    int64 // MiB
	rounds  int
	dir     string
	program string // gantry, built without the race detector

	loadMinutes float64
	loadFront   string

	only  string // contenders
	perf  string // folder for profiles
	perfs int    // made so far

	clusters int // made so far
}

func (b *bench) run(ctx context.Context, parts []string) error {
	dir, err := os.MkdirTemp(b.dir, "gantry-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b.dir = dir
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	b.program = filepath.Join(dir, "gantry")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", b.program, "./cmd/gantry").CombinedOutput(); err != nil {
		return fmt.Errorf("building gantry: %w: %s", err, out)
	}
	b.versions()
	for _, part := range []struct {
		name string
		run  func(context.Context) error
	}{{"copy", b.copies}, {"delta", b.deltas}, {"tree", b.trees}, {"line", b.lines}, {"peak", b.peaks}, {"feed", b.feeds}, {"memory", b.memory}, {"request", b.requests}, {"queue", b.queues}, {"load", b.loads}} {
		if slices.Contains(parts, part.name) {
			if err := part.run(ctx); err != nil {
				return fmt.Errorf("%s: %w", part.name, err)
			}
		}
	}
	return nil
}

// versions prints what was measured, and on what.
func (b *bench) versions() {
	fmt.Printf("%s, %d cores of %s, AVX-512: %v, %s, %s\n", time.Now().UTC().Format("2 January 2006"), runtime.NumCPU(), cpuinfo("model name"),
		strings.Contains(cpuinfo("flags"), " avx512f "), runtime.Version(), first("uname", "-sr"))
	for _, tool := range [][]string{
		{"lighttpd", "-v"}, {"nginx", "-v"}, {"curl", "--version"}, {"openssl", "version"}, {"socat", "-V"}, {"b3sum", "--version"}, {"fcgiwrap", "-h"},
		{"rsync", "--version"}, {"rclone", "version"}, {"ssh", "-V"},
	} {
		if _, err := exec.LookPath(tool[0]); err != nil {
			fmt.Printf("%s: missing; its rows are left out\n", tool[0])
			continue
		}
		fmt.Printf("%s: %s\n", tool[0], first(tool...))
	}
}

// cpuinfo is what the kernel tells of the first processor.
func cpuinfo(key string) string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if k, v, _ := strings.Cut(line, ":"); strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return "unknown"
}

// first is the first telling line that a command prints.
func first(args ...string) string {
	out, _ := exec.Command(args[0], args[1:]...).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		if strings.ContainsAny(line, "0123456789") && !strings.Contains(line, "Copyright") {
			return line
		}
	}
	return "version not told"
}

func installed(tools ...string) bool {
	for _, t := range tools {
		if _, err := exec.LookPath(t); err != nil {
			return false
		}
	}
	return true
}

// busy is how many seconds of CPU the whole machine has used since it started.
func busy() float64 {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(text), "\n")
	var sum float64
	for i, f := range strings.Fields(line)[1:] {
		n, _ := strconv.ParseFloat(f, 64)
		if i != 3 && i != 4 && i < 8 { // not idle, not iowait
			sum += n
		}
	}
	return sum / 100 // USER_HZ
}

// settle waits until what earlier runs left in the kernel is on disk and the
// machine is idle, for at most ten seconds.
func settle() {
	syscall.Sync()
	for range 20 {
		before := busy()
		time.Sleep(500 * time.Millisecond)
		if busy()-before < 0.05 {
			return
		}
	}
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(values))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// percentile is the value under which share (0–1) of the values lie.
func percentile(values []float64, share float64) float64 {
	if len(values) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(values))
	return s[min(len(s)-1, int(share*float64(len(s))))]
}
