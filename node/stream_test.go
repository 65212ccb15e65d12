package node

import (
	"context"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"gantry/api"
	"gantry/config"
	"gantry/feedback"
	"gantry/internal/serve"

	"github.com/stretchr/testify/require"
)

// A task that was accepted, and whose journal broke before the first line of
// its feed went out, goes on after the node's restart: the answer to its start
// must not be one that means that it never began.
func TestBrokenFeedIsNoRefusal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "feed")
	f, err := feedback.Create(path, feedback.Options{})
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.Mkdir(path, 0o700)) // nothing can be appended to that
	require.Error(t, f.State(api.StateRunning, nil))

	n := &Node{cfg: &config.Node{Name: "alpha"}, folder: &folder{id: "one"}, feeds: context.Background()}
	x := &task{node: n, id: api.NewID(), feed: f, users: 1}
	err = n.stream(httptest.NewRecorder(), httptest.NewRequest("POST", "/tasks", nil), x, 0)
	require.Equal(t, api.Draining.Name, serve.Wire(err).Code)
	require.ErrorContains(t, err, "is a directory", "the log must have the reason")
}
