package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"gantry/config"
	"gantry/fastcgi"
	"gantry/internal/daemon"
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
	if err := setIOPriority(cfg.Limits.IOPriority); err != nil {
		return err
	}
	n, err := New(cfg, o)
	if err != nil {
		return err
	}
	l, err := daemon.Listen("fcgi-app", cfg.Socket, cfg.From)
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
	notify := daemon.Ready(n.log)
	defer notify.Stop()
	n.log.Info("node serves", "node", n.cfg.Name, "socket", l.Addr().String(), "version", n.version)
	var err error
	select {
	case <-ctx.Done():
	case err = <-n.failed:
		err = fmt.Errorf("the node's own records cannot be written: %w", err)
	case err = <-served:
		served <- fastcgi.ErrServerClosed
	}
	notify.Stopping()
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
