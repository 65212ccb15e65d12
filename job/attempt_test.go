package job_test

import (
	"context"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"gantry/api"
	"gantry/feedback"
	"gantry/job"

	"github.com/stretchr/testify/require"
)

// memory keeps a job nowhere but in its last saved form.
type memory struct{ saved api.Raw }

func (m *memory) Save(info *job.Info) error {
	m.saved = api.Encode(info)
	return nil
}

func (m *memory) Close() error { return nil }

// attempt makes one more attempt at spec in the same feed.
func attempt(t *testing.T, feed *feedback.Feed, spec job.Spec) (*job.Job, *memory) {
	t.Helper()
	info, err := job.NewInfo(spec)
	require.NoError(t, err)
	m := &memory{}
	return job.New(info, feed, m), m
}

func newFeed(t *testing.T) *feedback.Feed {
	t.Helper()
	feed, err := feedback.Create(filepath.Join(t.TempDir(), "feed"), feedback.Options{Job: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, feed.Close()) })
	return feed
}

// ended counts the tasks whose final record is in the feed.
func ended(t *testing.T, feed *feedback.Feed) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	for rec, err := range feed.Records(0) {
		require.NoError(t, err)
		if task, ok := rec.Body.(*feedback.Task); ok {
			inner, err := feedback.Decode(task.Record)
			require.NoError(t, err)
			out[task.Task] = out[task.Task] || inner.Kind.Final()
		}
	}
	return out
}

// Two attempts share a feed; between them it is proved that the first has ended,
// also its export, which nobody reads any more.
func TestTwoAttemptsInOneFeed(t *testing.T) {
	w := newWorld(t)
	feed := newFeed(t)
	var tries atomic.Int32
	w.beta.run[api.OpImport] = func(*fakeTask) string {
		if tries.Add(1) == 1 {
			return `"kind":"error","code":"io","message":"the disk is broken","retryable":true`
		}
		w.alpha.finishAll()
		return `"kind":"result","value":{"digest":"b3:1"}`
	}
	first, _ := attempt(t, feed, copySpec())
	value, wire, err := w.driver.Attempt(t.Context(), first)
	require.NoError(t, err)
	require.Nil(t, value)
	require.Equal(t, api.IO.Name, wire.Code)
	require.True(t, wire.Retryable)
	_, over := feed.Final()
	require.False(t, over, "an attempt must not end the job's feed")

	require.NoError(t, w.driver.Settle(t.Context(), first))
	for _, task := range first.Tasks {
		require.True(t, ended(t, feed)[task.Request.ID], "the %s of the first attempt may still run", task.Request.Op)
	}

	second, _ := attempt(t, feed, copySpec())
	value, wire, err = w.driver.Attempt(t.Context(), second)
	require.NoError(t, err)
	require.Nil(t, wire)
	require.Contains(t, string(value), "b3:1")
}

// That a node refused to start a task is kept: it proves that the task never
// began, and nobody asks again.
func TestRefusedStartIsKept(t *testing.T) {
	w := newWorld(t)
	feed := newFeed(t)
	w.beta.start = refuse(w.beta, api.Busy)
	j, kept := attempt(t, feed, copySpec())
	_, wire, err := w.driver.Attempt(t.Context(), j)
	require.NoError(t, err)
	require.Equal(t, api.Busy.Name, wire.Code)

	var info job.Info
	require.NoError(t, api.DecodeBytes(kept.saved, &info))
	require.True(t, info.Main().Sent)
	require.Equal(t, api.Busy.Name, info.Main().Refused.Code)
	asked := w.beta.requests("")
	again := job.New(info, feed, kept)
	_, wire, err = w.driver.Attempt(t.Context(), again)
	require.NoError(t, err)
	require.Equal(t, api.Busy.Name, wire.Code)
	require.NoError(t, w.driver.Settle(t.Context(), again))
	require.Equal(t, asked, w.beta.requests(""), "a node was asked again about a task that it refused")
}

// refuse answers starts with a code.
func refuse(f *fake, code *api.Code) func(http.ResponseWriter, *http.Request) bool {
	return func(rw http.ResponseWriter, _ *http.Request) bool {
		f.problem(rw, code)
		return true
	}
}

// An import that was refused decides the attempt, also for a later process that
// finds the export cancelled for it.
func TestRefusedImportOutlivesItsExport(t *testing.T) {
	w := newWorld(t)
	feed := newFeed(t)
	w.beta.start = refuse(w.beta, api.NoRoom)
	j, kept := attempt(t, feed, copySpec())
	_, _, err := w.driver.Attempt(t.Context(), j)
	require.NoError(t, err)
	require.NoError(t, w.driver.Settle(t.Context(), j))
	var info job.Info
	require.NoError(t, api.DecodeBytes(kept.saved, &info))
	info.Main().Sent = false // it was refused before anything was sent to it
	_, wire, err := w.driver.Attempt(t.Context(), job.New(info, feed, kept))
	require.NoError(t, err)
	require.Equal(t, api.NoRoom.Name, wire.Code, "not that the export was cancelled")
}

// A comparison that is left is undecided, and made again with the same tasks:
// nobody has cancelled it.
func TestComparisonThatWasLeft(t *testing.T) {
	w := newWorld(t)
	w.alpha.serve(9 << 20)
	w.beta.serve(9 << 20)
	w.beta.run[api.OpExport] = w.alpha.run[api.OpExport]
	feed, spec := newFeed(t), copySpec()
	spec.Kind, spec.Mode = job.Verify, ""
	first, kept := attempt(t, feed, spec)
	ctx, leave := context.WithCancelCause(t.Context())
	w.alpha.before = func(r *http.Request) {
		if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/tasks") {
			leave(job.ErrLeft)
		}
	}
	_, wire, err := w.driver.Attempt(ctx, first)
	require.Nil(t, wire)
	require.ErrorIs(t, err, job.ErrLeft)
	require.Zero(t, w.alpha.requests("DELETE"))
	require.Zero(t, w.beta.requests("DELETE"))

	var info job.Info
	require.NoError(t, api.DecodeBytes(kept.saved, &info))
	value, wire, err := w.driver.Attempt(t.Context(), job.New(info, feed, kept))
	require.NoError(t, err)
	require.Nil(t, wire)
	require.Contains(t, string(value), `"equal":true`)
}
