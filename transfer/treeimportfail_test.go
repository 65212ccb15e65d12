//go:build failpoints

package transfer_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gantry/internal/failpoint"
	"gantry/internal/testkit"

	"github.com/stretchr/testify/require"
)

// TestTreeImportFailpoints stops an import of a tree at every step of every
// durable write, in each way, and starts it again: old or new, never a mixture.
func TestTreeImportFailpoints(t *testing.T) {
	log := filepath.Join(t.TempDir(), "hit")
	defer testkit.PassOnFailpoints(t, log)
	var names []string
	for _, name := range failpoint.Names {
		if !strings.HasPrefix(name, "treein.") {
			continue
		}
		names = append(names, name)
		for i, verb := range testkit.Actions(name) {
			for j, c := range treeScenes {
				if rootOnly := slices.Contains([]string{"treein.move", "treein.aside", "treein.delete", "treein.rootsync"}, name); rootOnly != c.root && (rootOnly || name == "treein.rename" || name == "treein.targetdir" || name == "treein.leavedir") {
					continue
				} else if name == "treein.keepold" && !c.keep {
					continue
				} else if !rootOnly && name != "treein.keepold" && !testkit.EveryAction() && j != (testkit.Pick(name, len(treeScenes))+i)%len(treeScenes) && !(c.root && j == len(treeScenes)-1 && strings.HasSuffix(name, "dir")) {
					continue
				}
				t.Run(name+" "+verb+" "+c.name, func(t *testing.T) {
					s := newTreeScene(t, c.mode, c.root, c.keep, c.del)
					out := s.run(t, "GANTRY_FAILPOINTS="+name+"="+verb, "GANTRY_FAILPOINT_LOG="+log)
					there := s.state(t)
					switch {
					case strings.HasPrefix(out, "DONE"):
						require.True(t, there, "done, but not there")
					case strings.HasPrefix(out, "FAILED"):
						require.True(t, s.Name == "" || !there, "reported as failed, but published: %s", out)
					}
					if strings.HasPrefix(out, "DONE") {
						return // it is over
					}
					s.settle(t)
				})
			}
		}
	}
	data, err := os.ReadFile(log)
	require.NoError(t, err)
	for _, name := range names {
		require.True(t, slices.Contains(strings.Fields(string(data)), name), "%s was never reached", name)
	}
}
