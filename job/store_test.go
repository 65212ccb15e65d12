package job_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gantry/api"
	"gantry/feedback"
	"gantry/job"

	"github.com/stretchr/testify/require"
)

func TestOneProcessDrivesAJob(t *testing.T) {
	w := newWorld(t)
	j, _, err := w.store.Begin(copySpec(), false)
	require.NoError(t, err)
	_, _, err = w.store.Begin(copySpec(), false)
	require.ErrorIs(t, err, job.ErrDriven)
	_, err = w.store.Open(j.ID)
	require.ErrorIs(t, err, job.ErrDriven)
	fresh, resumed, err := w.store.Begin(copySpec(), true)
	require.NoError(t, err)
	require.False(t, resumed)
	require.NotEqual(t, j.ID, fresh.ID)
	require.NoError(t, fresh.Close())
	require.NoError(t, j.Close())
	again, err := w.store.Open(j.ID)
	require.NoError(t, err)
	require.NoError(t, again.Close())
}

func TestFind(t *testing.T) {
	w := newWorld(t)
	j, _, err := w.store.Begin(copySpec(), false)
	require.NoError(t, err)
	defer j.Close()
	for _, name := range []string{j.ID, j.Short(), j.ID[:20]} {
		info, err := w.store.Find(name)
		require.NoError(t, err)
		require.Equal(t, j.ID, info.ID)
	}
	for _, name := range []string{"", "nothing", "../jobs"} {
		_, err := w.store.Find(name)
		require.ErrorIs(t, err, job.ErrNotFound)
	}
	other, _, err := w.store.Begin(copySpec(), true)
	require.NoError(t, err)
	defer other.Close()
	_, err = w.store.Find(j.ID[:4])
	require.ErrorContains(t, err, "2 jobs")
}

// crashed drives a job to its end and then takes back what a crash at some
// moment would have left undone.
func TestCrashBetweenFeedAndJobFile(t *testing.T) {
	w := newWorld(t)
	j, _, err := w.store.Begin(copySpec(), false)
	require.NoError(t, err)
	path := filepath.Join(w.dir, j.ID, "job.json")
	before, err := os.ReadFile(path)
	require.NoError(t, err)
	_, err = w.driver.Run(t.Context(), j)
	require.NoError(t, err)
	require.NoError(t, j.Close())
	require.NoError(t, os.WriteFile(path, before, 0o600)) // the feed's final was on disk, job.json not

	j, resumed, err := w.store.Begin(copySpec(), false)
	require.NoError(t, err)
	require.True(t, resumed)
	defer j.Close()
	require.Equal(t, api.Done, j.Outcome)
	posts := w.beta.requests("POST")
	final, err := w.driver.Run(t.Context(), j)
	require.NoError(t, err)
	require.Equal(t, api.Done, api.OutcomeOf(&final))
	require.Equal(t, posts, w.beta.requests("POST")) // nothing is done again
}

func TestFoldersThatAreNoJobs(t *testing.T) {
	w := newWorld(t)
	never := filepath.Join(w.dir, api.NewID())
	require.NoError(t, os.Mkdir(never, 0o700)) // a crash before job.json
	require.NoError(t, os.WriteFile(filepath.Join(never, "feed"), []byte("half"), 0o600))
	foreign := filepath.Join(w.dir, "notes")
	require.NoError(t, os.Mkdir(foreign, 0o700))
	infos, err := w.store.List()
	require.NoError(t, err)
	require.Empty(t, infos)
	require.NoError(t, w.store.Sweep())
	require.NoDirExists(t, never)
	require.DirExists(t, foreign)
}

func TestSweepKeepsWhatIsYoungOrUnfinished(t *testing.T) {
	w := newWorld(t)
	_, _, ended, err := w.run(t.Context(), copySpec())
	require.NoError(t, err)
	j, _, err := w.store.Begin(copySpec(), false)
	require.NoError(t, err)
	require.NoError(t, j.Close())
	require.NoError(t, w.store.Sweep())
	require.DirExists(t, filepath.Join(w.dir, ended))
	w.store.Now = func() time.Time { return time.Now().Add(31 * 24 * time.Hour) }
	require.NoError(t, w.store.Sweep())
	require.NoDirExists(t, filepath.Join(w.dir, ended))
	require.DirExists(t, filepath.Join(w.dir, j.ID))
}

func TestDamagedAndNewerJobFiles(t *testing.T) {
	for name, tt := range map[string]struct{ old, new, err string }{
		"newer":         {`"v":1`, `"v":2,"more":true`, "newer gantry"},
		"cut":           {`}` + "\n", ``, "move the folder away"},
		"unknown field": {`"v":1`, `"v":1,"x":1`, "move the folder away"},
		"another's":     {`"id":"0`, `"id":"1`, "move the folder away"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			j, _, err := w.store.Begin(copySpec(), false)
			require.NoError(t, err)
			require.NoError(t, j.Close())
			path := filepath.Join(w.dir, j.ID, "job.json")
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Contains(t, string(b), tt.old)
			require.NoError(t, os.WriteFile(path, []byte(strings.Replace(string(b), tt.old, tt.new, 1)), 0o600))
			_, err = w.store.List()
			require.ErrorContains(t, err, tt.err)
		})
	}
}

// What cannot be read here says nothing about what the nodes have done.
func TestUnreadableFeedOfABegunJob(t *testing.T) {
	w := newWorld(t)
	for _, begun := range []bool{false, true} {
		j, _, err := w.store.Begin(copySpec(), true)
		require.NoError(t, err)
		if begun {
			ctx, cancel := context.WithCancelCause(t.Context())
			w.driver.Heard = func(string, feedback.Record) { cancel(job.ErrLeft) }
			_, err = w.driver.Run(ctx, j)
			require.ErrorIs(t, err, job.ErrLeft)
		}
		require.NoError(t, j.Close())
		feed := filepath.Join(w.dir, j.ID, "feed")
		require.NoError(t, os.RemoveAll(feed))
		require.NoError(t, os.Mkdir(feed, 0o700))
		_, err = w.store.Open(j.ID)
		require.ErrorContains(t, err, "opening job "+j.Short())
		require.Equal(t, begun, errors.Is(err, job.ErrBegun), "%v", err)
		_, err = w.store.Open(j.ID)
		require.NotErrorIs(t, err, job.ErrDriven, "its lock was kept")
	}
}
