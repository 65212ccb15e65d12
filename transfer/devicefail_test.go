//go:build failpoints

package transfer_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gantry/api"
	"gantry/internal/failpoint"
	"gantry/internal/testkit"

	"github.com/stretchr/testify/require"
)

// everyPoint calls stop for each action at each failpoint whose name has the
// prefix, and sees that all were reached.
func everyPoint(t *testing.T, prefix string, stop func(t *testing.T, env ...string)) {
	log := filepath.Join(t.TempDir(), "hit")
	defer testkit.PassOnFailpoints(t, log)
	var names []string
	for _, name := range failpoint.Names {
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		names = append(names, name)
		for _, verb := range testkit.Actions(name) {
			t.Run(name+" "+verb, func(t *testing.T) {
				stop(t, "GANTRY_FAILPOINTS="+name+"="+verb, "GANTRY_FAILPOINT_LOG="+log)
			})
		}
	}
	hit, err := os.ReadFile(log)
	require.NoError(t, err)
	for _, name := range names {
		require.True(t, slices.Contains(strings.Fields(string(hit)), name), "%s was never reached", name)
	}
}

// TestDeviceFailpoints: wherever an import onto a device stops, the next start
// completes it.
func TestDeviceFailpoints(t *testing.T) {
	data := mixed(3*piece + 4096)
	device, _ := loopDevice(t, content(9, len(data)))
	everyPoint(t, "device.", func(t *testing.T, env ...string) {
		require.NoError(t, os.WriteFile(device, content(9, len(data)), 0))
		o, _ := scene(t, data, api.ModeUpdate)
		o.Device = device
		o.run(t, env...)
		code, out := o.run(t)
		require.Equal(t, childDone, code, out)
		require.True(t, bytes.Equal(data, contents(t, device)))
	})
}

// TestCommandFailpoints: wherever an import into a command stops, the command
// runs at most once, and nothing of it is left.
func TestCommandFailpoints(t *testing.T) {
	data := mixed(piece + 5)
	everyPoint(t, "command.", func(t *testing.T, env ...string) {
		o, _ := scene(t, data, api.ModeCreate)
		o.ID = fmt.Sprintf("fail-%d-%d", os.Getpid(), tasks.Add(1))
		ran := filepath.Join(t.TempDir(), "ran")
		o.Command = []string{"/bin/sh", "-c", `echo ran >> "$0"; cat > /dev/null`, ran}
		first, _ := o.run(t, env...)
		code, out := o.run(t)
		runs, _ := os.ReadFile(ran)
		if code == childDone {
			require.Equal(t, "ran\n", string(runs))
		} else {
			require.Equal(t, childFailed, code)
			require.Contains(t, out, "not started twice")
			require.LessOrEqual(t, len(runs), len("ran\n"))
		}
		require.False(t, first == childDone && code == childDone)
		requireGone(t, o.ID)
	})
}
