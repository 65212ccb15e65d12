package transfer_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gantry/api"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

// loopDevice makes a block device that holds data; its backing file is also returned.
func loopDevice(t testing.TB, data []byte) (device, backing string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for a loop device")
	}
	if _, err := exec.LookPath("losetup"); err != nil {
		t.Skip("needs losetup")
	}
	backing = dataFile(t, data)
	out, err := exec.Command("losetup", "--find", "--show", backing).CombinedOutput()
	if err != nil {
		t.Skipf("this machine has no loop devices: %s", out)
	}
	device = strings.TrimSpace(string(out))
	t.Cleanup(func() { require.NoError(t, exec.Command("losetup", "--detach", device).Run()) })
	return device, backing
}

func contents(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	return data
}

// onto imports onto a device.
func onto(t testing.TB, src transfer.Source, device string) (*transfer.Import, *notes) {
	n := &notes{}
	im := (&transfer.Import{Source: src, Name: "vm1", Device: device, Mode: api.ModeUpdate, Task: "task", Dir: t.TempDir(), Report: n}).Fast()
	return im, n
}

func TestDeviceExport(t *testing.T) {
	data := mixed(5*piece + 4096)
	device, _ := loopDevice(t, data)
	x, err := transfer.OpenDevice(device, false, "vm1", t.TempDir(), transfer.Silent{})
	require.NoError(t, err)
	defer x.Close()
	g := newTarget(t)
	res, err := g.imp(direct{x}).Run(t.Context())
	require.NoError(t, err)
	g.holds(t, data)
	require.Equal(t, b3sum(t, device), res.Digest)
	require.Positive(t, res.Bytes.Hole)
	_, err = transfer.OpenDevice(device, false, "vm1", t.TempDir(), transfer.Silent{})
	requireCode(t, api.DeviceUsed, err)
	digest, size, err := transfer.DigestDevice(t.Context(), device, true, "vm1", transfer.Silent{})
	require.NoError(t, err)
	require.Equal(t, res.Digest, digest)
	require.EqualValues(t, len(data), size)
}

// TestDeviceImport: only what differs is fetched and written, and what is zero is
// given back.
func TestDeviceImport(t *testing.T) {
	data := mixed(6*piece + 8192) // pieces 1 and 4 are zero
	old := bytes.Clone(data)
	copy(old[2*piece+100:], "changed")
	copy(old[4*piece:], content(9, piece))
	device, backing := loopDevice(t, old)
	before := allocated(t, backing)
	im, n := onto(t, direct{export(t, data)}, device)
	im.Verify, im.Expect = transfer.VerifyDisk, digestOf(data)
	res, err := im.Run(t.Context())
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, contents(t, device)))
	require.Equal(t, b3sum(t, device), res.Digest)
	require.EqualValues(t, piece, res.Bytes.Fetched, "one piece differs")
	require.EqualValues(t, 3*piece+8192, res.Bytes.Carried)
	require.EqualValues(t, 2*piece, res.Bytes.Hole)
	require.Equal(t, api.TargetReplaced, res.Target)
	require.LessOrEqual(t, allocated(t, backing), before-piece, "zeros are given back")
	require.Contains(t, strings.Join(n.logs, "\n"), "warn the device is written in place: there is no old copy")
	require.Empty(t, n.states)
}

func digestOf(data []byte) string {
	var tree transfer.Tree
	whole := len(data) <= piece
	for at := 0; at == 0 || at < len(data); at += piece {
		tree.Add(transfer.HashPiece(data[at:min(len(data), at+piece)], int64(at/piece), whole))
	}
	return transfer.FormatDigest(tree.Root())
}

// TestDeviceImportOfOtherSizes: a greater device keeps its rest, a smaller one is
// not touched; a size that is no multiple of a sector is exact.
func TestDeviceImportOfOtherSizes(t *testing.T) {
	for _, size := range []int{1, piece - 1, piece, piece + 1, 3*piece + 777} {
		data, old := mixed(size), content(7, 4*piece)
		device, _ := loopDevice(t, old)
		im, n := onto(t, direct{export(t, data)}, device)
		_, err := im.Run(t.Context())
		require.NoError(t, err)
		require.True(t, bytes.Equal(append(bytes.Clone(data), old[size:]...), contents(t, device)), "%d bytes", size)
		require.Contains(t, strings.Join(n.logs, "\n"), "they stay as they are")
	}
	old := content(7, 2*piece)
	device, _ := loopDevice(t, old)
	im, _ := onto(t, direct{export(t, mixed(2*piece+1))}, device)
	_, err := im.Run(t.Context())
	requireCode(t, api.NoSpace, err)
	require.True(t, bytes.Equal(old, contents(t, device)))
}

func TestDeviceImportOfStream(t *testing.T) {
	data := mixed(9*piece + 512)
	device, _ := loopDevice(t, content(3, 10*piece))
	im, _ := onto(t, served{smallStream(t, &produced{Reader: bytes.NewReader(data)}, 3)}, device)
	res, err := im.Run(t.Context())
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, contents(t, device)[:len(data)]))
	require.Equal(t, digestOf(data), res.Digest)

	im, n := onto(t, served{smallStream(t, &produced{Reader: bytes.NewReader(content(1, 11*piece))}, 3)}, device)
	_, err = im.Run(t.Context())
	requireCode(t, api.NoSpace, err)
	require.Contains(t, strings.Join(n.logs, "\n"), "error the device now holds parts of its old content and of the new")
	im, _ = onto(t, served{smallStream(t, &produced{Reader: bytes.NewReader(data)}, 3)}, device)
	im.Expect = digestOf(data)
	_, err = im.Run(t.Context())
	requireCode(t, api.BadRequest, err)
}

// TestDeviceImportResumed: the next start hashes the device instead of fetching
// again what is there.
func TestDeviceImportResumed(t *testing.T) {
	data := content(1, 12*piece)
	device, _ := loopDevice(t, make([]byte, len(data)))
	x := export(t, data)
	ctx, cancel := context.WithCancel(t.Context())
	f := &faulty{Source: direct{x}, content: func(k int, off, length int64) *fault {
		if k == 3 {
			cancel()
		}
		return nil
	}}
	im, _ := onto(t, f, device)
	_, err := im.Run(ctx)
	requireCode(t, api.CancelledBy, err)
	im, _ = onto(t, direct{x}, device)
	res, err := im.Run(t.Context())
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, contents(t, device)))
	require.EqualValues(t, len(data), res.Bytes.Carried+res.Bytes.Fetched)
}

func TestDeviceRefused(t *testing.T) {
	old := content(7, 16<<20)
	device, _ := loopDevice(t, old)
	src := direct{export(t, content(1, piece))}
	untouched := func() { require.True(t, bytes.Equal(old, contents(t, device))) }
	t.Run("create", func(t *testing.T) {
		im, _ := onto(t, src, device)
		im.Mode = api.ModeCreate
		_, err := im.Run(t.Context())
		requireCode(t, api.BadRequest, err)
		untouched()
	})
	t.Run("another digest than expected", func(t *testing.T) {
		im, _ := onto(t, src, device)
		im.Expect = "b3:" + strings.Repeat("0", 64)
		_, err := im.Run(t.Context())
		requireCode(t, api.DigestMismatch, err)
		untouched()
	})
	t.Run("a tree", func(t *testing.T) {
		im, _ := onto(t, treeSource{}, device)
		_, err := im.Run(t.Context())
		requireCode(t, api.BadRequest, err)
		untouched()
	})
	fifo := filepath.Join(t.TempDir(), "fifo")
	require.NoError(t, exec.Command("mkfifo", fifo).Run())
	for name, path := range map[string]string{"a regular file": dataFile(t, old), "a folder": t.TempDir(), "a character device": "/dev/null", "a fifo": fifo} {
		t.Run(name, func(t *testing.T) {
			_, err := transfer.OpenDevice(path, false, "vm1", t.TempDir(), transfer.Silent{})
			requireCode(t, api.NotDevice, err)
			im, _ := onto(t, src, path)
			_, err = im.Run(t.Context())
			requireCode(t, api.NotDevice, err)
		})
	}
	t.Run("nothing", func(t *testing.T) {
		_, err := transfer.OpenDevice("/dev/there-is-no-such", false, "vm1", t.TempDir(), transfer.Silent{})
		requireCode(t, api.NotFound, err)
	})
}

func TestDeviceMounted(t *testing.T) {
	device, _ := loopDevice(t, make([]byte, 16<<20))
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		t.Skip("needs mkfs.ext4")
	}
	require.NoError(t, exec.Command("mkfs.ext4", "-q", device).Run())
	dir := t.TempDir()
	if out, err := exec.Command("mount", device, dir).CombinedOutput(); err != nil {
		t.Skipf("cannot mount here: %s", out)
	}
	defer func() { require.NoError(t, exec.Command("umount", dir).Run()) }()
	_, err := transfer.OpenDevice(device, false, "vm1", t.TempDir(), transfer.Silent{})
	requireCode(t, api.DeviceUsed, err)
	im, _ := onto(t, direct{export(t, content(1, piece))}, device)
	_, err = im.Run(t.Context())
	requireCode(t, api.DeviceUsed, err)
	n := &notes{}
	x, err := transfer.OpenDevice(device, true, "vm1", t.TempDir(), n)
	require.NoError(t, err)
	require.Contains(t, strings.Join(n.logs, "\n"), "live")
	g := newTarget(t)
	_, err = g.imp(direct{x}).Run(t.Context())
	require.NoError(t, err)
	require.NoError(t, x.Close())
}

// TestDeviceExportRestarted: what was hashed before is hashed again, and a write
// in between does not pass.
func TestDeviceExportRestarted(t *testing.T) {
	for name, write := range map[string]bool{"as it was": false, "written to": true} {
		t.Run(name, func(t *testing.T) {
			data := content(1, 3*piece)
			device, _ := loopDevice(t, data)
			dir := t.TempDir()
			for start := range 2 {
				x, err := transfer.OpenDevice(device, false, "vm1", dir, transfer.Silent{})
				require.NoError(t, err)
				g := newTarget(t)
				_, err = g.imp(direct{x}).Run(t.Context())
				require.NoError(t, x.Close())
				if start == 1 && write {
					requireCode(t, api.SourceChanged, err)
					return
				}
				require.NoError(t, err)
				if write {
					f, err := os.OpenFile(device, os.O_WRONLY, 0)
					require.NoError(t, err)
					_, err = f.WriteAt([]byte("x"), 2*piece)
					require.NoError(t, err)
					require.NoError(t, f.Close())
				}
			}
		})
	}
}
