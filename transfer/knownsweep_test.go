package transfer_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

func TestSweepKnown(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	require.NoError(t, transfer.SweepKnown(filepath.Join(dir, "none"), now))
	names := func() (names []string) {
		list, err := os.ReadDir(dir)
		require.NoError(t, err)
		for _, e := range list {
			names = append(names, e.Name())
		}
		return names
	}
	for name, age := range map[string]time.Duration{"a": 0, "b.lines": time.Hour, "b.files": time.Hour, "c": 30 * time.Hour, "d": 91 * 24 * time.Hour, "e.new": 25 * time.Hour, "f.new": time.Minute, "new.g.lines": 25 * time.Hour} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), make([]byte, 1000), 0o600))
		require.NoError(t, os.Chtimes(filepath.Join(dir, name), now.Add(-age), now.Add(-age)))
	}
	require.NoError(t, transfer.SweepKnown(dir, now))
	require.Equal(t, []string{"a", "b.files", "b.lines", "c", "f.new"}, names())
	require.NoError(t, transfer.SweepKnownTo(dir, now, 4000))
	require.Equal(t, []string{"a", "b.files", "b.lines", "f.new"}, names())
	require.NoError(t, transfer.SweepKnown(dir, now.Add(100*24*time.Hour)))
	require.Empty(t, names())
}
