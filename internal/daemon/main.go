package daemon

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
)

// ErrMisuse is a command line that cannot be meant: it is answered with the usage
// and exit code 2.
var ErrMisuse = errors.New("misuse")

// A Program is what a responder's command line can ask for.
type Program struct {
	Name   string // as in messages
	Config string // the configuration that is read when none is named
	Usage  string // what is printed for -h and on misuse, with its newline
	// Serve runs until ctx ends, and then drains.
	Serve func(ctx context.Context, config string, log *slog.Logger) error
	// Command does a short command, args[0] and its arguments, and returns what
	// there is to say; ErrMisuse for one that there is not.
	Command func(ctx context.Context, args []string) (said string, err error)
}

// Main is the main function of p: it ends the process with 0 when all was good, 1
// when something failed, and 2 on misuse. SIGTERM and SIGINT end the context.
func Main(p Program) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	err := p.Run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case err == nil:
	case errors.Is(err, flag.ErrHelp):
		fmt.Print(p.Usage)
	case errors.Is(err, ErrMisuse):
		fmt.Fprint(os.Stderr, p.Usage)
		os.Exit(2)
	default:
		fmt.Fprintf(os.Stderr, "%s: %v\n", p.Name, err)
		os.Exit(1)
	}
}

// Run does what a command line asks for. The error is flag.ErrHelp when that is
// the usage.
func (p Program) Run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet(p.Name, flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {} // Main prints it
	config := flags.String("config", p.Config, "the configuration")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return err
	} else if err != nil {
		return ErrMisuse
	}
	if flags.NArg() == 0 {
		return p.Serve(ctx, *config, slog.New(slog.NewTextHandler(stderr, nil)))
	}
	said, err := p.Command(ctx, flags.Args())
	if err == nil {
		fmt.Fprintln(stdout, said)
	}
	return err
}
