//go:build !linux

package fastcgi

import (
	"net"
	"syscall"
)

// peerOf knows no peer outside Linux, so a Server with AllowPeer refuses all.
func peerOf(net.Conn) (*Peer, error) { return nil, nil }

// awaitHangUp waits for the read deadline: elsewhere than on Linux the end of
// the socket is noticed only when the handler reads on.
func awaitHangUp(raw syscall.RawConn) bool {
	_ = raw.Read(func(uintptr) bool { return false })
	return false
}
