//go:build failpoints

package cluster_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gantry/front"
	"gantry/internal/cluster"
	"gantry/internal/history"
	"gantry/internal/testkit"

	"github.com/stretchr/testify/require"
)

// masterPoints are the failpoints that a master reaches while it works: around
// commit, start, POST, acknowledgement, change of state, and end.
var masterPoints = []string{
	"queue.commit", "master.start", "master.attempt", "job.start", "master.state", "job.ack", "master.wait", "master.final",
}

// commits is how many commits of one job, from its submission on, are tried as
// the one that fails.
const commits = 16

// TestFailpointsOfMaster kills the master, or makes it fail, at every step of
// its own while clients work, and has what they were shown judged as
// TestMasterKills does.
func TestFailpointsOfMaster(t *testing.T) {
	seed := theSeed(t)
	c := newCluster(t, cluster.Options{Program: program(t, "failpoints"), Front: front.EmbeddedServer, Master: "hub"}, func(c *cluster.Cluster) {
		for i := range masterSources {
			random(t, c, fmt.Sprintf("src%d.img", i), seed+uint64(i), 3<<20)
		}
	})
	f := &failing{killing: &killing{c: c}, log: filepath.Join(c.Dir(), "log", "failpoints")}
	require.NoError(t, os.WriteFile(f.log, nil, 0o600))
	require.NoError(t, os.Chmod(f.log, 0o666))
	k := &masterKilling{masterLoad: newMasterLoad(c, "f"), states: map[string]int{}, by: map[string]int{}}
	for i := range masterSources {
		k.look(t, fmt.Sprintf("alpha:disks/src%d.img", i))
	}
	client := k.client("0", seed)
	tried := 0
	for _, name := range masterPoints {
		for _, action := range testkit.Actions(name) {
			nths := []int{1}
			if name == "queue.commit" {
				nths = nil
				for n := 1; n <= commits; n++ {
					if testkit.EveryAction() || n%3 == testkit.Pick(action, 3) {
						nths = append(nths, n)
					}
				}
			}
			for _, nth := range nths {
				arm := fmt.Sprintf("%s=%s@%d", name, action, nth)
				tried++
				ok := t.Run(arm, func(t *testing.T) {
					f.arm = []string{"GANTRY_FAILPOINTS=" + arm, "GANTRY_FAILPOINT_LOG=" + f.log}
					require.NoError(t, os.Truncate(f.log, 0))
					f.arming(t, "hub/master")
					f.toHit(t, client, name, tried)
				})
				if !ok {
					return // the rest would be judged by what this one left
				}
			}
		}
	}
	client.http.CloseIdleConnections()
	t.Logf("%d actions at failpoints of the master, all hit", tried)
	k.judge(t, history.Load{What: "actions at failpoints", N: tried, Floor: 2 * len(masterPoints)})
}

// toHit has a client work until the failpoint is reached; a job that must wait
// for another attempt is one of two with the same target.
func (f *failing) toHit(t *testing.T, client *masterClient, name string, n int) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*recovered)
	defer cancel()
	began := time.Now()
	client.job(ctx, t, n, name == "master.wait")
	require.NoError(t, ctx.Err(), "a job did not end; %v", client.inStates())
	f.hit(t, name)
	require.Less(t, time.Since(began), 2*recovered)
}
