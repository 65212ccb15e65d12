package transfer_test

import (
	"context"
	"io"
	"strings"
	"testing"

	"gantry/api"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

// treeSource has the manifest of a tree, after a heartbeat.
type treeSource struct{ transfer.Source }

func (treeSource) Window(context.Context, int64, int64, int64) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader("{\"kind\":\"heartbeat\"}\n{\"kind\":\"tree\",\"v\":1}\n")), nil
}

func TestFileFromTreeRefused(t *testing.T) {
	g := newTarget(t)
	_, err := g.imp(treeSource{}).Run(t.Context())
	requireCode(t, api.BadRequest, err)
	require.ErrorContains(t, err, "tree")
	require.NoFileExists(t, g.path())
}
