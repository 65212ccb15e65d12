//go:build ignore

// Failpoints reads the log of a run of tests built with the tag failpoints
// (GANTRY_FAILPOINT_LOG, lines "name" and "name=action") and fails, naming
// them, when a failpoint of the table was never hit, or was hit and nothing
// was ever done there.
//
//	log=$(mktemp)
//	GANTRY_FAILPOINT_LOG=$log go test -tags failpoints -run Failpoint ./…
//	go run scripts/failpoints.go $log
package main

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"gantry/internal/failpoint"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: go run scripts/failpoints.go LOGFILE")
		os.Exit(2)
	}
	f, err := os.Open(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "reading the log of failpoints:", err)
		os.Exit(2)
	}
	defer f.Close()
	hit, acted := map[string]bool{}, map[string]bool{}
	actions := map[string]int{}
	in := bufio.NewScanner(f)
	for in.Scan() {
		name, action, ok := strings.Cut(in.Text(), "=")
		hit[name] = true
		if ok {
			acted[name] = true
			actions[action]++
		}
	}
	if err := in.Err(); err != nil {
		fmt.Fprintln(os.Stderr, "reading the log of failpoints:", err)
		os.Exit(2)
	}
	bad := 0
	for _, name := range failpoint.Names {
		switch {
		case !hit[name]:
			fmt.Println("never hit:", name)
			bad++
		case !acted[name]:
			fmt.Println("hit, and never made to fail:", name)
			bad++
		}
	}
	var counts []string
	for _, action := range slices.Sorted(maps.Keys(actions)) {
		counts = append(counts, fmt.Sprintf("%d %s", actions[action], action))
	}
	fmt.Printf("%d of %d failpoints hit and made to fail (%s)\n", len(failpoint.Names)-bad, len(failpoint.Names), strings.Join(counts, ", "))
	if bad > 0 {
		os.Exit(1)
	}
}
