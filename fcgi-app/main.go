// Command fcgi-app is a node's responder: the unprivileged FastCGI program
// behind lighttpd, nginx or the embedded front.
//
//	fcgi-app [--config FILE]    serve until SIGTERM or SIGINT, then drain
//	fcgi-app check FILE         read the configuration and everything it names
//	fcgi-app probe FILE         ask the running responder for its health
//	fcgi-app version
//
// It terminates no TLS, never runs as root, and does not put itself into the
// background: that is a supervisor's work, which should start it again when it
// ends with 1. Exit codes: 0 good, 1 failed, 2 misuse.
package main

import (
	"context"
	"log/slog"

	"gantry/internal/daemon"
	"gantry/node"
)

const usage = `usage: fcgi-app [--config FILE]
       fcgi-app check FILE
       fcgi-app probe FILE
       fcgi-app version
`

var program = daemon.Program{
	Name: "fcgi-app", Config: "/etc/gantry/node.toml", Usage: usage, Command: command,
	Serve: func(ctx context.Context, config string, log *slog.Logger) error {
		return node.Run(ctx, node.Options{ConfigPath: config, Log: log})
	},
}

func main() { daemon.Main(program) }

// command does one of the short commands and returns what there is to say.
func command(ctx context.Context, args []string) (said string, err error) {
	wanted := map[string]int{"check": 2, "probe": 2, "version": 1}
	if len(args) != wanted[args[0]] {
		return "", daemon.ErrMisuse
	}
	switch args[0] {
	case "check":
		return args[1] + ": good", node.Check(args[1])
	case "probe":
		return "the responder is healthy", node.Probe(ctx, args[1])
	}
	return node.Version(), nil
}
