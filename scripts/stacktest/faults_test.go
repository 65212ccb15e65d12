//go:build stack

package stacktest_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	// loaded is the pace of the copies of which a rolling change must lose none.
	loaded = "64M"
	// pausedFor is longer than a heartbeat is awaited.
	pausedFor = 20 * time.Second
	// cutFor is long enough for connections to be missed.
	cutFor = 5 * time.Second
)

// A faulted container, and a copy that needs it, at a pace at which it outlasts
// all faults on an idle machine. Responders are tried as targets and as a source,
// fronts as sources. While the master is away the nodes go on.
type faulted struct{ service, from, to, pace string }

// lanes of faults, one container after the other in each. What is in one lane
// does not need what is in the other, but for the master, which has a turn of its own.
var lanes = [][]faulted{
	{
		{"alpha-front", "alpha:disks/big", "beta:disks/kept", "20M"},
		{"alpha", "beta:disks/kept", "alpha:disks/copy", "20M"},
		{"beta", "alpha:disks/big", "beta:disks/copy", "20M"},
		{"beta-front", "beta:disks/kept", "alpha:disks/copy", "20M"},
	},
	{
		{"gamma", "gamma:archive/big", "gamma:disks/copy", "20M"},
		{"gamma-front", "gamma:archive/big", "gamma:disks/copy", "20M"},
	},
}

var ofMaster = []faulted{
	{"master", "alpha:disks/big", "beta:disks/copy", "10M"},
	{"master-front", "beta:disks/kept", "alpha:disks/copy", "10M"},
}

func (s *stack) allFaults(t *testing.T) {
	t.Run("nodes", func(t *testing.T) {
		for _, lane := range lanes {
			t.Run(lane[0].service, func(t *testing.T) {
				t.Parallel()
				s.lane(t, lane)
			})
		}
	})
	t.Run("master", func(t *testing.T) { s.lane(t, ofMaster) })
}

func (s *stack) lane(t *testing.T, lane []faulted) {
	for _, f := range lane {
		t.Run("of "+f.service, func(t *testing.T) { s.faults(t, f) })
	}
}

// faults of one container, one after the other, in one copy; in another one
// where that has ended before, on a busy machine.
func (s *stack) faults(t *testing.T, f faulted) {
	var c *copying
	begin := func() { c = s.begin(t, f.from, f.to, "--bwlimit", f.pace) }
	end := func() {
		c.end(t)
		s.kept(t, c)
		s.same(t, "alpha:disks/big", f.to)
	}
	begin()
	for _, fault := range []struct {
		name string
		do   func(*testing.T, string)
	}{{"killed", s.kill}, {"restarted", s.restart}, {"cut off", s.cut}, {"paused", s.pause}} {
		t.Run(fault.name, func(t *testing.T) {
			if !c.await(t, c.fetched()) { // it moves
				t.Logf("%s ended before: another one", c.name)
				end()
				s.removeFile(t, f.to)
				begin()
				require.True(t, c.await(t, c.fetched()))
			}
			before := c.fetched()
			at := time.Now()
			fault.do(t, f.service)
			over := time.Now()
			there := s.exists(t, f.to)
			if c.await(t, max(before, c.fetched())) {
				require.False(t, there, "the target is there before the copy is done")
			}
			t.Logf("%s %s after %.1f s, moving again %.1f s later", f.service, fault.name, over.Sub(at).Seconds(), time.Since(over).Seconds())
		})
	}
	if t.Failed() {
		return
	}
	end()
	if f.to != "beta:disks/kept" {
		s.removeFile(t, f.to)
	}
}

// kill ends all processes of the container as a crash would; the engine starts
// it again, by docker-compose.yml's restart. Where they cannot be reached from
// here (no root, engine elsewhere) the engine kills and starts.
func (s *stack) kill(t *testing.T, service string) {
	id := s.container(t, service)
	state := func() string { return s.docker(t, "inspect", "-f", "{{.State.Running}} {{.State.StartedAt}}", id) }
	before := state()
	if _, err := s.try("kill", "-9", s.docker(t, "inspect", "-f", "{{.State.Pid}}", id)); err != nil {
		s.docker(t, "kill", id)
		s.docker(t, "start", id)
	}
	for deadline := time.Now().Add(30 * time.Second); ; {
		if now := state(); now != before && strings.HasPrefix(now, "true") {
			return
		}
		require.True(t, time.Now().Before(deadline), "it was not started again")
		time.Sleep(100 * time.Millisecond)
	}
}

func (s *stack) restart(t *testing.T, service string) {
	s.docker(t, "restart", "-t", "55", s.container(t, service))
}

func (s *stack) pause(t *testing.T, service string) {
	id := s.container(t, service)
	s.docker(t, "pause", id)
	time.Sleep(pausedFor)
	s.docker(t, "unpause", id)
}

// cut takes all networks away and gives them back.
func (s *stack) cut(t *testing.T, service string) {
	id := s.container(t, service)
	networks := strings.Fields(s.docker(t, "inspect", "-f", "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}", id))
	require.NotEmpty(t, networks)
	for _, n := range networks {
		s.docker(t, "network", "disconnect", n, id)
	}
	time.Sleep(cutFor)
	for _, n := range networks {
		s.docker(t, "network", "connect", "--alias", service, n, id)
	}
}

// rollingUpgrade replaces every container by one of the new images.
func (s *stack) rollingUpgrade(t *testing.T) {
	s.underLoad(t, func(service string) {
		s.script(t, "GANTRY_TAG="+s.tag("new"), "start", service)
		image := s.docker(t, "inspect", "-f", "{{.Config.Image}}", s.container(t, service))
		require.True(t, strings.HasSuffix(image, ":"+s.tag("new")), image)
	})
}

// rollingRestart makes every container anew, of the same image.
func (s *stack) rollingRestart(t *testing.T) {
	s.underLoad(t, func(service string) { s.script(t, "", "start", service) })
}

// underLoad changes one service after the other while copies run between all
// nodes, through the master and without it; each copy must be done with its feed
// whole.
func (s *stack) underLoad(t *testing.T, change func(service string)) {
	stop := make(chan struct{})
	var load sync.WaitGroup
	for to, master := range map[string]string{"beta:disks/load": "hub", "gamma:disks/load": "none"} {
		load.Go(func() { s.copyUntil(t, stop, "alpha:disks/big", to, master) })
	}
	for _, service := range services {
		at := time.Now()
		change(service)
		t.Logf("%s: healthy again after %.1f s", service, time.Since(at).Seconds())
	}
	close(stop)
	load.Wait()
}

// copyUntil copies again and again; the last copy ends after stop.
func (s *stack) copyUntil(t *testing.T, stop <-chan struct{}, from, to, master string) {
	for n := 1; ; n++ {
		c := s.begin(t, from, to, "--bwlimit", loaded, "--master", master)
		c.end(t)
		if master != "none" {
			s.kept(t, c)
		}
		s.same(t, from, to)
		s.removeFile(t, to)
		select {
		case <-stop:
			t.Logf("%d copies of %s were done, master %s", n, c.name, master)
			return
		default:
		}
	}
}
