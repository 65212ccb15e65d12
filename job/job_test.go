package job_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gantry/api"
	"gantry/client"
	"gantry/feedback"
	"gantry/job"

	"github.com/go-json-experiment/json"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestCopy(t *testing.T) {
	w := newWorld(t)
	w.alpha.before = func(r *http.Request) {
		// The job is on disk before the first request, and nobody else reads it.
		infos, err := w.store.List()
		assert.NoError(t, err)
		assert.Len(t, infos, 1)
		info, err := os.Stat(filepath.Join(w.dir, infos[0].ID, "job.json"))
		assert.NoError(t, err)
		assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	}
	w.beta.before = func(r *http.Request) { // the export exists when the import is started
		if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/tasks") {
			assert.Equal(t, 1, w.alpha.requests("POST tasks"))
		}
	}
	j, resumed, err := w.store.Begin(copySpec(), false)
	require.NoError(t, err)
	defer j.Close()
	require.False(t, resumed)
	final, err := w.driver.Run(t.Context(), j)
	require.NoError(t, err)
	require.Equal(t, api.Done, api.OutcomeOf(&final))
	require.Contains(t, string(final.Line), "b3:1") // the import's, not the export's

	// What the two nodes were asked fits together.
	var ex api.ExportArgs
	var im api.ImportArgs
	for _, task := range w.alpha.tasks {
		require.NoError(t, api.DecodeBytes(task.req.Args, &ex))
		require.Equal(t, im.Source.Task == "", true)
		im.Source.Task = task.req.ID
	}
	exportID := im.Source.Task
	for _, task := range w.beta.tasks {
		im = api.ImportArgs{}
		require.NoError(t, api.DecodeBytes(task.req.Args, &im))
	}
	require.Equal(t, "spiffe://demo/node/beta", ex.Reader.ID)
	require.Equal(t, exportID, im.Source.Task)
	require.Equal(t, "alpha", im.Source.Node)
	require.Equal(t, api.TicketSHA256(im.Source.Ticket), ex.Reader.TicketSHA256)

	// The feed holds both tasks' records and never the ticket.
	var text strings.Builder
	progressed := false
	require.NoError(t, j.Watch(t.Context(), 0, func(rec feedback.Record) error {
		text.Write(rec.Line)
		progressed = progressed || rec.Kind == feedback.KindProgress
		return nil
	}))
	require.Contains(t, text.String(), exportID)
	require.NotContains(t, text.String(), im.Source.Ticket)

	infos, err := w.store.List()
	require.NoError(t, err)
	require.Equal(t, api.Done, infos[0].Outcome)
	again, resumed, err := w.store.Begin(copySpec(), false)
	require.NoError(t, err)
	require.False(t, resumed) // an ended job is not taken up
	again.Close()
}

// leaveWhen returns a context that ends, as by a user who leaves, once ready.
func leaveWhen(t *testing.T, ready func() bool) context.Context {
	ctx, leave := context.WithCancelCause(t.Context())
	go func() {
		for !ready() && t.Context().Err() == nil {
			select {
			case <-time.After(time.Millisecond):
			case <-t.Context().Done():
			}
		}
		leave(job.ErrLeft)
	}()
	return ctx
}

func TestResumeGoesOnWithTheSameTasks(t *testing.T) {
	w := newWorld(t)
	release := make(chan struct{})
	w.beta.run[api.OpImport] = func(task *fakeTask) string {
		task.add(`"kind":"log","level":"info","text":"half"`)
		<-release
		return `"kind":"result","value":{"digest":"b3:1"}`
	}
	ctx := leaveWhen(t, func() bool { return strings.Contains(w.journal(), "half") })
	_, _, first, err := w.run(ctx, copySpec())
	require.Equal(t, job.ErrLeft, err)
	close(release)
	final, resumed, second, err := w.run(t.Context(), copySpec())
	require.NoError(t, err)
	require.True(t, resumed)
	require.Equal(t, first, second)
	require.Equal(t, api.Done, api.OutcomeOf(&final))
	require.Equal(t, 1, w.alpha.requests("POST tasks")-w.alpha.requests("POST tasks/"))
	require.Equal(t, 1, w.beta.requests("POST tasks")-w.beta.requests("POST tasks/"))
	require.Equal(t, 1, strings.Count(w.journal(), "half")) // each record once
}

// journal is the text of all jobs' feeds.
func (w *world) journal() string {
	var text strings.Builder
	paths, _ := filepath.Glob(filepath.Join(w.dir, "*", "feed"))
	for _, p := range paths {
		b, _ := os.ReadFile(p)
		text.Write(b)
	}
	return text.String()
}

func TestStartThatWasCutIsMadeOnce(t *testing.T) {
	w := newWorld(t)
	cuts := 0
	w.beta.start = func(http.ResponseWriter, *http.Request) bool {
		if cuts++; cuts == 1 {
			panic(http.ErrAbortHandler) // the node never saw it
		}
		return false
	}
	final, _, _, err := w.run(t.Context(), copySpec())
	require.NoError(t, err)
	require.Equal(t, api.Done, api.OutcomeOf(&final))
	require.Equal(t, 2, cuts)
	require.Len(t, w.beta.tasks, 1)
}

func TestRefusedExportStartsNoImport(t *testing.T) {
	w := newWorld(t)
	w.alpha.start = func(rw http.ResponseWriter, _ *http.Request) bool { w.alpha.problem(rw, api.Forbidden); return true }
	final, _, _, err := w.run(t.Context(), copySpec())
	require.NoError(t, err)
	require.Equal(t, api.Refused, api.OutcomeOf(&final))
	require.Contains(t, string(final.Line), "forbidden")
	require.Contains(t, string(final.Line), `"message":"alpha: no"`)
	require.Zero(t, w.beta.requests("POST"))
}

func TestFailedExportIsToldNotItsEcho(t *testing.T) {
	w := newWorld(t)
	w.alpha.run[api.OpExport] = func(*fakeTask) string {
		return `"kind":"error","code":"not_found","message":"there is no file a","retryable":false`
	}
	w.beta.run[api.OpImport] = func(*fakeTask) string {
		return `"kind":"error","code":"too_late","message":"the export has ended","retryable":false`
	}
	final, _, _, err := w.run(t.Context(), copySpec())
	require.NoError(t, err)
	require.Contains(t, string(final.Line), "alpha: there is no file a")
	require.Contains(t, string(final.Line), "not_found")
}

func TestFailedImportEndsTheExport(t *testing.T) {
	w := newWorld(t)
	w.beta.run[api.OpImport] = func(*fakeTask) string {
		return `"kind":"error","code":"exists","message":"it is there","retryable":false`
	}
	final, _, _, err := w.run(t.Context(), copySpec())
	require.NoError(t, err)
	require.Equal(t, api.Refused, api.OutcomeOf(&final))
	require.Contains(t, string(final.Line), "beta: it is there")
	require.Equal(t, 1, w.alpha.requests("DELETE"))
}

func TestUnknownStaysUnfinished(t *testing.T) {
	w := newWorld(t)
	lose := true
	w.beta.start = func(rw http.ResponseWriter, _ *http.Request) bool {
		if lose { // it may have arrived, and then the node has another folder
			w.beta.dirID = strings.Repeat("f", 32)
			panic(http.ErrAbortHandler)
		}
		return false
	}
	_, _, _, err := w.run(t.Context(), copySpec())
	_, unknown := errors.AsType[*client.UnknownError](err)
	require.True(t, unknown, "%v", err)
	infos, err := w.store.List()
	require.NoError(t, err)
	require.Empty(t, infos[0].Outcome)
	require.Zero(t, w.alpha.requests("DELETE")) // the import may be reading

	lose, w.beta.dirID = false, strings.Repeat("b", 32)
	final, resumed, _, err := w.run(t.Context(), copySpec())
	require.NoError(t, err)
	require.True(t, resumed)
	require.Equal(t, api.Done, api.OutcomeOf(&final))
}

// TestRefusedLaterIsUnknown: once a start may have arrived, a refusal to look
// says nothing about the task, also to the next process.
func TestRefusedLaterIsUnknown(t *testing.T) {
	w := newWorld(t)
	ctx, leave := context.WithCancelCause(t.Context())
	w.beta.start = func(http.ResponseWriter, *http.Request) bool {
		leave(job.ErrLeft)
		panic(http.ErrAbortHandler)
	}
	_, _, _, err := w.run(ctx, copySpec())
	require.Equal(t, job.ErrLeft, err)
	w.beta.refuseFeeds = true
	_, resumed, _, err := w.run(t.Context(), copySpec())
	require.True(t, resumed)
	_, unknown := errors.AsType[*client.UnknownError](err)
	require.True(t, unknown, "%v", err)
}

func TestCancel(t *testing.T) {
	w := newWorld(t)
	asked := make(chan struct{})
	w.driver.Cancel = asked
	until := w.alpha.run[api.OpExport] // it is cancelled
	w.beta.run[api.OpImport] = func(t *fakeTask) string {
		close(asked)
		return until(t)
	}
	final, _, _, err := w.run(t.Context(), copySpec())
	require.NoError(t, err)
	require.Equal(t, api.Cancelled, api.OutcomeOf(&final))
	require.NotZero(t, w.beta.requests("DELETE"))
	require.Equal(t, 1, w.alpha.requests("DELETE"))
}

func TestCancelBeforeItBeganAsksNobody(t *testing.T) {
	w := newWorld(t)
	asked := make(chan struct{})
	close(asked)
	w.driver.Cancel = asked
	final, _, _, err := w.run(t.Context(), copySpec())
	require.NoError(t, err)
	require.Equal(t, api.Cancelled, api.OutcomeOf(&final))
	require.Zero(t, w.alpha.requests("")+w.beta.requests(""))
}

func TestUnreachableSourceFails(t *testing.T) {
	w := newWorld(t)
	w.alpha.srv.Close()
	final, _, _, err := w.run(t.Context(), copySpec())
	require.NoError(t, err)
	require.Equal(t, api.Failed, api.OutcomeOf(&final))
	require.Contains(t, string(final.Line), "peer_unreachable")
}

func TestDigest(t *testing.T) {
	w := newWorld(t)
	final, _, _, err := w.run(t.Context(), job.Spec{Kind: job.Digest, Cluster: "demo", From: copySpec().From})
	require.NoError(t, err)
	var r api.DigestResult
	require.NoError(t, json.Unmarshal(final.Body.(*feedback.Result).Value, &r))
	require.Equal(t, "b3:1", r.Digest)
}
