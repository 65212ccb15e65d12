//go:build failpoints

package atomicfile_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"gantry/internal/atomicfile"
	"gantry/internal/failpoint"

	"github.com/stretchr/testify/require"
)

// TestFailpointsOldOrNew writes a file in a child whose every step is killed or
// failed, before and after its effect: the file is the old or the new one, and
// an error that came before the rename left the old.
func TestFailpointsOldOrNew(t *testing.T) {
	renamed := false // the step happened at the rename or later
	for _, point := range failpoint.Durable("test.file") {
		for _, action := range []string{"kill", "error", "kill-after", "error-after"} {
			t.Run(point+" "+action, func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "file")
				require.NoError(t, os.WriteFile(path, []byte("old"), 0o600))
				cmd := exec.Command(os.Args[0])
				cmd.Env = append(os.Environ(), "ATOMICFILE_CHILD="+path, "GANTRY_FAILPOINTS="+point+"="+action)
				err := cmd.Run()
				var exit *exec.ExitError
				require.True(t, errors.As(err, &exit), "the failpoint did not act: %v", err)
				if action == "kill" || action == "kill-after" {
					require.Equal(t, syscall.SIGKILL, exit.Sys().(syscall.WaitStatus).Signal())
				} else {
					require.Equal(t, 3, exit.ExitCode())
				}
				if point == "test.file.rename" && action == "kill-after" {
					renamed = true
				}
				want := "old"
				if renamed {
					want = "new"
				}
				text, err := os.ReadFile(path)
				require.NoError(t, err)
				require.Equal(t, want, string(text))
				require.NoError(t, atomicfile.RemoveTemp(filepath.Dir(path), "file"))
				requireAlone(t, path)
			})
		}
	}
}

// TestFailpointsAppended stops a child that appends lines: what it had called
// durable is in the file, in order, and after a failure every later call fails.
func TestFailpointsAppended(t *testing.T) {
	for _, point := range failpoint.Appending("test.log") {
		for _, action := range []string{"kill", "error", "kill-after", "error-after"} {
			t.Run(point+" "+action, func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "log")
				cmd := exec.Command(os.Args[0])
				cmd.Env = append(os.Environ(), "ATOMICFILE_APPENDER="+path, "GANTRY_FAILPOINTS="+point+"="+action+"@3")
				shown, err := cmd.Output()
				var exit *exec.ExitError
				require.True(t, errors.As(err, &exit), "the failpoint did not act: %v", err)
				if action == "kill" || action == "kill-after" {
					require.Equal(t, syscall.SIGKILL, exit.Sys().(syscall.WaitStatus).Signal())
				} else {
					require.Equal(t, 3, exit.ExitCode(), "a call after the failure succeeded, or the failure was not told")
				}
				require.Equal(t, "one\ntwo\n", string(shown))
				text, err := os.ReadFile(path)
				require.NoError(t, err)
				want := "one\ntwo\n"
				if point != "test.log.write" || action == "kill-after" || action == "error-after" {
					want += "three\n" // there, and never called durable
				}
				require.Equal(t, want, string(text))
			})
		}
	}
}
