package daemon

import (
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"

	"gantry/config"
	"gantry/internal/testkit"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// systemd hears that the program is ready, alive and stopping.
func TestSystemdIsTold(t *testing.T) {
	path := filepath.Join(testkit.Dir(t), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	require.NoError(t, err)
	defer os.Remove(path) // closing leaves it
	defer l.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "2000") // 2 ms
	t.Setenv("WATCHDOG_PID", "")
	next := func() string {
		buf := make([]byte, 100)
		n, err := l.Read(buf)
		require.NoError(t, err)
		return string(buf[:n])
	}
	n := Ready(slog.New(slog.DiscardHandler))
	require.Equal(t, daemon.SdNotifyReady, next())
	require.Equal(t, daemon.SdNotifyWatchdog, next())
	require.Equal(t, daemon.SdNotifyWatchdog, next())
	n.Stopping()
	n.Stop()
	for said := next(); said != daemon.SdNotifyStopping; said = next() {
		require.Equal(t, daemon.SdNotifyWatchdog, said)
	}
}

func TestPassedSocketMustBeTheConfigured(t *testing.T) {
	path := filepath.Join(testkit.Dir(t), "s")
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	_, err = passed(path+"x", l)
	require.ErrorContains(t, err, "and socket says "+path+"x")
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	_, err = passed(path, tcp)
	require.ErrorContains(t, err, "the socket that was passed is tcp")
}

// Everybody reaches a local socket, and only the front's group the other.
func TestSocketsHaveTheirModes(t *testing.T) {
	dir := testkit.Dir(t)
	for path, c := range map[string]struct {
		open func(string) (net.Listener, error)
		mode os.FileMode
	}{
		filepath.Join(dir, "f", "s"): {func(p string) (net.Listener, error) { return Listen("x", p, config.SocketOwn) }, 0o660},
		filepath.Join(dir, "l", "s"): {ListenLocal, 0o666},
	} {
		l, err := c.open(path)
		require.NoError(t, err)
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, c.mode, info.Mode().Perm())
		_, err = c.open(path)
		require.ErrorContains(t, err, "another program listens on "+path)
		require.NoError(t, l.Close())
	}
}
