package testkit

import (
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"slices"
	"testing"

	"gantry/internal/failpoint"
)

// PassOnFailpoints adds a GANTRY_FAILPOINT_LOG that a test gave to its child
// processes to the one of the whole run, if there is one: the children may run
// as another uid, and the test wants to know what only they reached.
func PassOnFailpoints(t testing.TB, log string) {
	t.Helper()
	all := os.Getenv("GANTRY_FAILPOINT_LOG")
	if all == "" {
		return
	}
	text, err := os.ReadFile(log)
	if errors.Is(err, fs.ErrNotExist) {
		return // none was reached
	}
	if err != nil {
		t.Error("reading the log of failpoints:", err)
		return
	}
	f, err := os.OpenFile(all, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o666)
	if err != nil {
		t.Error("passing failpoints on:", err)
		return
	}
	if _, err := f.Write(text); err != nil {
		t.Error("passing failpoints on:", err)
	}
	if err := f.Close(); err != nil {
		t.Error("passing failpoints on:", err)
	}
}

var (
	everyAction = flag.Bool("failpoints.all", false, "try every action at every failpoint; otherwise the seed picks a death and a failure for each")
	pointSeed   = flag.Uint64("failpoints.seed", 1, "seed of the actions at failpoints")
)

// EveryAction says that the long form was asked for: -failpoints.all.
func EveryAction() bool { return *everyAction }

// Actions are what a test should do at a failpoint: a death before or after the
// step, and a failure without or with its effect; all four of them in the long
// form. At a moment between two steps nothing can come after.
func Actions(name string) []string {
	deaths, failures := []string{"kill", "kill-after"}, []string{"error", "error-after"}
	if slices.Contains(failpoint.Moments, name) {
		return []string{deaths[0], failures[0]}
	}
	if *everyAction {
		return slices.Concat(deaths, failures)
	}
	pick := Pick(name, 4)
	return []string{deaths[pick%2], failures[pick/2]}
}

// Pick is a number below n that the seed chooses for a name.
func Pick(name string, n int) int {
	h := fnv.New64a()
	fmt.Fprint(h, *pointSeed, name)
	return int((h.Sum64() >> 8) % uint64(n))
}
