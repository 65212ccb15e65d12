package node_test

import (
	"os"
	"path/filepath"
	"testing"

	"gantry/api"
	"gantry/pki"

	"github.com/stretchr/testify/require"
)

// pair starts an export on alpha for beta and returns the import's arguments.
func (w *world) pair(path string) (export *api.TaskRequest, args api.ImportArgs) {
	ticket := api.NewTicket()
	export = newRequest(api.OpExport, api.ExportArgs{
		File:   api.File{Resource: "disks", Path: path},
		Reader: &api.Reader{ID: pki.ID{Cluster: "demo", Role: pki.RoleNode, Name: "beta"}.String(), TicketSHA256: api.TicketSHA256(ticket)},
	})
	return export, api.ImportArgs{
		File:   api.File{Resource: "disks", Path: path},
		Source: api.Source{Node: "alpha", Task: export.ID, Ticket: ticket},
	}
}

func TestCopyBetweenTwoNodes(t *testing.T) {
	w := newWorld(t, "", "alpha", "beta")
	alpha, beta := w.all["alpha"].start(), w.all["beta"].start()
	data := alpha.file("disks/vm1.img", 13<<20+777, 1)

	export, args := w.pair("vm1.img")
	exported := alpha.follow("ann", export)
	rec, err := beta.run("ann", newRequest(api.OpImport, args))
	result := resultOf[api.ImportResult](t, rec, err)

	require.Equal(t, digest(data), result.Digest)
	require.Equal(t, int64(len(data)), result.Size)
	require.Equal(t, api.TargetCreated, result.Target)
	require.Equal(t, result.Digest, resultOf[api.ExportResult](t, <-exported, nil).Digest)
	copied, err := os.ReadFile(filepath.Join(beta.dir, "disks/vm1.img"))
	require.NoError(t, err)
	require.Equal(t, data, copied)
	info, err := os.Stat(filepath.Join(beta.dir, "disks/vm1.img"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o640), info.Mode())
}
