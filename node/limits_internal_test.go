package node

import (
	"testing"

	"gantry/api"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

// Which limits bind a task: its own, the peer's, the node's.
func TestLimitsOfATask(t *testing.T) {
	n := &Node{folder: &folder{}, limit: transfer.NewLimit(50 << 20), peerLimits: map[string]*transfer.Limit{"beta": transfer.NewLimit(10 << 20)}}
	file := api.File{Resource: "disks", Path: "a"}
	reader := func(id string) *exportOp {
		return &exportOp{api.ExportArgs{File: file, Reader: &api.Reader{ID: id}, Bandwidth: 20 << 20}}
	}
	for name, row := range map[string]struct {
		op   operation
		want int64
	}{
		"an export to a peer with a limit":            {reader("spiffe://demo/node/beta"), 10 << 20},
		"an export to another node":                   {reader("spiffe://demo/node/gamma"), 20 << 20},
		"an export to an operator called as the peer": {reader("spiffe://demo/operator/beta"), 20 << 20},
		"an export to its creator":                    {&exportOp{api.ExportArgs{File: file}}, 50 << 20},
		"an import from a peer with a limit":          {&importOp{api.ImportArgs{File: file, Source: api.Source{Node: "beta"}}}, 10 << 20},
		"an import with a stricter limit":             {&importOp{api.ImportArgs{File: file, Source: api.Source{Node: "beta"}, Bandwidth: 1 << 20}}, 1 << 20},
		"a digest":                                    {&digestOp{}, 50 << 20},
	} {
		task := n.newTask(api.NewID(), "", "")
		task.bind(row.op)
		require.Equal(t, row.want, task.limits(row.op).Rate(), name)
	}
	task := n.newTask(api.NewID(), "", "")
	later := int64(0)
	task.file.Limit = &later
	op := reader("spiffe://demo/node/gamma")
	task.bind(op)
	require.EqualValues(t, 50<<20, task.limits(op).Rate(), "taken away by a PUT before the restart")
}
