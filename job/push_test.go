package job_test

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"gantry/api"
	"gantry/job"

	"github.com/stretchr/testify/require"
)

// reaches lets a node answer what it finds of its neighbour.
func (f *fake) reaches(outcome string) {
	f.reach = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", api.TypeJSON)
		w.Write(api.Encode(api.Reach{Node: r.PathValue("node"), Outcome: outcome}))
	}
}

// TestWayOfACopy: both ends are asked once per job, and what they say decides.
func TestWayOfACopy(t *testing.T) {
	for _, tt := range []struct {
		name, beta, alpha, flag string // what they find, and what was asked for
		way                     string
		asked                   int
	}{
		{"the target can", api.ReachOK, api.ReachRefused, "", job.Pull, 1},
		{"only the source can", api.ReachUnreachable, api.ReachOK, "", job.Push, 2},
		{"the target does not know the source", api.ReachUnknown, api.ReachOK, "", job.Push, 2},
		{"neither can", api.ReachUnreachable, api.ReachPin, "", "", 2},
		{"asked to push", api.ReachOK, api.ReachUnreachable, job.Push, job.Push, 0},
		{"asked to pull", api.ReachUnreachable, api.ReachOK, job.Pull, job.Pull, 0},
		{"an older node", "", "", "", job.Pull, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			if tt.beta != "" {
				w.beta.reaches(tt.beta)
				w.alpha.reaches(tt.alpha)
			}
			if tt.way == job.Push {
				w.alpha.run[api.OpExport] = func(*fakeTask) string { return `"kind":"result","value":{"digest":"b3:1"}` }
			}
			spec := copySpec()
			spec.Way = tt.flag
			final, _, id, err := w.run(t.Context(), spec)
			require.NoError(t, err)
			require.Equal(t, tt.asked, w.alpha.requests("GET reach")+w.beta.requests("GET reach"))
			info, err := w.store.Find(id)
			require.NoError(t, err)
			require.Equal(t, tt.way, info.Way)
			if tt.way == "" {
				require.Equal(t, api.Failed, api.OutcomeOf(&final))
				require.Contains(t, string(final.Line), "unreachable_both")
				require.Contains(t, string(final.Line), "beta finds alpha unreachable, and alpha finds beta pin_mismatch")
				require.Zero(t, w.alpha.requests("POST")+w.beta.requests("POST"), "nothing was started")
				return
			}
			require.Equal(t, api.Done, api.OutcomeOf(&final))
			var args api.ImportArgs
			require.NoError(t, api.DecodeBytes(info.Tasks["import"].Request.Args, &args))
			require.Equal(t, tt.way == job.Push, args.Push != nil)
			require.Equal(t, tt.way == job.Pull, args.Source.Task != "")
		})
	}
}

// TestWayIsKept: a job that was begun is not asked about again.
func TestWayIsKept(t *testing.T) {
	w := newWorld(t)
	w.beta.reaches(api.ReachUnreachable)
	w.alpha.reaches(api.ReachOK)
	waiting, goOn := make(chan struct{}, 1), make(chan struct{})
	w.beta.run[api.OpImport] = func(*fakeTask) string {
		waiting <- struct{}{}
		<-goOn
		w.alpha.finishAll()
		return `"kind":"result","value":{"digest":"b3:1","size":10,"target":"created"}`
	}
	ctx, leave := context.WithCancelCause(t.Context())
	go func() {
		<-waiting
		leave(job.ErrLeft)
	}()
	_, _, _, err := w.run(ctx, copySpec())
	require.ErrorIs(t, err, job.ErrLeft)
	close(goOn)
	w.beta.reaches(api.ReachOK)
	final, resumed, _, err := w.run(t.Context(), copySpec())
	require.NoError(t, err)
	require.True(t, resumed)
	require.Equal(t, api.Done, api.OutcomeOf(&final))
	require.Equal(t, 1, w.alpha.requests("GET reach"))
}

// TestFailedExportEndsItsPush: where nobody pushes any more, the import does not
// wait for an hour, and what ended the export is what the user reads.
func TestFailedExportEndsItsPush(t *testing.T) {
	w := newWorld(t)
	w.beta.run[api.OpImport] = func(t *fakeTask) string {
		<-t.cancelled
		return `"kind":"error","code":"cancelled","message":"cancelled","retryable":false`
	}
	w.alpha.run[api.OpExport] = func(*fakeTask) string {
		return `"kind":"error","code":"denied","message":"may not read","retryable":false`
	}
	spec := copySpec()
	spec.Way = job.Push
	final, _, _, err := w.run(t.Context(), spec)
	require.NoError(t, err)
	require.Contains(t, string(final.Line), "alpha: may not read")
	require.Equal(t, 1, w.beta.requests("DELETE"))
}

// TestImportOfWhatIsNotThere starts nothing.
func TestImportOfWhatIsNotThere(t *testing.T) {
	w := newWorld(t)
	spec := job.Spec{Kind: job.Import, Cluster: "demo", Local: filepath.Join(t.TempDir(), "a"), To: copySpec().To}
	final, _, _, err := w.run(t.Context(), spec)
	require.NoError(t, err)
	require.Contains(t, string(final.Line), "not_found")
	require.Zero(t, w.beta.requests("POST"))
}

// leftImport is an import of a local file that was left while it waited for its
// bytes.
func leftImport(t *testing.T, w *world) (spec job.Spec, id string) {
	path := filepath.Join(t.TempDir(), "a")
	require.NoError(t, os.WriteFile(path, []byte("one"), 0o600))
	spec = job.Spec{Kind: job.Import, Cluster: "demo", Local: path, To: copySpec().To}
	ctx, leave := context.WithCancelCause(t.Context())
	w.beta.run[api.OpImport] = func(t *fakeTask) string {
		leave(job.ErrLeft)
		<-t.cancelled
		return `"kind":"error","code":"cancelled","message":"cancelled","retryable":false`
	}
	_, _, id, err := w.run(ctx, spec)
	require.ErrorIs(t, err, job.ErrLeft)
	return spec, id
}

// TestImportOfAChangedFile: a job that is taken up again finds another file; the
// import ends with it.
func TestImportOfAChangedFile(t *testing.T) {
	w := newWorld(t)
	spec, id := leftImport(t, w)
	require.NoError(t, os.Remove(spec.Local))
	require.NoError(t, os.WriteFile(spec.Local, []byte("two!"), 0o600))
	final, resumed, again, err := w.run(t.Context(), spec)
	require.NoError(t, err)
	require.True(t, resumed)
	require.Equal(t, id, again)
	require.Contains(t, string(final.Line), "source_changed")
	require.Equal(t, 1, w.beta.requests("DELETE"), "nobody can push it any more")
}

// TestCancelOfAnImport needs its file no more.
func TestCancelOfAnImport(t *testing.T) {
	w := newWorld(t)
	spec, _ := leftImport(t, w)
	require.NoError(t, os.Remove(spec.Local))
	now := make(chan struct{})
	close(now)
	w.driver.Cancel = now
	final, resumed, _, err := w.run(t.Context(), spec)
	require.NoError(t, err)
	require.True(t, resumed)
	require.Equal(t, api.Cancelled, api.OutcomeOf(&final), "%s", final.Line)
}
