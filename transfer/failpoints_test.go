//go:build failpoints

package transfer_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gantry/api"
	"gantry/internal/failpoint"
	"gantry/internal/testkit"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

// keep is replace with the old file kept.
const keep = "keep"

// TestFailpoints stops an import at every step of every durable write, in each
// way, and starts it again: killed before and after the effect, failed without
// and with the effect.
func TestFailpoints(t *testing.T) {
	var names []string
	for _, n := range failpoint.Names {
		if strings.HasPrefix(n, "transfer.") {
			names = append(names, n)
		}
	}
	require.NotEmpty(t, names)
	log := filepath.Join(t.TempDir(), "hit")
	defer testkit.PassOnFailpoints(t, log)
	modes := []string{api.ModeCreate, api.ModeReplace, keep}
	for _, name := range names {
		for i, verb := range testkit.Actions(name) {
			for j, mode := range modes {
				if !concerns(name, mode) || !testkit.EveryAction() && mode != keep && j != (testkit.Pick(name, 2)+i)%2 {
					continue
				}
				t.Run(name+" "+verb+" "+mode, func(t *testing.T) { stopAt(t, name, verb, mode, log) })
			}
		}
	}
	data, err := os.ReadFile(log)
	require.NoError(t, err)
	hit := strings.Fields(string(data))
	for _, name := range names {
		require.True(t, slices.Contains(hit, name), "%s was never reached", name)
	}
}

// concerns says whether a mode comes by a failpoint with anything of its own.
func concerns(name, mode string) bool {
	if strings.HasPrefix(name, "transfer.keep.") {
		return mode == keep
	}
	// With keep there is an exchange instead of this rename.
	return mode != keep || strings.HasPrefix(name, "transfer.publish.") && name != "transfer.publish.rename"
}

func stopAt(t *testing.T, name, verb, mode, log string) {
	kept := mode == keep
	if kept {
		mode = api.ModeReplace
	}
	data := content(1, 3*piece+5)
	clear(data[piece : 2*piece])
	o, w := scene(t, data, mode)
	o.KeepOld = kept
	switch name {
	case "transfer.map.forget": // the stage of another state of the source
		good := o.Source
		o.Source += "2"
		require.NoError(t, os.WriteFile(o.Source, content(2, len(data)), 0o600))
		code, out := o.run(t, "GANTRY_FAILPOINTS=transfer.publish.sync=kill")
		require.Equal(t, -1, code, out)
		require.NoError(t, os.RemoveAll(filepath.Join(o.Task, "export")))
		o.Source = good
	case "transfer.takeover.map":
		code, out := o.run(t, "GANTRY_FAILPOINTS=transfer.publish.sync=kill")
		require.Equal(t, -1, code, out)
		o.Old, o.Task, o.ID = o.Task, o.Task+"2", "task2"
		require.NoError(t, os.Mkdir(o.Task, 0o700))
	}
	action := name + "=" + verb
	if name == "transfer.piece.write" {
		action += "@3" // the last: an earlier one may be overtaken before its effect is counted
	}
	code, out := o.run(t, "GANTRY_FAILPOINTS="+action, "GANTRY_FAILPOINT_LOG="+log)
	there := w.published(t)
	switch {
	case strings.HasPrefix(verb, "kill"):
		require.Equal(t, -1, code, out)
	case code == childDone:
		require.True(t, there, "done, but the target is not there: %s", out)
	case code == childFailed:
		require.False(t, there, "reported as failed, but published: %s", out)
	}
	code, out = o.run(t)
	require.Equal(t, childDone, code, out)
	require.True(t, w.published(t))
	if !there && mode == api.ModeReplace {
		require.Contains(t, out, api.TargetReplaced)
	}
	if kept {
		old, err := os.ReadFile(filepath.Join(o.Target, transfer.OldName("disk", "task")))
		require.NoError(t, err)
		require.Equal(t, w.old, old)
	}
	left, err := os.ReadDir(filepath.Join(o.Target, ".gantry"))
	require.NoError(t, err)
	require.Empty(t, left, "stages left behind")
}
