//go:build failpoints

package node_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"gantry/api"

	"github.com/stretchr/testify/require"
)

// TestKilledWithCommands kills responders with SIGKILL in mid-stream: what runs a
// command leaves nothing of it running and ends interrupted; what only reads its
// output goes on.
func TestKilledWithCommands(t *testing.T) {
	t.Run("the reader of an output", func(t *testing.T) {
		w, dir := kindsWorld(t, "/dev/null")
		alpha, beta := w.all["alpha"].start(), w.all["beta"]
		data := alpha.file("disks/a", 60<<20+5, 1)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "source"), data, 0o644))
		beta.ownedBy(gantry)
		k := keep(t, beta)
		export, imp := w.between(place{"dump", "", []string{"file=source"}}, place{"disks", "x", nil}, "")
		exported := alpha.follow("ann", export)
		require.Eventually(t, func() bool { return beta.begin(imp) == 200 }, 20*time.Second, 50*time.Millisecond)
		stage := filepath.Join(beta.dir, "disks", ".gantry", imp.ID+".stage")
		require.Eventually(t, func() bool { info, err := os.Stat(stage); return err == nil && info.Size() > 8<<20 }, 20*time.Second, time.Millisecond)
		k.kill()
		rec, err := beta.run("ann", imp)
		for deadline := time.Now().Add(20 * time.Second); err != nil && time.Now().Before(deadline); {
			rec, err = beta.run("ann", imp)
		}
		require.Equal(t, digest(data), resultOf[api.ImportResult](t, rec, err).Digest)
		require.Equal(t, digest(data), resultOf[api.ExportResult](t, <-exported, nil).Digest)
	})
	t.Run("what runs a command", func(t *testing.T) {
		w, _ := kindsWorld(t, "/dev/null")
		alpha := w.all["alpha"]
		alpha.ownedBy(gantry)
		k := keep(t, alpha)
		export, _ := w.between(place{resource: "slow"}, place{resource: "sink"}, "")
		require.Eventually(t, func() bool { return alpha.begin(export) == 200 }, 20*time.Second, 50*time.Millisecond)
		require.Eventually(t, func() bool { return running(t, export.ID) }, 20*time.Second, time.Millisecond)
		k.kill()
		require.Eventually(t, func() bool { return !running(t, export.ID) }, 20*time.Second, 5*time.Millisecond, "it left its session")
		rec, err := alpha.run("ann", export)
		for deadline := time.Now().Add(20 * time.Second); err != nil && time.Now().Before(deadline); {
			rec, err = alpha.run("ann", export)
		}
		require.Equal(t, api.Interrupted.Name, codeOf(t, rec, err))
	})
}
