package node_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"gantry/api"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

// TestPieces asks a node for parts and frames, as an importer does and as none
// would.
func TestPieces(t *testing.T) {
	w := newWorld(t, "", "alpha")
	alpha := w.all["alpha"].start()
	data := alpha.file("disks/vm1.img", 2*transfer.PieceSize+777, 1)
	copy(data[transfer.PieceSize:], strings.Repeat("x", 1<<20))
	alpha.write("alpha/disks/vm1.img", string(data), 0o644)
	export, _ := w.pair("vm1.img")
	alpha.follow("ann", export)
	ctx, ann := context.Background(), alpha.as("ann")

	rc, err := ann.Sub(ctx, export.ID, []int64{0, 2}, "")
	require.NoError(t, err)
	lines, err := io.ReadAll(rc)
	require.NoError(t, err)
	require.NoError(t, rc.Close())
	require.Equal(t, 4, strings.Count(string(lines), "\n"), "%.300s", lines)

	ranges := []transfer.Range{{At: 5, Len: 10}, {At: transfer.PieceSize, Len: 1 << 20}}
	for _, packed := range []bool{false, true} {
		rc, err = ann.Frames(ctx, export.ID, "", ranges, packed)
		require.NoError(t, err)
		got, err := io.ReadAll(transfer.NewFrameReader(rc, ranges))
		require.NoError(t, err)
		require.NoError(t, rc.Close())
		require.Equal(t, string(data[5:15])+strings.Repeat("x", 1<<20), string(got))
	}
	many := strings.TrimSuffix(strings.Repeat("0-1,", 65), ",")
	for path, want := range map[string]int{
		"/manifest?piece=0,1&sub=65536": 200,
		"/manifest?piece=0&sub=4096":    400,
		"/manifest?piece=0,1&rehash=1":  400,
		"/manifest?piece=&sub=65536":    400,
		"/manifest?sub=65536":           400,
		"/manifest?piece=1,0&sub=65536": 416,
		"/manifest?piece=3&sub=65536":   416,
		"/manifest?piece=" + strings.TrimSuffix(strings.Repeat("0,", 65), ",") + "&sub=65536": 400,
		"/pieces":                400,
		"/pieces?r=":             400,
		"/pieces?r=0-1,":         400,
		"/pieces?r=-1-1":         400,
		"/pieces?r=0-1&zstd=2":   400,
		"/pieces?r=" + many:      400,
		"/pieces?r=0-0":          416,
		"/pieces?r=8388608-9999": 416,
		"/pieces?r=0-20000000":   416,
		"/pieces?r=0-1":          200,
	} {
		require.Equal(t, want, alpha.ask("ann", "GET", "/tasks/"+export.ID+path, nil, "").status, path)
	}
	require.Equal(t, 404, alpha.ask("bob", "GET", "/tasks/"+export.ID+"/pieces?r=0-1", nil, "").status)
	require.Equal(t, api.TypeFrames, alpha.ask("ann", "GET", "/tasks/"+export.ID+"/pieces?r=0-1", nil, "").header.Get("Content-Type"))

	alpha.file("disks/vm1.img", 100, 2)
	require.Equal(t, "source_changed", alpha.ask("ann", "GET", fmt.Sprintf("/tasks/%s/pieces?r=0-1", export.ID), nil, "").problem.Code)
}
