// Command masterd is a master's responder: the unprivileged program that keeps
// jobs, runs them on the nodes, and serves the master's API behind lighttpd,
// nginx or the embedded front, and on a local socket.
//
//	masterd [--config FILE]        serve until SIGTERM or SIGINT, then drain
//	masterd check FILE             read the configuration and everything it names
//	masterd probe FILE             ask the running master for its health
//	masterd backup FILE TO         copy the store of the master, also while it runs
//	masterd restore FILE FROM      put a copy in the store's place, while none runs
//	masterd check-store FILE       go through the whole store, also while it is used
//	masterd version
//
// FILE is the master's configuration. It terminates no TLS, never runs as root,
// and does not put itself into the background: that is a supervisor's work, which
// should start it again when it ends with 1. Exit codes: 0 good, 1 failed, 2
// misuse.
package main

import (
	"context"
	"log/slog"

	"gantry/internal/daemon"
	"gantry/master"
)

const usage = `usage: masterd [--config FILE]
       masterd check FILE
       masterd probe FILE
       masterd backup FILE TO
       masterd restore FILE FROM
       masterd check-store FILE
       masterd version
`

var program = daemon.Program{
	Name: "masterd", Config: "/etc/gantry-master/master.toml", Usage: usage, Command: command,
	Serve: func(ctx context.Context, config string, log *slog.Logger) error {
		return master.Run(ctx, master.ServerOptions{ConfigPath: config, Log: log})
	},
}

func main() { daemon.Main(program) }

// command does one of the short commands and returns what there is to say.
func command(ctx context.Context, args []string) (said string, err error) {
	wanted := map[string]int{"check": 2, "probe": 2, "backup": 3, "restore": 3, "check-store": 2, "version": 1}
	if len(args) != wanted[args[0]] {
		return "", daemon.ErrMisuse
	}
	switch args[0] {
	case "check":
		return args[1] + ": good", master.Check(args[1])
	case "probe":
		return "the master is healthy", master.Probe(ctx, args[1])
	case "backup":
		return args[2] + ": complete and checked", master.Backup(ctx, args[1], args[2])
	case "restore":
		kept, err := master.Restore(ctx, args[1], args[2])
		if kept == "" {
			return "restored; there was no store before", err
		}
		return "restored; what was there before is now " + kept, err
	case "check-store":
		return "the store is good", master.CheckStore(ctx, args[1])
	}
	return master.Version(), nil
}
