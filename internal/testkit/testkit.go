// Package testkit finds what tests leave behind. Every package of this module
// has, in one of its test files,
//
//	func TestMain(m *testing.M) { testkit.Main(m) }
//
// After the tests, Main looks for goroutines that did not end, descriptors
// that were not closed, child processes (also orphaned grandchildren), and
// anything left in the temporary directory of the run. It waits up to five
// seconds for them to go, then prints what is still there and fails the run:
//
//	testkit: left behind: goroutine 35 [select]: gantry/feedback.(*Feed).run …
//	testkit: left behind: descriptor 9: socket:[81532]
//	testkit: left behind: process 4711: lighttpd -D -f /tmp/…
//
// Dir makes a temporary directory with a name short enough for sockets, which
// must be free of sockets and stages when its test ends:
//
//	dir := testkit.Dir(t)
//	l, err := net.Listen("unix", filepath.Join(dir, "s"))
//
// A test that means to leave stages (because it kills what made them) uses
// t.TempDir instead. A test binary that re-executes itself as a server decides
// so before it calls Main.
//
// It is for tests only: no main may reach it.
package testkit

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long Main waits for what is still ending: goroutines of a
// closed server, children that were told to stop.
var patience = 5 * time.Second // changed by its own test only

// Main runs the tests and exits: with their code, or with 1 when they passed
// and left something behind. For the time of the run TMPDIR is a directory of
// its own, open to every uid, and orphaned grandchildren become children. What
// the tests of a package share is removed by after, before the check.
func Main(m *testing.M, after ...func()) {
	// A fuzz worker is ended by its coordinator, which makes the check.
	if slices.ContainsFunc(os.Args, func(a string) bool { return strings.HasPrefix(a, "-test.fuzzworker") }) {
		os.Exit(m.Run())
	}
	tests := func() int {
		defer func() {
			for _, f := range after {
				f()
			}
		}()
		return m.Run()
	}
	os.Exit(run(tests, os.Stderr))
}

// Parallel lets n parallel tests of a package run at once, unless -test.parallel
// says otherwise: for tests that mostly wait, of which a machine can run more
// than it has processors. Call it before Main.
func Parallel(n int) {
	if err := flag.Set("test.parallel", strconv.Itoa(n)); err != nil {
		panic(err) // only in a program that is no test
	}
}

// run is Main without the exit.
func run(tests func() int, out io.Writer) int {
	tmp, err := privateTemp()
	if err != nil {
		fmt.Fprintln(out, "testkit: making a temporary directory:", err)
		return 1
	}
	defer os.RemoveAll(tmp)
	// Orphans come to us instead of init, so that a server which forked and
	// left is seen.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(out, "testkit: becoming a subreaper:", err)
		return 1
	}
	// A program built with -race sleeps for a second before it exits; those that
	// tests start by the hundred shall not.
	if os.Getenv("GORACE") == "" {
		if err := os.Setenv("GORACE", "atexit_sleep_ms=0"); err != nil {
			fmt.Fprintln(out, "testkit: setting GORACE:", err)
			return 1
		}
	}
	before := takeSnapshot()
	code := tests()
	http.DefaultClient.CloseIdleConnections()

	left := wait(func() []string { return slices.Concat(before.leaks(), files(tmp)) })
	for _, l := range left {
		fmt.Fprintln(out, "testkit: left behind:", l)
	}
	for _, err := range endChildren() {
		fmt.Fprintln(out, "testkit: ending a child:", err)
	}
	if len(left) > 0 && code == 0 {
		fmt.Fprintf(out, "testkit: FAIL: %d things left behind\n", len(left))
		return 1
	}
	return code
}

// privateTemp makes a directory with a short name (a unix socket's path has
// 108 bytes) and makes it TMPDIR.
func privateTemp() (string, error) {
	dir, err := os.MkdirTemp("", "g")
	if err != nil {
		return "", err
	}
	// Servers of other uids make files in it, as they would in /tmp.
	if err := os.Chmod(dir, 0o777|os.ModeSticky); err != nil {
		return "", err
	}
	return dir, os.Setenv("TMPDIR", dir)
}

// wait asks until nothing is left or patience ends.
func wait(leaks func() []string) []string {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(patience)
	for {
		left := leaks()
		if len(left) == 0 || time.Now().After(deadline) {
			return left
		}
		<-tick.C
	}
}

// Dir makes a temporary directory whose path leaves room for socket names. At
// the end of the test, after cleanups that were registered later, it fails the
// test if a socket or a stage is still in it, and is removed.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "d")
	if err != nil {
		t.Fatal("making a temporary directory:", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal("opening the temporary directory to servers:", err)
	}
	t.Cleanup(func() {
		for _, l := range socketsAndStages(dir) {
			t.Error("left behind:", l)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error("removing the temporary directory:", err)
		}
	})
	return dir
}
