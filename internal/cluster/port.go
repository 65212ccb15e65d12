package cluster

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Ports lie below the range from which the kernel takes the ports of outgoing
// connections, so that none of those takes them before a server does.
const (
	portMin = 10000
	portEnd = 32000
)

// A Port is a TCP port of a loopback address, kept for a server that is started
// later, and again after its death. Nobody else on the machine gets it meanwhile.
type Port struct {
	Addr string // host:port
	fd   int
}

// KeepPort finds a port of host, an IP address, that nobody uses. Close it after
// its server has ended.
//
// It is bound, and not listened on: Linux lets a server listen on it all the same,
// because both allow the address to be used again (SO_REUSEADDR), as every server
// does. Whoever else looks for a port binds without that, as here, and is refused.
func KeepPort(host string) (*Port, error) {
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return nil, fmt.Errorf("keeping a port: %w", err)
	}
	for range 1000 {
		addr := netip.AddrPortFrom(ip, uint16(portMin+rand.IntN(portEnd-portMin)))
		fd, err := keep(addr)
		if err == nil {
			return &Port{addr.String(), fd}, nil
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			return nil, fmt.Errorf("keeping port %s: %w", addr, err)
		}
	}
	return nil, fmt.Errorf("no free port between %d and %d on %s", portMin, portEnd, host)
}

func keep(addr netip.AddrPort) (fd int, err error) {
	family, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()})
	if addr.Addr().Is4() {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	}
	if fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, err
	}
	if err = unix.Bind(fd, sa); err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// Close gives the port back.
func (p *Port) Close() error { return unix.Close(p.fd) }
