package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"gantry/config"

	"github.com/coreos/go-systemd/v22/activation"
)

// Listen makes the socket of the program that is called name, or takes over the
// one that was passed; from is config.SocketOwn, SocketFD0 or SocketSystemd.
func Listen(name, path, from string) (net.Listener, error) {
	switch from {
	case config.SocketFD0:
		l, err := net.FileListener(os.Stdin)
		if err != nil {
			return nil, fmt.Errorf("socket_from = \"fd:0\", but descriptor 0 is no listening socket (%w); start the responder with: spawn-fcgi -n -s %s -- %s …", err, path, name)
		}
		return passed(path, l)
	case config.SocketSystemd:
		list, err := activation.Listeners()
		if err != nil {
			return nil, fmt.Errorf("taking over systemd's sockets: %w", err)
		}
		if len(list) != 1 {
			for _, l := range list {
				l.Close()
			}
			return nil, fmt.Errorf("socket_from = \"systemd\", but systemd passed %d sockets; one .socket unit with ListenStream=%s is needed", len(list), path)
		}
		return passed(path, list[0])
	}
	return listen(path, 0o660, 0o750|os.ModeSetgid)
}

// passed accepts a socket that is the configured one: the front talks to that,
// and a TCP port would be open to everybody.
func passed(path string, l net.Listener) (net.Listener, error) {
	if a, ok := l.Addr().(*net.UnixAddr); !ok || a.Net != "unix" || a.Name != path {
		l.Close()
		return nil, fmt.Errorf("the socket that was passed is %s %s, and socket says %s", l.Addr().Network(), l.Addr(), path)
	}
	return l, nil
}

// ListenLocal makes a socket that every user of the machine can connect to: the
// kernel says who each is, and the program judges.
func ListenLocal(path string) (net.Listener, error) { return listen(path, 0o666, 0o755) }

// listen makes the socket; its folder too, where there is none: one that the
// front's group may enter. A socket that somebody still listens on is left alone.
func listen(path string, mode, folder os.FileMode) (net.Listener, error) {
	dir := filepath.Dir(path)
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		// setgid: the socket gets the folder's group, which should be the front's.
		if err := errors.Join(os.MkdirAll(dir, folder.Perm()), os.Chmod(dir, folder)); err != nil {
			return nil, fmt.Errorf("making the socket's folder: %w", err)
		}
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listening on the socket: %w", err)
	}
	if err := os.Chmod(path, mode); err != nil {
		l.Close()
		return nil, fmt.Errorf("setting the socket's mode: %w", err)
	}
	return l, nil
}

// removeStale removes a socket that a killed responder left.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking for the socket: %w", err)
	}
	if info.Mode()&os.ModeSocket == 0 {
		return fmt.Errorf("%s is there and is no socket; remove it or name another", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
		return fmt.Errorf("another program listens on %s; stop that one first", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("looking whether somebody listens on the socket: %w", err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("removing a stale socket: %w", err)
	}
	return nil
}
