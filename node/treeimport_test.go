package node_test

import (
	"os"
	"path/filepath"
	"testing"

	"gantry/api"
	"gantry/feedback"

	"github.com/stretchr/testify/require"
)

// copyTree copies the root of home of alpha to path in home of beta.
func (w *world) copyTree(path string, change func(*api.ImportArgs)) (feedback.Record, error) {
	w.t.Helper()
	ticket := api.NewTicket()
	export := exportOf("home", "")
	export.Args = api.Encode(api.ExportArgs{
		File:   api.File{Resource: "home"},
		Reader: &api.Reader{ID: "spiffe://demo/node/beta", TicketSHA256: api.TicketSHA256(ticket)},
	})
	w.all["alpha"].follow("ann", export)
	args := api.ImportArgs{File: api.File{Resource: "home", Path: path}, Source: api.Source{Node: "alpha", Task: export.ID, Ticket: ticket}}
	if change != nil {
		change(&args)
	}
	return w.all["beta"].run("ann", &api.TaskRequest{ID: api.NewID(), Op: api.OpImport, Args: api.Encode(args)})
}

// TestTreeImport copies a tree from node to node: new, unchanged, changed with
// what is extra deleted, and to a resource's root.
func TestTreeImport(t *testing.T) {
	w := newWorld(t, "", "alpha", "beta")
	alpha, beta := w.all["alpha"], w.all["beta"]
	from, to := alpha.trees(""), beta.trees("writable = true\nspecial = \"refuse\"\n")
	alpha.write("alpha/home/ann/mail/1", "first", 0o600)
	alpha.write("alpha/home/zoe", "second", 0o644)
	require.NoError(t, os.Symlink("nowhere", filepath.Join(from, "link")))
	alpha.start()
	beta.start()
	result := func(rec feedback.Record, err error) (res api.ImportResult) {
		t.Helper()
		require.NoError(t, err)
		body, ok := rec.Body.(*feedback.Result)
		require.True(t, ok, "%s", rec.Line)
		require.NoError(t, api.DecodeBytes(body.Value, &res))
		return res
	}
	res := result(w.copyTree("copy", nil))
	require.Equal(t, api.TargetCreated, res.Target)
	require.Equal(t, &api.Entries{Files: 2, Dirs: 2, Symlinks: 1}, res.Entries)
	text, err := os.ReadFile(filepath.Join(to, "copy/ann/mail/1"))
	require.NoError(t, err)
	require.Equal(t, "first", string(text))

	res = result(w.copyTree("copy", func(a *api.ImportArgs) { a.Mode = api.ModeUpdate }))
	require.Equal(t, api.TargetThere, res.Target)
	require.NoError(t, os.WriteFile(filepath.Join(to, "copy/ann/extra"), nil, 0o600))
	res = result(w.copyTree("copy", func(a *api.ImportArgs) { a.Mode, a.Extraneous, a.DryRun = api.ModeReplace, api.ExtraneousDelete, true }))
	require.True(t, res.DryRun)
	require.FileExists(t, filepath.Join(to, "copy/ann/extra"))
	res = result(w.copyTree("copy", func(a *api.ImportArgs) { a.Mode, a.Extraneous = api.ModeReplace, api.ExtraneousDelete }))
	require.EqualValues(t, 1, res.Entries.Deleted)
	require.NoFileExists(t, filepath.Join(to, "copy/ann/extra"))

	res = result(w.copyTree("", func(a *api.ImportArgs) { a.Mode = api.ModeUpdate }))
	require.EqualValues(t, 1, res.Entries.Extraneous-3-2, "copy, and what is in it")
	require.FileExists(t, filepath.Join(to, "zoe"))
}

// TestTreeImportIncomplete: a tree with parts missing is not done, and its result
// is told.
func TestTreeImportIncomplete(t *testing.T) {
	w := newWorld(t, "", "alpha", "beta")
	alpha, beta := w.all["alpha"], w.all["beta"]
	from, to := alpha.trees(""), beta.trees("writable = true\n")
	alpha.write("alpha/home/good", "first", 0o600)
	require.NoError(t, os.WriteFile(filepath.Join(from, "bad\nname"), nil, 0o600))
	alpha.start()
	beta.start()
	rec, err := w.copyTree("copy", nil)
	require.NoError(t, err)
	require.Equal(t, api.Incomplete.Name, codeOf(t, rec, nil))
	require.FileExists(t, filepath.Join(to, "copy/good"))
	var res api.ImportResult
	require.NoError(t, api.DecodeBytes(rec.Body.(*feedback.Error).Detail, &res))
	require.EqualValues(t, 1, res.Entries.Skipped)
}
