package transfer_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gantry/api"
	"gantry/feedback"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

// FuzzPath opens whatever name below a root that is full of traps: what is opened
// lies below the root and not among the stages.
func FuzzPath(f *testing.F) {
	dir := f.TempDir()
	root, outside := filepath.Join(dir, "root"), filepath.Join(dir, "outside")
	for _, d := range []string{root + "/a/b", root + "/" + transfer.StageDir, outside} {
		require.NoError(f, os.MkdirAll(d, 0o755))
	}
	for _, name := range []string{root + "/file", root + "/a/b/c", root + "/" + transfer.StageDir + "/t.stage", outside + "/secret"} {
		require.NoError(f, os.WriteFile(name, nil, 0o644))
	}
	for name, to := range map[string]string{
		"out": outside, "up": "../outside", "abs": outside + "/secret", "loop": "loop", "in": "a/b", "stages": transfer.StageDir,
		"a/back": "..", "a/far": "../../outside", "dangling": "nothing", "dir": ".", "proc": "/proc/self/root",
	} {
		require.NoError(f, os.Symlink(to, filepath.Join(root, name)))
	}
	r, err := os.OpenRoot(root)
	require.NoError(f, err)
	f.Cleanup(func() { r.Close() })
	for _, name := range []string{
		"file", "a/b/c", "in/c", "out/secret", "up/secret", "abs", "loop", "loop/x", "stages/t.stage", transfer.StageDir + "/t.stage", "a/back/file",
		"a/far/secret", "dangling", "dir/dir/file", "proc/etc/passwd", "", ".", "..", "../outside/secret", "/etc/passwd", "a//b", "a/./b", "a/b/", "a/../file",
		"nothing", "a", "a\x00b", "a\nb", "\xff", strings.Repeat("x", 256), strings.Repeat("a/", 2100) + "b",
	} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		bad := transfer.CheckName(name)
		file, err := transfer.OpenFile(r, name)
		if bad != nil {
			wire, ok := errors.AsType[*feedback.Error](err)
			require.True(t, ok && wire.Code == api.BadPath.Name, "%q: %v", name, err)
		}
		if err != nil {
			return
		}
		defer file.Close()
		real, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", file.Fd()))
		require.NoError(t, err)
		require.True(t, strings.HasPrefix(real, root+"/"), "%q opened %s", name, real)
		require.False(t, strings.HasPrefix(real, filepath.Join(root, transfer.StageDir)), "%q opened %s", name, real)
	})
}
