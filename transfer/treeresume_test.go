package transfer_test

import (
	"context"
	"fmt"
	"testing"

	"gantry/api"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

// TestTreeResume: what a cut import of a tree brought is not sent again, whether
// its own task goes on or another one takes its stage over.
func TestTreeResume(t *testing.T) {
	s := &script{}
	for i := range 24 { // two batches of whole files, then pieces
		s.file(fmt.Sprintf("f%02d", i), string(content(uint64(i), 1<<20)))
	}
	s.bigFile("g.big", content(99, 10*piece))
	size := int64(len(s.content))
	half := func(t *testing.T, g treeTarget) (sent int64) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		src := &faulty{Source: s}
		src.content = func(k int, off, length int64) *fault {
			if src.bytes.Load() > size/2 {
				cancel()
				return &fault{refuse: context.Canceled}
			}
			return &fault{cut: 5 << 20} // so that it asks again
		}
		im := g.imp(src)
		im.RetryFor = 0
		_, err := im.Run(ctx)
		requireCode(t, api.CancelledBy, err)
		require.NoDirExists(t, g.at())
		return src.bytes.Load()
	}
	// Each of four workers may hold a request's bytes that are not in place yet.
	const inHand = 4 * piece
	t.Run("by the same task", func(t *testing.T) {
		g := newTree(t)
		sent := half(t, g)
		src := &faulty{Source: s}
		res, err := g.imp(src).Run(context.Background())
		require.NoError(t, err)
		require.Equal(t, s.digest(), res.Digest)
		require.LessOrEqual(t, src.bytes.Load(), size-sent+inHand)
		require.Equal(t, size, res.Bytes.Fetched, "of both starts")
		require.Equal(t, sent+src.bytes.Load(), res.Wire, "of both starts")
	})
	t.Run("by another task", func(t *testing.T) {
		g := newTree(t)
		sent := half(t, g)
		h := treeTarget{target: target{g.root, g.dir, t.TempDir()}}
		ok, err := transfer.TakeOver(g.task, h.task)
		require.NoError(t, err)
		require.True(t, ok)
		src := &faulty{Source: s}
		im := h.imp(src)
		im.Task = "other"
		res, err := im.Run(context.Background())
		require.NoError(t, err)
		require.LessOrEqual(t, src.bytes.Load(), size-sent+inHand)
		require.Equal(t, src.bytes.Load(), res.Wire)
		require.Equal(t, res.Wire, res.Bytes.Fetched)
		require.Equal(t, size-res.Wire, res.Bytes.Carried)
	})
}
