package transfer_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"gantry/api"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

// TestResume: what a cut run wrote is not sent again, and a stage that is not
// the recorded file is not used.
func TestResume(t *testing.T) {
	data := content(9, 60<<20)
	copy(data[20<<20:28<<20], make([]byte, 8<<20))
	half := func(t *testing.T, g target) {
		ctx, cancel := context.WithCancel(context.Background())
		src := &faulty{Source: direct{export(t, data)}}
		src.content = func(k int, off, length int64) *fault {
			// Four connections hold at most 16 MiB that are not proved yet.
			return &fault{flip: func([]byte, int64) {
				if src.bytes.Load() > 30<<20 {
					cancel()
				}
			}}
		}
		_, err := g.imp(src).Run(ctx)
		requireCode(t, api.CancelledBy, err)
		require.NoFileExists(t, g.path())
	}
	t.Run("from the map", func(t *testing.T) {
		g := newTarget(t)
		half(t, g)
		res, err := g.imp(direct{export(t, data)}).Run(context.Background())
		require.NoError(t, err)
		g.holds(t, data)
		require.EqualValues(t, 52<<20, res.Bytes.Fetched)
		require.EqualValues(t, 8<<20, res.Bytes.Hole)
		require.Less(t, res.Wire, int64(52<<20+16<<20+1))
	})
	t.Run("without a map the stage is hashed", func(t *testing.T) {
		g := newTarget(t)
		half(t, g)
		require.NoError(t, os.Remove(filepath.Join(g.task, transfer.PieceMap)))
		src := &faulty{Source: direct{export(t, data)}}
		_, err := g.imp(src).Run(context.Background())
		require.NoError(t, err)
		g.holds(t, data)
		require.Less(t, src.bytes.Load(), int64(52<<20))
	})
	t.Run("a byte of the stage changed, no map", func(t *testing.T) {
		g := newTarget(t)
		half(t, g)
		require.NoError(t, os.Remove(filepath.Join(g.task, transfer.PieceMap)))
		f, err := os.OpenFile(filepath.Join(g.dir, transfer.StageDir, "task.stage"), os.O_RDWR, 0)
		require.NoError(t, err)
		for off := int64(100); off < 60<<20; off += piece {
			_, err = f.WriteAt([]byte{1, 2, 3}, off)
			require.NoError(t, err)
		}
		require.NoError(t, f.Close())
		_, err = g.imp(direct{export(t, data)}).Run(context.Background())
		require.NoError(t, err)
		g.holds(t, data)
	})
	t.Run("another source", func(t *testing.T) {
		g := newTarget(t)
		half(t, g)
		other := content(10, 60<<20)
		copy(other[:8<<20], make([]byte, 8<<20)) // zero where the stage has data
		_, err := g.imp(direct{export(t, other)}).Run(context.Background())
		require.NoError(t, err)
		g.holds(t, other)
	})
	t.Run("another source, given up, and the first again", func(t *testing.T) {
		g := newTarget(t)
		half(t, g)
		other := content(10, 60<<20)
		copy(other[:8<<20], make([]byte, 8<<20))
		src := &faulty{Source: direct{export(t, other)}}
		src.content = func(k int, off, length int64) *fault {
			if k == 3 {
				return &fault{refuse: api.SourceChanged.Err("no")}
			}
			return nil
		}
		_, err := g.imp(src).Run(context.Background())
		requireCode(t, api.SourceChanged, err)
		_, err = g.imp(direct{export(t, data)}).Run(context.Background())
		require.NoError(t, err)
		g.holds(t, data)
	})
	t.Run("another size", func(t *testing.T) {
		g := newTarget(t)
		half(t, g)
		other := content(11, 10<<20)
		_, err := g.imp(direct{export(t, other)}).Run(context.Background())
		require.NoError(t, err)
		g.holds(t, other)
	})
	t.Run("stage replaced by another file", func(t *testing.T) {
		g := newTarget(t)
		half(t, g)
		stage := filepath.Join(g.dir, transfer.StageDir, "task.stage")
		require.NoError(t, os.Rename(stage, stage+".away"))
		require.NoError(t, os.WriteFile(stage, content(1, 60<<20), 0o600))
		_, err := g.imp(direct{export(t, data)}).Run(context.Background())
		requireCode(t, api.IO, err)
		require.FileExists(t, stage, "a file that we did not make is not removed")
		require.NoError(t, os.Remove(stage))
		_, err = g.imp(direct{export(t, data)}).Run(context.Background())
		require.NoError(t, err)
		g.holds(t, data)
	})
	t.Run("taken over", func(t *testing.T) {
		g := newTarget(t)
		half(t, g)
		h := target{g.root, g.dir, t.TempDir()}
		ok, err := transfer.TakeOver(g.task, h.task)
		require.NoError(t, err)
		require.True(t, ok)
		ok, err = transfer.TakeOver(g.task, h.task)
		require.NoError(t, err)
		require.True(t, ok, "twice, as after a restart")
		im := h.imp(direct{export(t, data)})
		im.Task = "other"
		res, err := im.Run(context.Background())
		require.NoError(t, err)
		h.holds(t, data)
		require.Positive(t, res.Bytes.Carried)
		require.Equal(t, res.Size, res.Bytes.Carried+res.Bytes.Fetched+res.Bytes.Hole)
		require.Equal(t, res.Bytes.Fetched, res.Wire)
	})
}
