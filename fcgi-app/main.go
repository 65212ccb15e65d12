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
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"gantry/node"
)

const defaultConfig = "/etc/gantry/node.toml"

const usage = `usage: fcgi-app [--config FILE]
       fcgi-app check FILE
       fcgi-app probe FILE
       fcgi-app version
`

// errMisuse is answered with the usage and exit code 2.
var errMisuse = errors.New("misuse")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case err == nil:
	case errors.Is(err, flag.ErrHelp):
		fmt.Print(usage)
	case errors.Is(err, errMisuse):
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "fcgi-app:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("fcgi-app", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {} // main prints it
	config := flags.String("config", defaultConfig, "the node's configuration")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return err
	} else if err != nil {
		return errMisuse
	}
	rest := flags.Args()
	switch {
	case len(rest) == 0:
		return node.Run(ctx, node.Options{ConfigPath: *config, Log: slog.New(slog.NewTextHandler(stderr, nil))})
	case len(rest) == 2 && rest[0] == "check":
		if err := node.Check(rest[1]); err != nil {
			return err
		}
		fmt.Fprintf(stdout, "%s: good\n", rest[1])
		return nil
	case len(rest) == 2 && rest[0] == "probe":
		if err := node.Probe(ctx, rest[1]); err != nil {
			return err
		}
		fmt.Fprintln(stdout, "the responder is healthy")
		return nil
	case len(rest) == 1 && rest[0] == "version":
		fmt.Fprintln(stdout, node.Version())
		return nil
	}
	return errMisuse
}
