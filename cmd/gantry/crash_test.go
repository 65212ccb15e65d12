package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gantry/internal/failpoint"

	"github.com/stretchr/testify/require"
)

// TestKilledAtEveryStep kills the command, or fails it, at every step of what
// it keeps on disk. The same command then goes on and ends done.
func TestKilledAtEveryStep(t *testing.T) {
	c, home := newCluster(t)
	fill(t, c, "alpha", "vm1.img", 5<<20)
	crashing := filepath.Join(t.TempDir(), "gantry")
	out, err := exec.Command("go", "build", "-tags", "failpoints", "-o", crashing, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	var points []string
	for _, name := range failpoint.Names {
		if strings.HasPrefix(name, "job.") {
			// The hits: the job is made, the export is started, the import is
			// started. What is hit once only does nothing at the second.
			points = append(points, name+"=kill@1", name+"=kill-after@2", name+"=error@3")
		}
	}
	reached := map[string]bool{}
	for i, point := range points {
		t.Run(point, func(t *testing.T) {
			state, log := t.TempDir(), filepath.Join(t.TempDir(), "log")
			target := fmt.Sprintf("copy-%d", i)
			args := []string{"copy", "alpha:disks/vm1.img", "beta:disks/" + target}
			cmd := command(t, home, state, args...)
			cmd.Path = crashing
			cmd.Env = append(cmd.Env, "GANTRY_FAILPOINTS="+point, "GANTRY_FAILPOINT_LOG="+log)
			first, err := cmd.CombinedOutput()
			if exitOf(err) == 0 {
				require.FileExists(t, c.Path("beta", target), "%s", first)
			}
			if b, err := os.ReadFile(log); err == nil {
				for name := range strings.Lines(string(b)) {
					reached[strings.TrimSpace(name)] = true
				}
			}
			again, err := command(t, home, state, args...).CombinedOutput()
			require.Equal(t, 0, exitOf(err), "first: %s\nthen: %s", first, again)
			require.NoError(t, exec.Command("cmp", c.Path("alpha", "vm1.img"), c.Path("beta", target)).Run())
			// Nothing that a crash left is taken for a job.
			list, err := command(t, home, state, "jobs").Output()
			require.NoError(t, err)
			require.NotContains(t, string(list), "unfinished")
		})
	}
	for _, name := range failpoint.Names {
		if strings.HasPrefix(name, "job.") {
			require.True(t, reached[name], "%s was never reached", name)
		}
	}
}
