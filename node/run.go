package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"gantry/config"
	"gantry/fastcgi"
)

// Run serves the node until ctx ends and everything has stopped; then it
// returns nil. It refuses to run as root. An error that comes later means that
// the node's own records could not be written: a supervisor should start it
// again.
func Run(ctx context.Context, o Options) error {
	if os.Geteuid() == 0 {
		return errors.New("a responder never runs as root: start it as its own user, such as gantry")
	}
	cfg, err := config.LoadNode(o.ConfigPath)
	if err != nil {
		return err
	}
	n, err := New(cfg, o)
	if err != nil {
		return err
	}
	l, err := listen(cfg.Socket)
	if err != nil {
		return errors.Join(err, n.Close(ctx))
	}
	return n.Serve(ctx, l)
}

// Serve serves on l until ctx ends or the node's records break, then drains
// and closes the node, both within the configured time.
func (n *Node) Serve(ctx context.Context, l net.Listener) error {
	srv := &fastcgi.Server{
		Handler: n.shell, Logger: n.log, AllowPeer: n.shell.AllowPeer,
		Single: func(name string) bool { return name == "GANTRY_FRONT_TOKEN" },
		Limits: fastcgi.Limits{Conns: n.cfg.Limits.Connections, Requests: n.cfg.Limits.Connections},
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	n.log.Info("node serves", "node", n.cfg.Name, "socket", l.Addr().String(), "version", n.version)
	var err error
	select {
	case <-ctx.Done():
	case err = <-n.failed:
		err = fmt.Errorf("the node's own records cannot be written: %w", err)
	case err = <-served:
		served <- fastcgi.ErrServerClosed
	}
	return errors.Join(err, n.stop(srv, served))
}

// stop drains: feeds end at once, transfers under way may end.
func (n *Node) stop(srv *fastcgi.Server, served <-chan error) error {
	n.log.Info("node drains", "node", n.cfg.Name)
	begin := time.Now()
	n.Drain()
	deadline, cancel := context.WithTimeout(context.Background(), n.cfg.Limits.Drain)
	defer cancel()
	if err := srv.Shutdown(deadline); err != nil {
		n.log.Warn("requests were cut", "err", err)
	}
	<-served
	// The requests are gone; what is left is a write to disk.
	last, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	err := n.Close(last)
	n.log.Info("node stopped", "node", n.cfg.Name, "took", time.Since(begin))
	return err
}

// closeTime is longer than a slow disk's fsync, and short enough for a
// supervisor's patience (systemd: 90 s) on top of the drain.
const closeTime = 20 * time.Second

// listen makes the socket, in a folder that the front's group may enter. A
// socket that somebody still listens on is left alone.
func listen(path string) (net.Listener, error) {
	dir := filepath.Dir(path)
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		// setgid: the socket gets the folder's group, which should be the front's.
		if err := errors.Join(os.MkdirAll(dir, 0o750), os.Chmod(dir, 0o750|os.ModeSetgid)); err != nil {
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
	if err := os.Chmod(path, 0o660); err != nil {
		l.Close()
		return nil, fmt.Errorf("opening the socket to the front: %w", err)
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
