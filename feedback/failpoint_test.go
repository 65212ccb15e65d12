//go:build failpoints

package feedback_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gantry/feedback"
	"gantry/internal/failpoint"
	"gantry/internal/testkit"

	"github.com/stretchr/testify/require"
)

// At every durable step of a feed the process is killed, or the step fails,
// before or after its effect. What had been shown is there afterwards, with the
// same bytes, or a gap says that it was trimmed; and the feed goes on.
func TestEveryFailpoint(t *testing.T) {
	exe, err := os.Executable()
	require.NoError(t, err)
	for _, name := range failpoint.Names {
		if !strings.HasPrefix(name, "feedback.") {
			continue
		}
		for _, action := range []string{"kill", "kill-after", "error", "error-after"} {
			if name == "feedback.open.cut" && strings.HasSuffix(action, "-after") {
				continue // the step after it is feedback.open.sync
			}
			t.Run(name+" "+action, func(t *testing.T) {
				dir := t.TempDir()
				path := filepath.Join(dir, "feed")
				if !strings.Contains(name, "create") {
					f, err := feedback.Create(path, feedback.Options{})
					require.NoError(t, err)
					require.NoError(t, f.State("publishing", nil))
					require.NoError(t, f.Close())
					appendTo(t, path, `{"seq":2,"t":"2026`)
				}
				hits := filepath.Join(dir, "hits")
				cmd := exec.Command(exe)
				cmd.Env = append(os.Environ(), "FEEDBACK_TEST_JOURNAL="+path, "FEEDBACK_TEST_AFTER=0", "FEEDBACK_TEST_FINISH=yes", "FEEDBACK_TEST_SMALL=yes",
					fmt.Sprintf("GANTRY_FAILPOINTS=%s=%s", name, action), "GANTRY_FAILPOINT_LOG="+hits)
				out, err := cmd.StdoutPipe()
				require.NoError(t, err)
				defer testkit.PassOnFailpoints(t, hits)
				require.NoError(t, cmd.Start())
				seen := map[int64]string{}
				err = feedback.NewReader(out, feedback.ReaderOptions{}).Each(func(rec feedback.Record) error {
					if rec.Seq > 0 {
						seen[rec.Seq] = string(rec.Line)
					}
					return nil
				})
				require.ErrorIs(t, err, io.ErrUnexpectedEOF, "it was stopped before the final")
				require.Error(t, cmd.Wait())
				log, err := os.ReadFile(hits)
				require.NoError(t, err)
				require.Contains(t, string(log), name, "the step was reached")
				reopened(t, path, seen)
			})
		}
	}
}

func appendTo(t *testing.T, path, s string) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	require.NoError(t, err)
	_, err = f.WriteString(s)
	require.NoError(t, errors.Join(err, f.Close()))
}

// reopened checks that a journal has what was seen, and goes on.
func reopened(t *testing.T, path string, seen map[int64]string) {
	f, err := feedback.Open(path, feedback.Options{})
	if errors.Is(err, os.ErrNotExist) {
		require.Empty(t, seen)
		return
	}
	require.NoError(t, err)
	defer f.Close()
	for rec, err := range f.Records(0) {
		require.NoError(t, err)
		if g, ok := rec.Body.(*feedback.Gap); ok {
			for n := g.From; n <= g.To; n++ {
				delete(seen, n)
			}
		}
		if line, ok := seen[rec.Seq]; ok {
			require.Equal(t, line, string(rec.Line))
			delete(seen, rec.Seq)
		}
	}
	require.Empty(t, seen, "shown, and not there")
	if _, ok := f.Final(); !ok {
		require.NoError(t, f.Finish(nil, nil))
	}
}
