package transfer_test

import (
	"context"
	"io"
	"os"
	"sync/atomic"
	"testing"

	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

// crowd counts the content requests that are open at a time.
type crowd struct {
	direct
	open, most atomic.Int64
}

func (c *crowd) Content(ctx context.Context, off, length int64) (io.ReadCloser, error) {
	rc, err := c.direct.Content(ctx, off, length)
	n := c.open.Add(1)
	for most := c.most.Load(); n > most && !c.most.CompareAndSwap(most, n); most = c.most.Load() {
	}
	return &one{rc, c}, err
}

type one struct {
	io.ReadCloser
	c *crowd
}

func (o *one) Close() error {
	o.c.open.Add(-1)
	return o.ReadCloser.Close()
}

// TestParallelBoundsTheRequests: as many as were asked for, never more.
func TestParallelBoundsTheRequests(t *testing.T) {
	source := &crowd{direct: direct{export(t, content(7, 5*4*piece))}}
	m := transfer.Import{
		Source: source, Root: openRoot(t, t.TempDir()), Name: "f", Task: "t", Dir: t.TempDir(), Parallel: 1,
	}
	_, err := m.Run(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, source.most.Load())
	_, err = os.Stat(m.Root.Name() + "/f")
	require.NoError(t, err)
}
