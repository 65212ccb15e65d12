package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"gantry/front"
	"gantry/internal/cluster"
	"gantry/master"
	"gantry/node"

	"github.com/spf13/cobra"
)

// newHiddenCommands are the parts that a throw-away cluster runs as processes
// of their own, this program under other names and other uids, and the writer
// of the manual.
func newHiddenCommands(e *env) []*cobra.Command {
	return []*cobra.Command{newNodeCommand(e), newMasterCommand(e), newFrontServerCommand(e), newKeepCommand(e), newManCommand(e)}
}

func newNodeCommand(e *env) *cobra.Command {
	var o node.Options
	cmd := &cobra.Command{
		Use: "__node --config FILE", Short: "Run a node's responder, as fcgi-app does", Hidden: true, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := e.untilInterrupted(cmd.Context())
			defer stop()
			o.Log = slog.New(slog.NewTextHandler(e.Stderr, nil))
			return node.Run(ctx, o)
		},
	}
	cmd.Flags().StringVar(&o.ConfigPath, "config", "", "node.toml")
	return cmd
}

func newFrontServerCommand(e *env) *cobra.Command {
	var o front.Options
	cmd := &cobra.Command{
		Use: "__front --socket PATH …", Short: "Run the embedded front", Hidden: true, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := e.untilInterrupted(cmd.Context())
			defer stop()
			log := slog.New(slog.NewTextHandler(e.Stderr, nil))
			o.Logf = func(format string, args ...any) { log.Warn("embedded front", "what", fmt.Sprintf(format, args...)) }
			return front.Embedded(ctx, o)
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&o.API, "api", nil, "addresses of the API")
	f.StringSliceVar(&o.Data, "data", nil, "addresses of bulk data")
	f.StringVar(&o.Prefix, "prefix", "", "where the API begins; a node's is the default")
	f.StringVar(&o.Socket, "socket", "", "the responder's socket")
	f.StringVar(&o.Cert, "cert", "", "server certificate")
	f.StringVar(&o.Key, "key", "", "its key")
	f.StringVar(&o.CA, "ca", "", "CA of the clients")
	f.StringVar(&o.Dir, "dir", "", "the front's own folder")
	return cmd
}

func newKeepCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "__keep", Short: "Keep servers running until stdin ends", Hidden: true, Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			// Ctrl-C reaches the whole process group. Whoever made this process
			// asks the person first, and closes stdin when it is over.
			// (Caught, not ignored: what is ignored stays so in every child.)
			hangups := make(chan os.Signal, 1)
			signal.Notify(hangups, syscall.SIGHUP)
			defer signal.Stop(hangups)
			return cluster.Keep(e.Stdin, e.Stdout)
		},
	}
}

// untilInterrupted ends the context at the first SIGINT or SIGTERM.
func (e *env) untilInterrupted(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-e.Interrupts:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(); <-done }
}

func newMasterCommand(e *env) *cobra.Command {
	var o master.ServerOptions
	cmd := &cobra.Command{
		Use: "__master --config FILE", Short: "Run a master, as masterd does", Hidden: true, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := e.untilInterrupted(cmd.Context())
			defer stop()
			o.Log = slog.New(slog.NewTextHandler(e.Stderr, nil))
			return master.Run(ctx, o)
		},
	}
	cmd.Flags().StringVar(&o.ConfigPath, "config", "", "master.toml")
	return cmd
}
