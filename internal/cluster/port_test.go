package cluster

import (
	"net"
	"net/netip"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A kept port is its server's, again and again, and nobody else's.
func TestKeptPort(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			p, err := KeepPort(host)
			if host == "::1" && err != nil {
				t.Skip("needs an IPv6 loopback address: " + err.Error())
			}
			require.NoError(t, err)
			defer p.Close()
			for range 3 { // a server that is started, and started again
				l, err := net.Listen("tcp", p.Addr)
				require.NoError(t, err)
				c, err := net.Dial("tcp", p.Addr)
				require.NoError(t, err)
				require.ErrorIs(t, taken(t, p), syscall.EADDRINUSE, "while its server runs")
				require.NoError(t, c.Close())
				require.NoError(t, l.Close())
				require.ErrorIs(t, taken(t, p), syscall.EADDRINUSE, "before and after its server")
			}
		})
	}
	_, err := KeepPort("ff02::1") // many hosts' address: never one server's, wherever this runs
	require.ErrorContains(t, err, "keeping port [ff02::1]:")
	_, err = KeepPort("localhost")
	require.ErrorContains(t, err, "keeping a port: ")
}

// taken is what another who looks for a port is told at p.
func taken(t *testing.T, p *Port) error {
	t.Helper()
	fd, err := keep(netip.MustParseAddrPort(p.Addr))
	if err == nil {
		require.NoError(t, unix.Close(fd))
	}
	return err
}
