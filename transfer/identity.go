package transfer

import (
	"time"

	"golang.org/x/sys/unix"
)

// identity is what statx says about a file, as far as it tells one file, and
// one state of a file, from another.
type identity struct {
	dev, ino, mount uint64
	btime           time.Time // zero where the file system has none
	mtime, ctime    time.Time
	size, blocks    int64 // bytes; 512-byte blocks
	mode, uid, gid  uint32
	nlink           uint32
}

// identify looks at the open file fd, or at name (not followed) in the open
// folder fd.
func identify(fd int, name string) (identity, error) {
	st, err := statx(fd, name)
	return identityOf(&st), err
}

// statx is the call behind identify.
func statx(fd int, name string) (st unix.Statx_t, err error) {
	flags := unix.AT_SYMLINK_NOFOLLOW
	if name == "" {
		flags = unix.AT_EMPTY_PATH
	}
	for {
		err = unix.Statx(fd, name, flags, unix.STATX_BASIC_STATS|unix.STATX_BTIME|unix.STATX_MNT_ID, &st)
		if err != unix.EINTR {
			return st, err
		}
	}
}

func identityOf(st *unix.Statx_t) identity {
	at := func(t unix.StatxTimestamp) time.Time { return time.Unix(t.Sec, int64(t.Nsec)).UTC() }
	id := identity{
		dev: unix.Mkdev(st.Dev_major, st.Dev_minor), ino: st.Ino, mount: st.Mnt_id,
		mtime: at(st.Mtime), ctime: at(st.Ctime),
		size: int64(st.Size), blocks: int64(st.Blocks),
		mode: uint32(st.Mode), uid: st.Uid, gid: st.Gid, nlink: st.Nlink,
	}
	if st.Mask&unix.STATX_BTIME != 0 {
		id.btime = at(st.Btime)
	}
	return id
}

func (id identity) regular() bool { return id.mode&unix.S_IFMT == unix.S_IFREG }

// is says whether this is the very file that was recorded. Inode numbers are
// used again after a file was removed; the birth time tells the two apart. The
// device is no part of it: its number may change when the machine restarts.
func (id identity) is(ino uint64, btime time.Time, size int64) bool {
	return id.regular() && id.ino == ino && id.btime.Equal(btime) && id.size == size
}
