package master

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"gantry/access"
	"gantry/config"
	"gantry/internal/daemon"
	"gantry/queue"
)

// Run serves a master until ctx ends and everything has stopped; then it returns
// nil. It refuses to run as root. An error that comes later means that the store
// could not be written: a supervisor should start it again.
func Run(ctx context.Context, o ServerOptions) error {
	switch os.Geteuid() {
	case 0:
		return errors.New("a master never runs as root: start it as its own user, such as gantry")
	case 65534:
		return errors.New("a master never runs as uid 65534: every user that this system cannot name has it")
	}
	cfg, err := config.LoadMaster(o.ConfigPath)
	if err != nil {
		return err
	}
	s, err := NewServer(ctx, cfg, o)
	if err != nil {
		return err
	}
	l, err := daemon.Listen("masterd", cfg.Socket, cfg.From)
	if err != nil {
		return errors.Join(err, s.Close())
	}
	var local net.Listener
	if cfg.LocalSocket != "" {
		if local, err = daemon.ListenLocal(cfg.LocalSocket); err != nil {
			return errors.Join(cfg.Explain("local_socket", err), l.Close(), s.Close())
		}
	}
	return s.Serve(ctx, l, local)
}

// Check reads a configuration and every file that it names, as Run does, and
// changes nothing.
func Check(configPath string) error {
	cfg, err := config.LoadMaster(configPath)
	if err != nil {
		return err
	}
	gate, err := access.OpenMaster(cfg, nil)
	if err != nil {
		return err
	}
	for i, n := range cfg.Slots {
		if _, ok := gate.Cluster.Node(n.Name); !ok {
			return cfg.Explain(fmt.Sprintf("node[%d].name", i), fmt.Errorf("%q is no node of %s", n.Name, cfg.Cluster))
		}
	}
	for i, g := range cfg.Grants {
		for _, name := range g.Nodes {
			if _, ok := gate.Cluster.Node(name); name != "*" && !ok {
				return cfg.Explain(fmt.Sprintf("grant[%d].nodes", i), fmt.Errorf("%q is no node of %s", name, cfg.Cluster))
			}
		}
	}
	return nil
}

// Probe asks the master that serves a configuration for its health, over its
// FastCGI socket. It works as the master's own user and as the front's.
func Probe(ctx context.Context, configPath string) error {
	cfg, err := config.LoadMaster(configPath)
	if err != nil {
		return err
	}
	return daemon.Probe(ctx, cfg.Socket)
}

// Backup writes a copy of the store to a new file, also while a master runs.
func Backup(ctx context.Context, configPath, to string) error {
	cfg, err := config.LoadMaster(configPath)
	if err != nil {
		return err
	}
	return queue.BackupFile(ctx, cfg.Store, to)
}

// Restore puts a backup in the place of the store, while no master runs. What
// was there is kept beside it, under the name that is returned; "": nothing was.
func Restore(ctx context.Context, configPath, from string) (kept string, err error) {
	cfg, err := config.LoadMaster(configPath)
	if err != nil {
		return "", err
	}
	return queue.Restore(ctx, from, cfg.Store)
}

// CheckStore goes through the whole store, also while a master runs.
func CheckStore(ctx context.Context, configPath string) error {
	cfg, err := config.LoadMaster(configPath)
	if err != nil {
		return err
	}
	return queue.CheckFile(ctx, cfg.Store)
}
