package transfer_test

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"gantry/api"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

// TestTakeOverAfterACrash: a crash between the two records leaves both. The old
// task, whose stage is swept later, must not have the new one's removed.
func TestTakeOverAfterACrash(t *testing.T) {
	g, s := newTree(t), &script{}
	s.file("a", "alpha")
	m := g.imp(s)
	m.Faults(func(op string) error {
		if op == "last" {
			return syscall.EIO
		}
		return nil
	})
	_, err := m.Run(context.Background())
	requireCode(t, api.IO, err)
	h := treeTarget{target: target{g.root, g.dir, t.TempDir()}}
	rec, err := os.ReadFile(filepath.Join(g.task, "tree.json"))
	require.NoError(t, err)
	ok, err := transfer.TakeOver(g.task, h.task)
	require.NoError(t, err)
	require.True(t, ok)
	require.NoError(t, os.WriteFile(filepath.Join(g.task, "tree.json"), rec, 0o600)) // the crash came before its removal
	ok, err = transfer.TakeOver(g.task, h.task)
	require.NoError(t, err)
	require.True(t, ok)
	require.NoError(t, m.Discard(), "of the old task")
	require.FileExists(t, filepath.Join(g.dir, transfer.StageDir, "task.stage", "new", "a"))
}
