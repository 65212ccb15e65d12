//go:build failpoints

package queue_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gantry/internal/failpoint"
	"gantry/internal/testkit"
	"gantry/queue"

	"github.com/stretchr/testify/require"
)

// At every durable step the process is killed, or the step fails, before or
// after its effect. What was acknowledged is there afterwards; a store, a
// backup and a restored store are complete or not there.
func TestEveryFailpoint(t *testing.T) {
	for _, name := range failpoint.Names {
		if !strings.HasPrefix(name, "queue.") {
			continue
		}
		for _, action := range []string{"kill", "kill-after", "error", "error-after"} {
			t.Run(name+" "+action, func(t *testing.T) {
				dir := t.TempDir()
				path, backup, hits := filepath.Join(dir, "queue.db"), filepath.Join(dir, "backup.db"), filepath.Join(dir, "hits")
				defer testkit.PassOnFailpoints(t, hits)
				h := newHistory()
				env := []string{"QUEUE_TEST_STORE=" + path, "QUEUE_TEST_ROUNDS=10"}
				arm := []string{fmt.Sprintf("GANTRY_FAILPOINTS=%s=%s", name, action), "GANTRY_FAILPOINT_LOG=" + hits}
				require.NoError(t, h.run(t, 0, append(env, "QUEUE_TEST_BACKUP="+filepath.Join(dir, "from.db"))...))
				switch {
				case strings.HasPrefix(name, "queue.commit"):
					arm[0] += "@20"
				case strings.HasPrefix(name, "queue.backup"):
					env = append(env, "QUEUE_TEST_BACKUP="+backup)
				case strings.HasPrefix(name, "queue.create"):
					require.NoError(t, os.Remove(path))
					h = newHistory()
				default:
					env = []string{"QUEUE_TEST_RESTORE=" + path, "QUEUE_TEST_FROM=" + filepath.Join(dir, "from.db")}
				}
				require.Error(t, h.run(t, 0, append(env, arm...)...))
				log, err := os.ReadFile(hits)
				require.NoError(t, err)
				require.Contains(t, string(log), name+"="+action, "it acted")
				if err := queue.CheckFile(t.Context(), backup); !errors.Is(err, fs.ErrNotExist) {
					require.NoError(t, err, "a backup that has its name is whole")
				}
				if strings.HasPrefix(name, "queue.restore") || strings.HasPrefix(name, "queue.copy") {
					restored(t, dir, path)
					return
				}
				h.check(t, path)
			})
		}
	}
}

// restored checks that a broken restore has left the old store, the new one, or
// the old one under another name, and that it succeeds when it is done again.
func restored(t *testing.T, dir, path string) {
	if err := queue.CheckFile(t.Context(), path); errors.Is(err, fs.ErrNotExist) {
		old, err := filepath.Glob(path + ".old-*")
		require.NoError(t, err)
		require.Len(t, old, 1)
		require.NoError(t, queue.CheckFile(t.Context(), old[0]))
	} else {
		require.NoError(t, err)
	}
	_, err := queue.Restore(t.Context(), filepath.Join(dir, "from.db"), path)
	require.NoError(t, err)
	newHistory().check(t, path)
}
