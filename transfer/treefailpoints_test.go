//go:build failpoints

package transfer_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gantry/internal/failpoint"
	"gantry/internal/testkit"

	"github.com/stretchr/testify/require"
)

// TestTreeFailpoints stops a tree's export at every step of every durable write, in each way, and starts it
// again: it ends with the manifest that it would have had.
func TestTreeFailpoints(t *testing.T) {
	dir := t.TempDir()
	shell(t, dir, `mkdir a b; echo one > a/one; ln a/one b/two; head -c 9000000 /dev/zero > large`)
	want := treeChild(t, dir, t.TempDir())
	log := filepath.Join(t.TempDir(), "hit")
	defer testkit.PassOnFailpoints(t, log)
	var names []string
	for _, name := range failpoint.Names {
		if !strings.HasPrefix(name, "tree.") {
			continue
		}
		names = append(names, name)
		for _, verb := range testkit.Actions(name) {
			t.Run(name+" "+verb, func(t *testing.T) {
				work := t.TempDir()
				treeChild(t, dir, work, "GANTRY_FAILPOINTS="+name+"="+verb, "GANTRY_FAILPOINT_LOG="+log)
				require.Equal(t, want, treeChild(t, dir, work))
			})
		}
	}
	data, err := os.ReadFile(log)
	require.NoError(t, err)
	for _, name := range names {
		require.True(t, slices.Contains(strings.Fields(string(data)), name), "%s was never reached", name)
	}
}

// treeChild runs an export in another process and returns the manifest that it prints.
func treeChild(t *testing.T, dir, work string, env ...string) string {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(exe, "-test.run=^TestTreeChild$")
	cmd.Env = append(os.Environ(), "GANTRY_TREE_CHILD="+dir, "GANTRY_TREE_WORK="+work, "GANTRY_TREE_KNOWN="+filepath.Join(work, "known"), "TMPDIR="+t.TempDir())
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.CombinedOutput()
	if len(env) == 0 {
		require.NoError(t, err, "%s", out)
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		if first, _, _ := strings.Cut(line, " "); slices.Contains([]string{"entry", "piece", "zero", "digest", "skipped"}, first) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}
