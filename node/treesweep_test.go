package node_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gantry/api"

	"github.com/stretchr/testify/require"
)

// left lists the files below a node's dir, without those of its own, and of the
// target's .gantry.
func (m *machine) left(target string) (names []string) {
	m.t.Helper()
	require.DirExists(m.t, filepath.Join(target, ".gantry"))
	for _, top := range []string{filepath.Join(m.dir, "state"), filepath.Join(target, ".gantry")} {
		err := filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() || err == nil && strings.Contains(top, ".gantry") && p != top {
				rel, _ := filepath.Rel(filepath.Dir(top), p)
				names = append(names, rel)
			}
			return nil
		})
		require.NoError(m.t, err)
	}
	return names
}

// TestTreeNothingOrphaned: after imports of trees that were done, that replaced
// and deleted, that were incomplete and that failed, a day leaves no stage, no
// spool and no work folder, only its outcome; when that is forgotten nothing but records
// of trees, and later not even those.
func TestTreeNothingOrphaned(t *testing.T) {
	w := newWorld(t, "", "alpha", "beta")
	alpha, beta := w.all["alpha"], w.all["beta"]
	from, to := alpha.trees(""), beta.trees("writable = true\n")
	alpha.write("alpha/home/ann/1", "first", 0o600)
	alpha.write("alpha/home/zoe", "second", 0o644)
	alpha.start()
	beta.start()
	for _, change := range []func(*api.ImportArgs){
		nil,
		func(a *api.ImportArgs) { a.Mode, a.Extraneous = api.ModeReplace, api.ExtraneousDelete },
		func(a *api.ImportArgs) { a.Expect = "b3:" + strings.Repeat("0", 64) },
		func(a *api.ImportArgs) { a.Mode, a.Expect = api.ModeUpdate, "b3:"+strings.Repeat("0", 64) },
		func(a *api.ImportArgs) { a.Path, a.Mode = "", api.ModeUpdate },
		func(a *api.ImportArgs) { a.Path = "more" },
	} {
		_, err := w.copyTree("copy", change)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(from, "ann", api.NewID()), []byte("more"), 0o600))
	}
	require.NoError(t, os.WriteFile(filepath.Join(from, "bad\nname"), nil, 0o600))
	_, err := w.copyTree("incomplete", nil)
	require.NoError(t, err)
	require.Contains(t, strings.Join(beta.left(to), "\n"), ".stage", "of those that failed")
	beta.restart() // what was under way is over
	require.NoError(t, beta.node.Sweep(time.Now().Add(25*time.Hour)))
	for _, name := range beta.left(to) {
		part := strings.Split(name, "/")
		require.True(t, len(part) == 2 || part[1] == "known" || part[1] == "cache" || part[1] == "tasks" && (part[3] == "task.json" || part[3] == "feed"), name)
		require.NotEqual(t, ".gantry", part[0], name)
	}
	require.NoError(t, beta.node.Sweep(time.Now().Add(31*24*time.Hour)))
	require.NotContains(t, strings.Join(beta.left(to), "\n"), "tasks/")
	require.Contains(t, strings.Join(beta.left(to), "\n"), "known/")
	require.NoError(t, beta.node.Sweep(time.Now().Add(100*24*time.Hour)))
	require.NotContains(t, strings.Join(beta.left(to), "\n"), "known/")
}
