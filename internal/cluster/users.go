package cluster

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// The uids, and equal gids, of a cluster that root starts. Numbers without
// accounts, above what distributions give out to users and below 65534, which
// is nobody's and everybody's.
const (
	UID         = 58260 // gantry: responders
	FrontUID    = 58261 // gantry-front: fronts
	OperatorUID = 58262 // whoever drives: the demo itself
)

// users says who runs what. Without root all three are the same.
type users struct {
	responder, front, operator int
	isolated                   bool // started by root
}

func whoRuns() users {
	if os.Geteuid() == 0 {
		return users{UID, FrontUID, OperatorUID, true}
	}
	me := os.Geteuid()
	return users{me, me, me, false}
}

// Attr is what makes a child run as uid, with the group of the same number and
// no other; nil without root.
func Attr(uid int) *syscall.SysProcAttr {
	if os.Geteuid() != 0 {
		return &syscall.SysProcAttr{}
	}
	id := uint32(uid)
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id, Groups: []uint32{}}}
}

// Become gives up root for uid, for good: all ids, all groups, in all threads,
// and proves that there is no way back. Without root it does nothing.
func Become(uid int) error {
	if os.Geteuid() != 0 {
		return nil
	}
	if err := errors.Join(
		syscall.Setgroups([]int{}),
		syscall.Setresgid(uid, uid, uid),
		syscall.Setresuid(uid, uid, uid),
	); err != nil {
		return fmt.Errorf("becoming uid %d: %w", uid, err)
	}
	if syscall.Setuid(0) == nil || os.Geteuid() == 0 {
		return fmt.Errorf("becoming uid %d: root could be had back", uid)
	}
	// A process that changed its uid is undumpable, and its /proc/self belongs
	// to root until it says otherwise. It holds no secret of root's.
	return unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
}

// Who says in one line who runs what.
func (c *Cluster) Who() string {
	if c.users.isolated {
		return fmt.Sprintf("responders run as uid %d, fronts as uid %d, nothing as root", c.users.responder, c.users.front)
	}
	return fmt.Sprintf("responders and fronts share uid %d: not isolated", c.users.responder)
}
