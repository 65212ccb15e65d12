package node

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gantry/api"
	"gantry/config"
	"gantry/internal/testkit"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A loop device is free, in use, without rights, and none.
func TestCheckOfADevice(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root for a loop device")
	}
	dir := testkit.Dir(t)
	image := filepath.Join(dir, "image")
	require.NoError(t, os.WriteFile(image, nil, 0o600))
	require.NoError(t, os.Truncate(image, 16<<20))
	out, err := exec.Command("losetup", "--find", "--show", image).Output()
	if err != nil {
		t.Skip("needs a loop device")
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() { require.NoError(t, exec.Command("losetup", "-d", device).Run()) })
	check := func(path string, me person) map[string]api.CheckItem {
		c := checker{res: config.Resource{Name: "disk", Kind: config.KindDevice, Path: path, Writable: true}, me: me}
		c.run("")
		items := map[string]api.CheckItem{}
		for _, i := range c.items {
			items[i.Name] = i
		}
		return items
	}
	me, err := myself()
	require.NoError(t, err)
	items := check(device, me)
	require.Equal(t, api.CheckOK, items["device"].State)
	require.Equal(t, "nobody else uses it; it has 16777216 bytes", items["exclusive"].Text)

	fd, err := unix.Open(device, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0) // as a mount does
	require.NoError(t, err)
	require.Equal(t, api.CheckRefused, check(device, me)["exclusive"].State)
	require.NoError(t, unix.Close(fd))

	require.Equal(t, api.CheckRefused, check(image, me)["device"].State)
	require.Equal(t, "make it, or correct the path in node.toml", check("/dev/nothing", me)["device"].Grant)

	stranger := person{uid: 58299}
	var st unix.Stat_t
	require.NoError(t, unix.Stat(device, &st))
	r := walk(device, permRead|permWrite, stranger.bits)
	require.NotNil(t, r)
	require.Equal(t, device+" lacks read and write", r.Error())
	grant := stranger.grant(r)
	require.Contains(t, grant, "a udev rule that gives "+device+" to uid 58299")
	if st.Gid != 0 && st.Mode&0o060 == 0o060 {
		require.Contains(t, grant, "usermod -aG ")
	}
}

// A walk follows links as the kernel does, and ends.
func TestWalk(t *testing.T) {
	dir := testkit.Dir(t)
	dir, err := filepath.EvalSymlinks(dir)
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(dir+"/a/b", 0o755))
	require.NoError(t, os.Symlink("b", dir+"/a/link"))
	require.NoError(t, os.Symlink(dir+"/a/link", dir+"/abs"))
	require.NoError(t, os.Symlink("loop", dir+"/loop"))
	require.NoError(t, os.WriteFile(dir+"/a/b/f", nil, 0o644))
	var seen []string
	require.Nil(t, walk(dir+"/abs/f", permRead, func(path string, _ *unix.Stat_t, want uint32) error {
		seen = append(seen, path)
		if path == dir+"/a/b/f" {
			require.EqualValues(t, permRead, want)
		} else {
			require.EqualValues(t, permSearch, want)
		}
		return nil
	}))
	require.Equal(t, dir+"/a/b/f", seen[len(seen)-1])
	require.Nil(t, walk("/", permRead, kernel))
	require.ErrorIs(t, walk(dir+"/loop", permRead, kernel).err, unix.ELOOP)
	require.ErrorIs(t, walk(dir+"/a/b/f/x", permRead, kernel).err, unix.ENOTDIR)
	require.Equal(t, `'/srv/it'\''s'`, quoted("/srv/it's"))
}
