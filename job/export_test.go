package job_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gantry/api"
	"gantry/feedback"
	"gantry/job"
	"gantry/transfer"

	"github.com/go-json-experiment/json"
	"github.com/stretchr/testify/require"
)

func exportSpec(local string) job.Spec {
	return job.Spec{Kind: job.Export, Cluster: "demo", Mode: api.ModeCreate, From: copySpec().From, Local: local}
}

func imported(t *testing.T, final feedback.Record) (r api.ImportResult) {
	t.Helper()
	body, ok := final.Body.(*feedback.Result)
	require.True(t, ok, "%s", final.Line)
	require.NoError(t, json.Unmarshal(body.Value, &r))
	return r
}

const fileSize = 9*transfer.PieceSize + 12345

func TestExportToAFile(t *testing.T) {
	w := newWorld(t)
	data := w.alpha.serve(fileSize)
	dir := t.TempDir()
	target := filepath.Join(dir, "here")
	final, _, _, err := w.run(t.Context(), exportSpec(target))
	require.NoError(t, err)
	r := imported(t, final)
	got, err := os.ReadFile(target)
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got))
	require.EqualValues(t, fileSize, r.Size)
	require.EqualValues(t, transfer.PieceSize, r.Bytes.Hole)
	info, err := os.Stat(target)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1) // no folder of stages stays

	// The same content is there already.
	final, _, _, err = w.run(t.Context(), exportSpec(target))
	require.NoError(t, err)
	require.Equal(t, api.TargetThere, imported(t, final).Target)

	// Other content is refused without --replace, and replaced with it.
	require.NoError(t, os.WriteFile(target, []byte("old"), 0o600))
	final, _, _, err = w.run(t.Context(), exportSpec(target))
	require.NoError(t, err)
	require.Equal(t, api.Refused, api.OutcomeOf(&final))
	require.Contains(t, string(final.Line), "--replace")
	old, err := os.ReadFile(target)
	require.NoError(t, err)
	require.Equal(t, "old", string(old))
	spec := exportSpec(target)
	spec.Mode = api.ModeReplace
	final, _, _, err = w.run(t.Context(), spec)
	require.NoError(t, err)
	require.Equal(t, api.TargetReplaced, imported(t, final).Target)
}

func TestExportResumesAfterLeaving(t *testing.T) {
	w := newWorld(t)
	data := w.alpha.serve(fileSize)
	target := filepath.Join(t.TempDir(), "here")
	ctx, leave := context.WithCancel(t.Context())
	w.alpha.tamper = func(what string, b []byte) []byte {
		if what == "content" {
			leave()
		}
		return b
	}
	_, _, _, err := w.run(ctx, exportSpec(target))
	require.Equal(t, context.Canceled, err)
	require.NoFileExists(t, target)
	require.Zero(t, w.alpha.requests("DELETE")) // it is left, not ended
	final, resumed, _, err := w.run(t.Context(), exportSpec(target))
	require.NoError(t, err)
	require.True(t, resumed)
	imported(t, final)
	got, err := os.ReadFile(target)
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got))
	require.Len(t, w.alpha.tasks, 1) // one task, both times
}

func TestExportToStdout(t *testing.T) {
	for _, size := range []int64{0, 1, transfer.PieceSize, transfer.PieceSize + 1, fileSize} {
		w := newWorld(t)
		data := w.alpha.serve(size)
		final, _, _, err := w.run(t.Context(), exportSpec(job.Stdout))
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, w.out.Bytes()), "size %d", size)
		r := imported(t, final)
		require.Equal(t, size, r.Size)
		require.Equal(t, w.alpha.file.Digest(), r.Digest)
		require.Equal(t, size, r.Bytes.Fetched+r.Bytes.Hole)
	}
}

// TestStdoutWritesProvedBytesOnly: whatever arrives wrong, what is written is a
// prefix of the source, and only a complete file is done.
func TestStdoutWritesProvedBytesOnly(t *testing.T) {
	flip := func(b []byte) []byte { b = bytes.Clone(b); b[len(b)/2] ^= 1; return b }
	tests := []struct {
		name    string
		tamper  func(n int, what string, b []byte) []byte
		outcome api.Outcome
		code    string
	}{
		{"a piece is wrong once", func(n int, what string, b []byte) []byte {
			if what == "content" && n == 1 {
				return flip(b)
			}
			return b
		}, api.Done, ""},
		{"a piece stays wrong", func(n int, what string, b []byte) []byte {
			if what == "content" {
				return flip(b)
			}
			return b
		}, api.Failed, "corrupt_piece"},
		{"the manifest lies about the whole", func(n int, what string, b []byte) []byte {
			if what == "manifest" {
				return regexp.MustCompile(`"digest":"b3:[0-9a-f]{64}"`).ReplaceAll(b, []byte(`"digest":"b3:`+strings.Repeat("0", 64)+`"`))
			}
			return b
		}, api.Failed, "bad_manifest"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			data := w.alpha.serve(fileSize)
			n := 0
			w.alpha.tamper = func(what string, b []byte) []byte {
				if what == "content" {
					n++
				}
				return tt.tamper(n, what, b)
			}
			final, _, _, err := w.run(t.Context(), exportSpec(job.Stdout))
			require.NoError(t, err)
			require.Equal(t, tt.outcome, api.OutcomeOf(&final), "%s", final.Line)
			require.True(t, bytes.HasPrefix(data, w.out.Bytes()))
			if tt.outcome == api.Done {
				require.Equal(t, len(data), w.out.Len())
				return
			}
			require.Contains(t, string(final.Line), tt.code)
			require.Equal(t, 1, w.alpha.requests("DELETE")) // nobody reads the export any more
		})
	}
}

func TestExpectedDigest(t *testing.T) {
	w := newWorld(t)
	w.alpha.serve(transfer.PieceSize)
	for _, local := range []string{job.Stdout, filepath.Join(t.TempDir(), "here")} {
		spec := exportSpec(local)
		spec.Expect = "b3:0000000000000000000000000000000000000000000000000000000000000000"
		final, _, _, err := w.run(t.Context(), spec)
		require.NoError(t, err)
		require.Contains(t, string(final.Line), "digest_mismatch")
		if local != job.Stdout {
			require.NoFileExists(t, local)
		}
	}
}
