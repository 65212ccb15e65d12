package master_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gantry/api"
	"gantry/config"
	"gantry/job"
	"gantry/queue"

	"github.com/stretchr/testify/require"
)

// due has jobs that wait for their time begin when the master is started next.
func (w *world) due(ids ...string) {
	w.t.Helper()
	store, err := queue.Open(filepath.Join(w.dir, "state", config.StoreFile), queue.Options{})
	require.NoError(w.t, err)
	for _, id := range ids {
		_, err := store.Update(context.Background(), id, func(j *queue.Job) error {
			j.NotBefore = time.Now()
			return nil
		})
		require.NoError(w.t, err)
	}
	require.NoError(w.t, store.Close())
}

// What a job may do is judged when it is taken and again when it begins: it may
// have waited for a year, and the master was started with another configuration.
func TestJobsAreJudgedAgain(t *testing.T) {
	w := newWorld(t, "")
	// The nodes do not run: a job that may begin stays open.
	w.start()
	spec := func(node, resource string) job.Spec {
		return job.Spec{Kind: job.Digest, From: job.Place{Node: node, File: api.File{Resource: resource, Path: "a"}}}
	}
	take := func(who, body string) string {
		r := w.ask(who, "POST", "/jobs", jsonType, body)
		require.Equal(t, 201, r.status, r.body)
		return into[api.Job](t, r).ID
	}
	withdrawn := take("ann", later(spec("alpha", "disks")))
	kept := take("root", later(spec("alpha", "disks")))
	own := take(self, later(spec("alpha", "disks")))
	gone := take("root", later(spec("beta", "disks")))
	limited := take("root", strings.Replace(later(spec("alpha", "disks")), `{"spec"`, `{"limits":["uplink"],"spec"`, 1))
	w.halt()
	w.due(withdrawn, kept, own, gone, limited)
	text := w.read("master.toml")
	text = strings.Replace(text, `may = ["status", "digest", "export"`, `may = ["status", "export"`, 1)
	text = strings.Replace(text, "[[limit]]\nname = \"uplink\"\njobs = 1\n", "", 1)
	w.write("master.toml", text)
	list := w.read("cluster.toml")
	w.write("cluster.toml", strings.Replace(list, fmt.Sprintf("[[node]]\nname = \"beta\"\nurl = \"https://%s\"\n", w.addrs["beta"]), "", 1))
	w.start()
	state := func(id string) (j api.Job) {
		require.Eventually(t, func() bool {
			j = into[api.Job](t, w.ask("root", "GET", "/jobs/"+id, nil, ""))
			return j.State != api.JobQueued
		}, 20*time.Second, 5*time.Millisecond)
		return j
	}
	t.Run("F105 the grant was withdrawn after the check", func(t *testing.T) {
		j := state(withdrawn)
		require.Equal(t, api.JobRefused, j.State)
		require.Contains(t, string(j.Final), `"code":"forbidden"`)
		require.Zero(t, j.Attempt)
		audit := w.ask("root", "GET", "/audit?limit=1000", nil, "").body
		require.Contains(t, audit, `"what":"begin"`)
	})
	t.Run("F105 the node was removed after the check", func(t *testing.T) {
		j := state(gone)
		require.Equal(t, api.JobRefused, j.State)
		require.Contains(t, string(j.Final), `"code":"bad_spec"`)
	})
	t.Run("F105 the limit was removed after the check", func(t *testing.T) {
		require.False(t, state(limited).State.Final())
	})
	require.False(t, state(kept).State.Final())
	require.False(t, state(own).State.Final(), "the master's own user needs no grant")
}
