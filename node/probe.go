package node

import (
	"context"

	"gantry/access"
	"gantry/config"
	"gantry/internal/daemon"
)

// Check reads a configuration and every file that it names, as Run does, and
// changes nothing.
func Check(configPath string) error {
	cfg, err := config.LoadNode(configPath)
	if err != nil {
		return err
	}
	_, err = access.Open(cfg, nil)
	return err
}

// Probe asks the responder that serves a configuration for its health, over
// its socket. It works as the responder's own user and as the front's.
func Probe(ctx context.Context, configPath string) error {
	cfg, err := config.LoadNode(configPath)
	if err != nil {
		return err
	}
	return daemon.Probe(ctx, cfg.Socket)
}
