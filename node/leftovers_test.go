package node_test

import (
	"os"
	"path/filepath"
	"testing"

	"gantry/api"

	"github.com/stretchr/testify/require"
)

// A process that is killed in the middle of a durable write leaves its
// temporary file. One of a task holds a ticket.
func TestStartRemovesTemporaryFiles(t *testing.T) {
	w := newWorld(t, "", "alpha")
	alpha := w.all["alpha"].start()
	alpha.file("disks/a", 10, 1)
	req := newRequest(api.OpDigest, api.DigestArgs{File: api.File{Resource: "disks", Path: "a"}})
	rec, err := alpha.run("ann", req)
	resultOf[api.DigestResult](t, rec, err)
	alpha.halt()
	state := filepath.Join(alpha.dir, "state")
	task := filepath.Join(state, "tasks", req.ID)
	left := []string{
		filepath.Join(state, ".dir.json.1"), filepath.Join(state, ".floor.json.22"),
		filepath.Join(task, ".task.json.333"), filepath.Join(task, ".feed.4444"), filepath.Join(alpha.dir, ".crl.pem.55555"),
	}
	strange := filepath.Join(task, ".notes.1")
	for _, path := range append(left, strange) {
		require.NoError(t, os.WriteFile(path, []byte("half"), 0o600))
	}
	alpha.start()
	for _, path := range left {
		require.NoFileExists(t, path)
	}
	require.FileExists(t, strange, "not ours to remove")
	require.Equal(t, 200, alpha.ask("ann", "GET", "/tasks/"+req.ID, nil, "").status)
}
