package node

import (
	"encoding/binary"
	"errors"
	"slices"

	"golang.org/x/sys/unix"
)

// Of linux/posix_acl_xattr.h: a version, then entries of tag, permissions, id,
// all little-endian.
const (
	aclVersion = 2
	aclHead    = 4
	aclEntry   = 8
	// maxACL is the most that an extended attribute holds.
	maxACL = 64 << 10

	aclUserObj  = 0x01
	aclUser     = 0x02
	aclGroupObj = 0x04
	aclGroup    = 0x08
	aclMask     = 0x10
	aclOther    = 0x20
)

// An ace is one entry of an access control list.
type ace struct {
	tag  uint16
	perm uint32 // 4 read, 2 write, 1 search
	id   uint32
}

var errACL = errors.New("the access control list is malformed")

// parseACL reads the attribute system.posix_acl_access.
func parseACL(b []byte) ([]ace, error) {
	if len(b) < aclHead || len(b) > maxACL || (len(b)-aclHead)%aclEntry != 0 || binary.LittleEndian.Uint32(b) != aclVersion {
		return nil, errACL
	}
	var list []ace
	for b = b[aclHead:]; len(b) > 0; b = b[aclEntry:] {
		e := ace{binary.LittleEndian.Uint16(b), uint32(binary.LittleEndian.Uint16(b[2:])), binary.LittleEndian.Uint32(b[4:])}
		if e.perm > 7 || !slices.Contains([]uint16{aclUserObj, aclUser, aclGroupObj, aclGroup, aclMask, aclOther}, e.tag) {
			return nil, errACL
		}
		list = append(list, e)
	}
	return list, nil
}

// aclOf is a file's list; without one it is made of the mode bits. A list whose
// mask is empty is one that the kernel does not look at (acl_permission_check):
// whoever it names is then judged as one of the others.
func aclOf(path string, st *unix.Stat_t) []ace {
	buf := make([]byte, maxACL)
	if n, err := unix.Getxattr(path, "system.posix_acl_access", buf); err == nil && st.Mode&0o070 != 0 {
		if list, err := parseACL(buf[:n]); err == nil {
			return list
		}
	}
	return []ace{{aclUserObj, st.Mode >> 6 & 7, 0}, {aclGroupObj, st.Mode >> 3 & 7, 0}, {aclOther, st.Mode & 7, 0}}
}

// A person is a user as the kernel judges him, capabilities apart.
type person struct {
	name string // "" when no account has the uid
	uid  uint32
	gids []uint32
}

// mayACL is the algorithm of acl(5): the first kind of entry that is his decides.
func (p person) mayACL(list []ace, st *unix.Stat_t, want uint32) bool {
	mask, other, owner := uint32(7), uint32(0), uint32(0)
	for _, e := range list {
		switch e.tag {
		case aclMask:
			mask = e.perm
		case aclOther:
			other = e.perm
		case aclUserObj:
			owner = e.perm
		}
	}
	if p.uid == st.Uid {
		return owner&want == want
	}
	if i := slices.IndexFunc(list, func(e ace) bool { return e.tag == aclUser && e.id == p.uid }); i >= 0 {
		return list[i].perm&mask&want == want
	}
	member := false
	for _, e := range list {
		id := e.id
		if e.tag == aclGroupObj {
			id = st.Gid
		}
		if (e.tag == aclGroupObj || e.tag == aclGroup) && slices.Contains(p.gids, id) {
			if member = true; e.perm&mask&want == want {
				return true
			}
		}
	}
	return !member && other&want == want
}
