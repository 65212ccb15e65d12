package fastcgi

import (
	"fmt"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// peerOf asks the kernel who connected to a unix socket.
func peerOf(conn net.Conn) (*Peer, error) {
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, nil
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("reading peer credentials: %w", err)
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nil, fmt.Errorf("reading peer credentials: %w", err)
	}
	if credErr != nil {
		return nil, fmt.Errorf("reading peer credentials: %w", credErr)
	}
	return &Peer{UID: cred.Uid, GID: cred.Gid, PID: cred.Pid}, nil
}

// hungUp reports whether the other end has closed the socket or its sending
// half, whatever is still to be read. It does not wait.
func hungUp(fd uintptr) bool {
	p := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(p[:], 0)
	return err == nil && n > 0 && p[0].Revents != 0
}

// awaitHangUp returns true when the other end has closed the socket, false when
// the wait ended otherwise: by a read deadline or because the socket was closed
// here.
//
// It costs no thread, no descriptor and no busy loop. The runtime has the
// socket in its edge-triggered epoll set with EPOLLIN and EPOLLRDHUP, and Read
// parks this goroutine until the next edge: bytes that arrive, an end, or a
// deadline. Unread bytes that are already there are no edge.
func awaitHangUp(raw syscall.RawConn) bool {
	gone := false
	err := raw.Read(func(fd uintptr) bool {
		gone = hungUp(fd)
		return gone
	})
	return err == nil && gone
}
