package node_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gantry/api"

	"github.com/stretchr/testify/require"
)

// checked asks for a check and returns its lines by name.
func (m *machine) checked(resource, path string) (*api.Check, map[string]api.CheckItem) {
	m.t.Helper()
	check, err := m.as("ann").Check(m.t.Context(), resource, path)
	require.NoError(m.t, err)
	items := map[string]api.CheckItem{}
	for _, i := range check.Items {
		items[i.Name] = i
	}
	return check, items
}

func TestCheckOfAResource(t *testing.T) {
	w := newWorld(t, "", "alpha")
	alpha := w.all["alpha"].start()
	alpha.file("disks/dir/a", 10, 1)
	check, items := alpha.checked("disks", "dir/a")
	require.True(t, check.OK, "%+v", check)
	require.EqualValues(t, os.Getuid(), check.UID)
	require.NotEmpty(t, check.Groups)
	for _, name := range []string{"folder", "list", "room", "path", "its folder", "create", "write and sync", "rename without replacing",
		"rename by exchange", "rename to the target"} {
		require.Equal(t, api.CheckOK, items[name].State, "%s: %+v", name, items[name])
	}
	for _, name := range []string{"direct", "reflink", "holes", "attributes"} {
		require.Contains(t, []string{api.CheckOK, api.CheckMissing}, items[name].State, name)
		require.NotEmpty(t, items[name].Text)
	}
	left, err := os.ReadDir(filepath.Join(alpha.dir, "disks/.gantry"))
	require.NoError(t, err)
	require.Empty(t, left)

	_, items = alpha.checked("disks", "dir/new")
	require.Equal(t, api.CheckNote, items["path"].State)
	_, items = alpha.checked("disks", "no/such")
	require.Equal(t, api.CheckRefused, items["its folder"].State)

	check, items = alpha.checked("frozen", "")
	require.True(t, check.OK)
	require.Equal(t, api.CheckNote, items["write"].State)
	require.NoDirExists(t, filepath.Join(alpha.dir, "frozen/.gantry"), "written to a read-only resource")

	for path, code := range map[string]string{"/resources/disks/check?path=../x": "bad_path", "/resources/disks/check?path=.gantry/x": "bad_path"} {
		require.Equal(t, code, alpha.ask("ann", "GET", path, nil, "").problem.Code, path)
	}
	require.Equal(t, "forbidden", alpha.ask("bob", "GET", "/resources/disks/check", nil, "").problem.Code)
}

// Each missing right is found at the folder that lacks it, with what to grant.
func TestCheckWithoutRights(t *testing.T) {
	w := newWorld(t, "", "alpha")
	alpha := w.all["alpha"]
	alpha.file("disks/sub/a", 10, 1)
	alpha.ownedBy(gantry)
	disks := filepath.Join(alpha.dir, "disks")
	alpha.process()
	check, _ := alpha.checked("disks", "sub/a")
	require.True(t, check.OK, "%+v", check)
	require.EqualValues(t, gantry, check.UID)
	require.Equal(t, []uint32{gantry}, check.Groups)

	give := func(path string, uid, gid int, mode os.FileMode) {
		require.NoError(t, os.Chown(path, uid, gid))
		require.NoError(t, os.Chmod(path, mode))
	}
	for name, row := range map[string]struct {
		path        string
		gid         int
		mode        os.FileMode
		item, grant string
	}{
		"a folder on the way":        {disks + "/sub", 0, 0o700, "path", "setfacl -m u:58260:--x " + disks + "/sub"},
		"the root of the resource":   {disks, 0, 0o755, "folder", "setfacl -m u:58260:rwx " + disks},
		"a group that may":           {disks, 58263, 0o770, "folder", "usermod -aG 58263 (the account of uid 58260) and restart it; or setfacl -m u:58260:rwx " + disks},
		"the file":                   {disks + "/sub/a", 0, 0o600, "path", "setfacl -m u:58260:r-- " + disks + "/sub/a; or, to read everything, CAP_DAC_READ_SEARCH"},
		"a folder without its write": {disks + "/sub", 0, 0o755, "its folder", "setfacl -m u:58260:rwx " + disks + "/sub"},
		"the stages of another":      {disks + "/.gantry", 0, 0o700, "stage", ""},
	} {
		t.Run(name, func(t *testing.T) {
			info, err := os.Stat(row.path)
			require.NoError(t, err)
			give(row.path, 0, row.gid, row.mode)
			defer give(row.path, gantry, gantry, info.Mode().Perm())
			check, items := alpha.checked("disks", "sub/a")
			require.False(t, check.OK)
			require.Equal(t, api.CheckRefused, items[row.item].State, "%+v", check.Items)
			require.Truef(t, strings.HasPrefix(items[row.item].Grant, row.grant), "%q", items[row.item].Grant)
		})
	}
	check, _ = alpha.checked("disks", "sub/a")
	require.True(t, check.OK, "%+v", check)
}

// What a front would have to read is computed for its uid.
func TestCheckForTheFront(t *testing.T) {
	w := newWorld(t, "", "alpha")
	alpha := w.all["alpha"]
	alpha.file("disks/a", 10, 1)
	text, err := os.ReadFile(alpha.config)
	require.NoError(t, err)
	edited := strings.Replace(strings.Replace(string(text), "writable = true\n", "writable = true\nsend = \"front\"\n", 1), "uids = [", "uids = [58261, ", 1)
	require.NoError(t, os.WriteFile(alpha.config, []byte(edited), 0o644))
	alpha.start()
	for _, dir := range []string{w.dir, alpha.dir, alpha.dir + "/disks"} {
		require.NoError(t, os.Chmod(dir, 0o711))
	}
	_, items := alpha.checked("disks", "a")
	require.Equal(t, api.CheckOK, items["front, uid 58261"].State, "%+v", items)
	require.NoError(t, os.Chmod(alpha.dir+"/disks", 0o700))
	check, items := alpha.checked("disks", "a")
	require.False(t, check.OK)
	require.Equal(t, alpha.dir+"/disks lacks search (the uid has no account here: it is taken to be in no group)", items["front, uid 58261"].Text)
	require.True(t, strings.HasPrefix(items["front, uid 58261"].Grant, "setfacl -m u:58261:--x "+alpha.dir+"/disks"), items["front, uid 58261"].Grant)
	require.Equal(t, api.CheckOK, items["front, uid 0"].State)
}
