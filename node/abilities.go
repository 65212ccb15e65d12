package node

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"gantry/api"
	"gantry/transfer"

	"golang.org/x/sys/unix"
)

// Names in transfer.StageDir with which a file system is tried, one resource at
// a time. What a crash leaves of them the next try removes.
const (
	tryName  = "check.try"
	tryOther = "check.other"
)

// trySize is the file that is tried with: two pages, of which one is written.
const trySize = 8192

// A trial is what is tried in a folder of the node's own.
type trial struct {
	dir   *os.File
	f     *os.File
	items []api.CheckItem
}

// abilities tries what imports and clones need of a file system, in the stage
// folder dir, and leaves nothing behind.
func abilities(dir *os.File) []api.CheckItem {
	t := &trial{dir: dir}
	t.remove()
	defer t.remove()
	if !t.need("create", t.create(), "the stage can be made") {
		return t.items
	}
	defer t.f.Close()
	t.need("write and sync", t.write(), "written and synced")
	t.need("rename without replacing", t.rename(tryName, tryOther, unix.RENAME_NOREPLACE), "new files never replace others")
	t.need("rename by exchange", t.exchange(), "a replaced copy can be kept, folders can be published")
	t.able("direct", t.direct(), "writes pass the page cache by", "writes go through the page cache")
	t.able("reflink", t.reflink(), "unchanged parts are shared, snapshot = \"reflink\" works", "unchanged parts are written again")
	t.able("holes", t.holes(), "holes stay holes", "holes take room")
	t.able("attributes", t.attributes(), "user.* attributes are kept", "user.* attributes are lost")
	return t.items
}

func (t *trial) need(name string, err error, fine string) bool {
	item := api.CheckItem{Name: name, State: api.CheckOK, Text: fine}
	if err != nil {
		item.State, item.Text = api.CheckRefused, err.Error()
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) {
			item.Grant = "use a file system with renameat2 (ext4, xfs, btrfs, tmpfs)"
		}
	}
	t.items = append(t.items, item)
	return err == nil
}

func (t *trial) able(name string, err error, fine, without string) {
	item := api.CheckItem{Name: name, State: api.CheckOK, Text: fine}
	if err != nil {
		item.State, item.Text = api.CheckMissing, without+": "+err.Error()
	}
	t.items = append(t.items, item)
}

func (t *trial) remove() {
	unix.Unlinkat(int(t.dir.Fd()), tryName, 0)
	unix.Unlinkat(int(t.dir.Fd()), tryOther, 0)
}

func (t *trial) open(name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(int(t.dir.Fd()), name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

func (t *trial) create() (err error) {
	t.f, err = t.open(tryName, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL)
	return err
}

func (t *trial) write() error {
	page := make([]byte, trySize/2)
	rand.Read(page)
	_, err := t.f.WriteAt(page, trySize/2)
	return errors.Join(err, t.f.Sync())
}

func (t *trial) rename(from, to string, flags uint) error {
	return unix.Renameat2(int(t.dir.Fd()), from, int(t.dir.Fd()), to, flags)
}

func (t *trial) exchange() error {
	f, err := t.open(tryName, unix.O_RDWR|unix.O_CREAT)
	if err != nil {
		return err
	}
	return errors.Join(t.rename(tryName, tryOther, unix.RENAME_EXCHANGE), f.Close())
}

func (t *trial) direct() error {
	f, err := t.open(tryName, unix.O_WRONLY|unix.O_DIRECT)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, trySize)
	shift := -int(uintptr(unsafe.Pointer(unsafe.SliceData(buf)))) & (trySize/2 - 1)
	_, err = f.WriteAt(buf[shift:shift+trySize/2], trySize/2)
	return bare(err)
}

func (t *trial) reflink() error {
	unix.Unlinkat(int(t.dir.Fd()), tryOther, 0)
	f, err := t.open(tryOther, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.IoctlFileClone(int(f.Fd()), int(t.f.Fd()))
}

func (t *trial) holes() error {
	at, err := unix.Seek(int(t.f.Fd()), 0, unix.SEEK_DATA)
	if err == nil && at == 0 {
		err = errors.New("the file system knows none")
	}
	return err
}

func (t *trial) attributes() error {
	return unix.Fsetxattr(int(t.f.Fd()), "user.gantry.check", []byte("1"), 0)
}

// bare is the errno in err, without a path that would say nothing.
func bare(err error) error {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	return err
}

// sameFileSystem says whether a file can be renamed from dir to the folder at
// path below it.
func sameFileSystem(stages *os.File, folder string) error {
	var a, b unix.Statx_t
	const want = unix.STATX_BASIC_STATS | unix.STATX_MNT_ID
	if err := unix.Statx(int(stages.Fd()), "", unix.AT_EMPTY_PATH, want, &a); err != nil {
		return err
	}
	if err := unix.Statx(unix.AT_FDCWD, folder, 0, want, &b); err != nil {
		return err
	}
	if a.Dev_major != b.Dev_major || a.Dev_minor != b.Dev_minor || a.Mnt_id != b.Mnt_id {
		return fmt.Errorf("it is on another file system than %s at the resource's root", transfer.StageDir)
	}
	return nil
}
