//go:build ignore

// Summary reads the output of go test -json and ends it in a plain summary:
// a line per package, the output of what failed, every skipped test with its
// reason, the slowest tests, and "N passed, N failed, N skipped".
//
//	go test -json ./... | go run scripts/summary.go
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strings"
)

type event struct {
	Action, Package, Test, Output string
	ImportPath                    string // of build output
	Elapsed                       float64
}

func main() {
	passed, failed, skipped := 0, 0, 0
	output := map[string][]string{} // by package and test
	parents := map[string]bool{}    // tests that have subtests: counted by those
	outcomes := map[string]event{}
	runs := map[string]int{} // of a package: it may be tested twice, with other build tags
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(make([]byte, 0, 1<<20), 1<<26)
	for in.Scan() {
		var e event
		if err := json.Unmarshal(in.Bytes(), &e); err != nil {
			fmt.Println(in.Text())
			continue
		}
		key := fmt.Sprintf("%s %d %s", e.Package, runs[e.Package], e.Test)
		switch e.Action {
		case "start":
			runs[e.Package]++
		case "output", "build-output":
			if e.Action == "build-output" {
				fmt.Print(e.Output)
			}
			output[key] = append(output[key], e.Output)
		case "pass", "fail", "skip":
			if e.Test == "" {
				if e.Action != "skip" { // no test files
					fmt.Printf("%-5s %-32s %6.1f s\n", e.Action, e.Package, e.Elapsed)
				}
				if e.Action == "fail" {
					outcomes[key] = e
				}
				continue
			}
			if at := strings.LastIndex(e.Test, "/"); at > 0 {
				parents[strings.TrimSuffix(key, e.Test[at:])] = true
			}
			outcomes[key] = e
		}
	}
	keys := make([]string, 0, len(outcomes))
	for k := range outcomes {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	packageFailed := map[string]bool{}
	for _, k := range keys {
		e := outcomes[k]
		if e.Action == "fail" && e.Test != "" {
			packageFailed[e.Package] = true
		}
	}
	for _, k := range keys {
		e := outcomes[k]
		switch {
		case e.Action == "fail" && e.Test == "":
			if !packageFailed[e.Package] { // it failed outside any test: build, TestMain, leak check
				failed++
				fmt.Printf("\nFAIL %s\n%s", e.Package, strings.Join(output[k], ""))
			}
		case e.Action == "fail":
			if !parents[k] {
				failed++
			}
			fmt.Printf("\nFAIL %s %s\n%s", e.Package, e.Test, strings.Join(output[k], ""))
		case parents[k]:
		case e.Action == "skip":
			skipped++
			fmt.Printf("skipped: %s %s: %s\n", e.Package, e.Test, reason(output[k]))
		default:
			passed++
		}
	}
	slowest(outcomes)
	fmt.Printf("\n%d passed, %d failed, %d skipped\n", passed, failed, skipped)
	if failed > 0 || passed == 0 {
		os.Exit(1)
	}
}

// slowest names the tests whose time is worth a look first.
func slowest(outcomes map[string]event) {
	var all []event
	for _, e := range outcomes {
		if e.Test != "" && !strings.Contains(e.Test, "/") {
			all = append(all, e)
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Elapsed > all[j].Elapsed })
	fmt.Println()
	for _, e := range all[:min(len(all), 20)] {
		fmt.Printf("slow: %6.1f s  %s %s\n", e.Elapsed, e.Package, e.Test)
	}
}

// reason is what the test said before it was skipped.
func reason(lines []string) string {
	for _, l := range lines {
		l = strings.TrimSpace(l)
		if l != "" && !strings.HasPrefix(l, "===") && !strings.HasPrefix(l, "---") {
			return l
		}
	}
	return "no reason given"
}
