package node_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gantry/api"
	"gantry/feedback"

	"github.com/stretchr/testify/require"
)

// What a task may do is judged again when its responder starts with another
// configuration.
func TestTasksAreJudgedAgain(t *testing.T) {
	for name, c := range map[string]struct{ old, new, code string }{
		"F105 the resource became read-only":     {"writable = true\n", "", "denied"},
		"F105 the grant was withdrawn":           {`"import:create", `, "", "forbidden"},
		"F105 another grant makes no difference": {`, "selftest"]`, "]", ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "", "alpha")
			alpha := w.all["alpha"].start()
			req := newRequest(api.OpImport, pushed("a"))
			require.Equal(t, 200, alpha.begin(req))
			alpha.halt()
			text, err := os.ReadFile(alpha.config)
			require.NoError(t, err)
			require.Contains(t, string(text), c.old)
			require.NoError(t, os.WriteFile(alpha.config, []byte(strings.Replace(string(text), c.old, c.new, 1)), 0o644))
			alpha.start()
			if c.code == "" {
				_, err := push(alpha, "ann", req.ID, "", exporter(t, alpha.file("src", 10, 1)))
				require.NoError(t, err)
				require.FileExists(t, filepath.Join(alpha.dir, "disks/a"))
				return
			}
			var info *api.TaskInfo
			require.Eventually(t, func() bool {
				info, err = alpha.as("ann").Task(t.Context(), req.ID)
				return err == nil && info.State == api.StateEnded
			}, 10*time.Second, 5*time.Millisecond)
			rec, err := feedback.Decode(info.Final)
			require.Equal(t, c.code, codeOf(t, rec, err))
			require.NoFileExists(t, filepath.Join(alpha.dir, "disks/a"))
		})
	}
}
