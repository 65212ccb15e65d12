package main

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// look is what was used until some moment, or in a phase.
type look struct {
	at      time.Time
	seconds float64                     // of the phase
	cpu     [len(loadProcesses)]float64 // s
	busy    float64                     // s, of the whole machine
	lines   float64                     // written at the node
	peak    float64                     // MiB, of masterd
	load    string
}

var loadProcesses = [...]string{loadMaster + "/master", loadMaster + "/front", loadNodeName + "/front", loadNodeName + "/node", "generator of watchers and submissions"}

func (l *loading) look() look {
	text, _ := os.ReadFile("/proc/loadavg")
	x := look{at: time.Now(), busy: busy(), load: strings.Join(strings.Fields(string(text))[:1], " ")}
	for k, name := range loadProcesses {
		pids := []int{os.Getpid()}
		if k < len(loadProcesses)-1 {
			pids = tree(l.c.Process(name).PID)
		}
		for _, pid := range pids {
			x.cpu[k] += cpuOf(pid)
		}
	}
	x.peak = peakOf(l.c.Process(loadProcesses[0]).PID)
	x.lines = l.linesAt(x.at)
	return x
}

// add adds what was used between two moments.
func (x *look) add(before, after look) {
	for k := range x.cpu {
		x.cpu[k] += after.cpu[k] - before.cpu[k]
	}
	x.busy += after.busy - before.busy
	x.lines += after.lines - before.lines
	x.seconds += after.at.Sub(before.at).Seconds()
	x.load, x.peak = after.load, after.peak
}

// linesAt is how many lines the node had written at a moment, which it prints
// every second.
func (l *loading) linesAt(at time.Time) float64 {
	f, err := os.Open(l.c.Log(loadNodeName + "/node"))
	if err != nil {
		return 0
	}
	defer f.Close()
	var t0, t1, n0, n1 float64
	for in := bufio.NewScanner(f); in.Scan(); {
		var t, n float64
		if _, err := fmt.Sscanf(in.Text(), "lines %f %f", &t, &n); err == nil {
			t0, n0, t1, n1 = t1, n1, t, n
		}
	}
	if t1 == t0 {
		return n1
	}
	return n1 + (n1-n0)*(float64(at.UnixMilli())-t1)/(t1-t0)
}

// cpuOf is how many seconds of CPU a process has used.
func cpuOf(pid int) float64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(text), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.ParseFloat(f[11], 64)
	system, _ := strconv.ParseFloat(f[12], 64)
	return (user + system) / 100 // USER_HZ
}

func (l *loading) print(looks [loadPhases]look) {
	fmt.Println("| watchers | records/s at the node | shown/s | live p50 | p99 | max, ms | stored p50 | p99 | max, ms | loud feed, live p99 |")
	fmt.Println("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
	var seen faults
	for k := range l.watchers {
		seen.add(l.watchers[k].faults)
	}
	for k, p := range phases {
		var live, stored []float64
		for i := range l.watchers {
			live, stored = append(live, l.watchers[i].live[k]...), append(stored, l.watchers[i].stored[k]...)
		}
		fmt.Printf("| %s | %.0f | %.0f | %.1f | %.1f | %.1f | %.1f | %.1f | %.1f | %.1f |\n", p.name, looks[k].lines/looks[k].seconds, float64(len(live))/looks[k].seconds,
			percentile(live, .5), percentile(live, .99), percentile(live, 1),
			percentile(stored, .5), percentile(stored, .99), percentile(stored, 1), percentile(l.watchers[0].live[k], .99))
	}
	fmt.Printf("\n| cores used | masterd | its front | the node's front | the node | watchers, submissions | whole machine | load average | masterd's VmHWM, MiB |\n")
	fmt.Println("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
	for k, p := range phases {
		x := looks[k]
		fmt.Printf("| %s | %.2f | %.2f | %.2f | %.2f | %.2f | %.2f | %s | %.0f |\n", p.name,
			x.cpu[0]/x.seconds, x.cpu[1]/x.seconds, x.cpu[2]/x.seconds, x.cpu[3]/x.seconds, x.cpu[4]/x.seconds, x.busy/x.seconds, x.load, x.peak)
	}
	fmt.Println("\n| submissions | a second | p50 | p99 | max, ms | cancel p50 | p99, ms |\n| --- | --- | --- | --- | --- | --- | --- |")
	for k, p := range phases {
		s := &l.submits[k]
		fmt.Printf("| %s | %.0f | %.1f | %.1f | %.1f | %.1f | %.1f |\n", p.name, float64(len(s.submit))/looks[k].seconds,
			percentile(s.submit, .5), percentile(s.submit, .99), percentile(s.submit, 1), percentile(s.cancel, .5), percentile(s.cancel, .99))
	}
	fmt.Printf("\nThe watcher that reads slowly was cut %d times (a turn may be too short for that), and came again.\n", l.cuts.Load())
	fmt.Println("\n| stored records | lost | repeated | reordered | progress that went back |\n| --- | --- | --- | --- | --- |")
	fmt.Printf("| seen live by %d watchers | %d | %d | %d | %d |\n", loadWatchers, seen.lost, seen.repeated, seen.reordered, seen.back)
}
