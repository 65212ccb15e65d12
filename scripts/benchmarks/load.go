package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"gantry/api"
	"gantry/front"
	"gantry/internal/cluster"
	"gantry/queue"

	"golang.org/x/sync/errgroup"
)

// The load of a master: so many jobs run, so many wait, so many have ended.
const (
	loadFeeds    = 1000
	loadWatchers = 100
	loadMaster   = "hub"
	loadNodeName = "alpha"
	loadOwner    = "spiffe://" + cluster.Name + "/operator/bench"
	// masterdEnv names the program that is measured, for the process that
	// becomes it.
	masterdEnv = "GANTRY_BENCH_MASTERD"
	// submitEvery is the pace of submissions; a burst has none.
	submitEvery  = 100 * time.Millisecond
	burstClients = 8
)

// The phases of a load, and the share of the time that each has.
const (
	phaseAlone = iota
	phaseSlow
	phaseBurst
	loadPhases
)

var phases = [loadPhases]struct {
	name  string
	share float64
}{
	{"no slow watchers", .45},
	{"one reads 8 bytes a second, one nothing", .45},
	{fmt.Sprintf("the same, %d clients submit without a pause", burstClients), .1},
}

// loadOrder has what is compared in turn: the machine's speed drifts.
var loadOrder = []int{phaseAlone, phaseSlow, phaseSlow, phaseAlone, phaseAlone, phaseSlow, phaseBurst}

// lasts is how long a phase lasts each time that its turn comes.
func (l *loading) lasts(phase int) time.Duration {
	turns := 0
	for _, k := range loadOrder {
		if k == phase {
			turns++
		}
	}
	return time.Duration(float64(l.took) * phases[phase].share / float64(turns))
}

// hidden runs this program as a part of a cluster under load; false: it is
// none.
func hidden(args []string) (_ bool, err error) {
	if len(args) == 0 || !strings.HasPrefix(args[0], "__") {
		return false, nil
	}
	switch args[0] {
	case "__keep":
		err = cluster.Keep(os.Stdin, os.Stdout)
	case "__node":
		err = runLoadNode(args[len(args)-1])
	case "__master":
		path := os.Getenv(masterdEnv)
		err = syscall.Exec(path, append([]string{path}, args[1:]...), os.Environ())
	default:
		err = fmt.Errorf("%s is no part of a cluster under load", args[0])
	}
	return true, err
}

// loading is one load.
type loading struct {
	b        *bench
	c        *cluster.Cluster
	jobs     []string      // that run; the first is the loud one
	phase    atomic.Int32  // -1: nothing is measured
	took     time.Duration // of all phases
	watchers [loadWatchers]loadWatcher
	submits  [loadPhases]submitted
	cuts     atomic.Int64 // of the slow watcher's connection
}

// submitted are the latencies of requests, ms.
type submitted struct {
	mu             sync.Mutex
	submit, cancel []float64 // guarded by mu
}

// loads measures a master that follows 1,000 feeds of three items, each with ten
// progress records a second, while 10,000 jobs wait.
func (b *bench) loads(ctx context.Context) (err error) {
	l := &loading{b: b, took: time.Duration(b.loadMinutes * float64(time.Minute))}
	l.phase.Store(-1)
	masterd := filepath.Join(b.dir, "masterd")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", masterd, "./cmd/masterd").CombinedOutput(); err != nil {
		return fmt.Errorf("building masterd: %w: %s", err, out)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(b.dir, "l-")
	if err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	l.c, err = cluster.New(cluster.Options{
		Program: self, Front: front.Kind(b.loadFront), Dir: filepath.Join(dir, "c"), Nodes: []string{loadNodeName},
		Master: loadMaster, MasterExtra: fmt.Sprintf("\n[[node]]\nname = %q\nslots = %d\n", loadNodeName, loadFeeds),
		Env: append(os.Environ(), masterdEnv+"="+masterd),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.c.Close()) }()
	ended := endedJobs
	if b.loadMinutes < 1 {
		ended = 0 // for developing
	}
	if err := l.fill(ctx, ended); err != nil {
		return err
	}
	fmt.Printf("\n### A master under load: %d feeds of %d items, %d jobs queued, %d finished, %d watchers, %s, %s\n\n",
		loadFeeds, loadItems, queuedJobs, ended, loadWatchers, l.took, b.loadFront)
	began := time.Now()
	if err := l.c.Start(ctx); err != nil {
		return err
	}
	served := time.Since(began)
	if err := l.running(ctx); err != nil {
		return err
	}
	fmt.Printf("masterd answered %.1f s after its start, and followed all feeds after %.1f s.\n\n", served.Seconds(), time.Since(began).Seconds())
	return l.run(ctx)
}

// fill makes the store that the master finds.
func (l *loading) fill(ctx context.Context, ended int) error {
	dir := filepath.Join(l.c.NodeDir(loadMaster), "master", "dir")
	path := filepath.Join(dir, "master.db")
	s, err := queue.Open(path, queue.Options{})
	if err != nil {
		return err
	}
	old, err := addJobs(ctx, s, ended)
	if err == nil {
		err = together(ended, func(k int) error { return end(ctx, s, old[k]) })
	}
	for k := 0; k < loadFeeds && err == nil; k++ {
		var j queue.Job
		// Priority has them run first.
		if j, _, err = s.Add(ctx, queue.Job{Kind: "digest", Owner: loadOwner, Nodes: []string{loadNodeName}, Spec: loadSpec(k), Priority: 9, MaxAttempts: 1}); err == nil {
			l.jobs = append(l.jobs, j.ID)
		}
	}
	if err == nil {
		err = together(queuedJobs, func(k int) error {
			_, _, err := s.Add(ctx, queue.Job{Kind: "digest", Owner: loadOwner, Nodes: []string{loadNodeName}, Spec: loadSpec(loadFeeds + k), MaxAttempts: 1})
			return err
		})
	}
	if cerr := s.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	owner := info.Sys().(*syscall.Stat_t)
	for _, f := range files {
		if err := os.Chown(filepath.Join(dir, f.Name()), int(owner.Uid), int(owner.Gid)); err != nil {
			return err
		}
	}
	return nil
}

func loadSpec(k int) api.Raw {
	path := fmt.Sprintf("file%d", k)
	if k == 0 {
		path = loudPath
	}
	return api.Raw(fmt.Sprintf(`{"kind":"digest","cluster":%q,"from":{"node":%q,"resource":%q,"path":%q}}`, cluster.Name, loadNodeName, cluster.Resource, path))
}

// running waits until the master follows every feed.
func (l *loading) running(ctx context.Context) error {
	m := l.c.MasterClient()
	defer m.Close()
	for {
		s, err := m.Status(ctx)
		if err != nil {
			return err
		}
		if s.Jobs[queue.Running] == loadFeeds {
			return nil
		}
		if !pause(ctx, 100*time.Millisecond) {
			return context.Cause(ctx)
		}
	}
}

// run watches and submits through all phases, then ends the tasks and looks
// whether every feed is whole.
func (l *loading) run(ctx context.Context) error {
	working, stop := context.WithCancel(ctx)
	defer stop()
	var work, watching sync.WaitGroup
	failed := make(chan error, loadWatchers+burstClients+16) // one for each goroutine
	try := func(wg *sync.WaitGroup, fn func() error) {
		wg.Go(func() {
			if err := fn(); err != nil && working.Err() == nil {
				failed <- err
			}
		})
	}
	defer func() { stop(); watching.Wait(); work.Wait() }()
	h, url := l.c.MasterHTTP()
	defer h.CloseIdleConnections()
	for k := range l.watchers {
		job := l.jobs[k*len(l.jobs)/loadWatchers]
		try(&watching, func() error { return l.watchers[k].read(working, h, url+"/jobs/"+job+"/feed", &l.phase) })
	}
	try(&work, func() error { return l.submit(working, true) })
	if !pause(ctx, min(10*time.Second, l.took/5)) { // it comes to rest
		return context.Cause(ctx)
	}
	var looks [loadPhases]look
	for _, k := range loadOrder {
		if k == phaseBurst {
			for range burstClients {
				try(&work, func() error { return l.submit(working, false) })
			}
		}
		slowly, leave := context.WithCancel(working)
		var slows sync.WaitGroup
		if k != phaseAlone {
			for _, bytes := range []int{8, 0} {
				try(&slows, func() error { return slow(slowly, l.c, "/jobs/"+l.jobs[0]+"/feed", bytes, &l.cuts) })
			}
		}
		before := l.look()
		l.phase.Store(int32(k))
		var err error
		select {
		case err = <-failed:
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-time.After(l.lasts(k)):
		}
		l.phase.Store(-1)
		looks[k].add(before, l.look())
		leave()
		slows.Wait()
		if err != nil {
			return err
		}
	}
	if err := syscall.Kill(l.c.Process(loadNodeName+"/node").PID, syscall.SIGUSR1); err != nil {
		return err
	}
	watching.Wait() // each to the final
	stop()
	work.Wait()
	select {
	case err := <-failed:
		return err
	default:
	}
	l.print(looks)
	all, err := l.audit(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("| all %d feeds afterwards, %d records | %d | %d | %d | |\n", loadFeeds, all.seq, all.faults.lost, all.faults.repeated, all.faults.reordered)
	return nil
}

// submit asks for jobs that will wait, and cancels each when it is paced, so
// that no more wait in the end.
func (l *loading) submit(ctx context.Context, paced bool) error {
	m := l.c.MasterClient()
	defer m.Close()
	for k := loadFeeds + queuedJobs; ctx.Err() == nil; k++ {
		began := time.Now()
		j, err := m.Submit(ctx, &api.JobRequest{Spec: loadSpec(k), MaxAttempts: 1}, "")
		if err != nil {
			return err
		}
		took := time.Since(began)
		var cancelled time.Duration
		if paced {
			if _, err := m.Cancel(ctx, j.ID); err != nil {
				return err
			}
			cancelled = time.Since(began) - took
		}
		if phase := l.phase.Load(); phase >= 0 {
			s := &l.submits[phase]
			s.mu.Lock()
			if s.submit = append(s.submit, float64(took)/1e6); paced {
				s.cancel = append(s.cancel, float64(cancelled)/1e6)
			}
			s.mu.Unlock()
		}
		if paced {
			pause(ctx, submitEvery)
		}
	}
	return nil
}

// audit reads every feed from its beginning; it returns what is wrong with them
// and how many stored records they have.
func (l *loading) audit(ctx context.Context) (all loadWatcher, err error) {
	h, url := l.c.MasterHTTP()
	defer h.CloseIdleConnections()
	var none atomic.Int32
	none.Store(-1)
	var mu sync.Mutex
	reading, ctx := errgroup.WithContext(ctx)
	reading.SetLimit(4)
	for _, job := range l.jobs {
		reading.Go(func() error {
			var w loadWatcher
			err := w.read(ctx, h, url+"/jobs/"+job+"/feed", &none)
			mu.Lock()
			defer mu.Unlock()
			all.faults.add(w.faults)
			all.seq += w.seq
			return err
		})
	}
	err = reading.Wait()
	return all, err
}
