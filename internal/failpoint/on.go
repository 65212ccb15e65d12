//go:build failpoints

package failpoint

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Enabled says whether this binary was built with failpoints.
const Enabled = true

type action struct {
	verb  string
	delay time.Duration
	at    int // the Nth hit, from 1
}

var (
	actions = parse(os.Getenv("GANTRY_FAILPOINTS"))
	logPath = os.Getenv("GANTRY_FAILPOINT_LOG")
	known   = func() map[string]bool {
		m := make(map[string]bool, len(Names))
		for _, n := range Names {
			m[n] = true
		}
		return m
	}()

	mu   sync.Mutex
	hits = map[string]int{} // guarded by mu
)

// Hit marks the moment before a step's effect.
func Hit(name string) error {
	if !known[name] {
		panic("failpoint " + name + " is not in the table of names")
	}
	mu.Lock()
	hits[name]++
	n := hits[name]
	if n == 1 && logPath != "" {
		record(name)
	}
	mu.Unlock()
	a, ok := actions[name]
	if !ok || a.at != n {
		return nil
	}
	switch a.verb {
	case "kill":
		acts(name, a)
		die()
	case "error":
		acts(name, a)
		return fmt.Errorf("%s: %w", name, ErrInjected)
	case "delay":
		acts(name, a)
		time.Sleep(a.delay)
	}
	return nil
}

// HitAfter marks the moment after a step's effect. Hit counts; HitAfter only
// acts on the count that the Hit before it left.
func HitAfter(name string) error {
	mu.Lock()
	n := hits[name]
	mu.Unlock()
	a, ok := actions[name]
	if !ok || a.at != n {
		return nil
	}
	switch a.verb {
	case "kill-after":
		acts(name, a)
		die()
	case "error-after":
		acts(name, a)
		return fmt.Errorf("%s: %w", name, ErrInjected)
	}
	return nil
}

// die ends the process as kill -9 does: nothing deferred runs.
func die() {
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

func acts(name string, a action) {
	if logPath != "" {
		record(name + "=" + a.verb)
	}
}

// record appends a line. Of several processes each writes whole lines.
func record(line string) {
	f, err := os.OpenFile(logPath, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o666)
	if err != nil {
		return // it shows as a failpoint that was never hit
	}
	defer f.Close()
	fmt.Fprintln(f, line)
}

// parse panics on a malformed list: a campaign that tests nothing is worse
// than one that stops.
func parse(list string) map[string]action {
	out := map[string]action{}
	for entry := range strings.SplitSeq(list, ",") {
		if entry == "" {
			continue
		}
		name, verb, ok := strings.Cut(entry, "=")
		if !ok {
			panic("GANTRY_FAILPOINTS: " + entry + ": want name=action")
		}
		a := action{at: 1}
		verb, at, counted := strings.Cut(verb, "@")
		if counted {
			n, err := strconv.Atoi(at)
			if err != nil || n < 1 {
				panic("GANTRY_FAILPOINTS: " + entry + ": want @N with N from 1")
			}
			a.at = n
		}
		verb, d, _ := strings.Cut(verb, ":")
		switch a.verb = verb; verb {
		case "kill", "kill-after", "error", "error-after":
		case "delay":
			var err error
			if a.delay, err = time.ParseDuration(d); err != nil {
				panic("GANTRY_FAILPOINTS: " + entry + ": " + err.Error())
			}
		default:
			panic("GANTRY_FAILPOINTS: " + entry + ": unknown action")
		}
		out[name] = a
	}
	return out
}
