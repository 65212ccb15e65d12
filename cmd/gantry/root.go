package main

import (
	"errors"
	"fmt"
	"strings"

	"gantry/api"
	"gantry/client"
	"gantry/feedback"
	"gantry/job"

	"github.com/spf13/cobra"
)

func newRootCommand(e *env) *cobra.Command {
	root := &cobra.Command{
		Use:           "gantry",
		Short:         "Move files between the nodes of a cluster, proved and seen",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
	}
	root.SetIn(e.Stdin)
	root.SetOut(e.Stdout)
	root.SetErr(e.Stderr)
	flags := root.PersistentFlags()
	flags.StringVar(&e.home, "home", "", "folder with ca.pem, cert.pem, key.pem and cluster.toml (default $XDG_CONFIG_HOME/gantry)")
	flags.StringVar(&e.master, "master", "", "`NAME` of a master of cluster.toml (default the one that is there), unix:SOCKET, or none")
	flags.BoolVar(&e.json, "json", false, "print JSON on stdout and nothing else there")
	flags.BoolVarP(&e.quiet, "quiet", "q", false, "print errors only")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return &misuse{cmd, flagHint(cmd, err)} })
	root.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return &misuse{cmd, commandHint(cmd, args[0])}
		}
		return cmd.Help()
	}
	root.AddCommand(
		newCopyCommand(e), newExportCommand(e), newImportCommand(e), newDigestCommand(e), newVerifyCommand(e), newListCommand(e), newCheckCommand(e),
		newJobsCommand(e), newWatchCommand(e), newCancelCommand(e), newLimitCommand(e), newNodesCommand(e), newCallCommand(e), newRetryCommand(e), newAuditCommand(e),
		newFrontCommand(e), newCACommand(e), newDemoCommand(e), newVersionCommand(e),
	)
	root.AddCommand(newHiddenCommands(e)...)
	return root
}

// misuse is a command line that cannot be meant. The exit code is 2.
type misuse struct {
	cmd *cobra.Command
	msg string
}

func (m *misuse) Error() string { return m.msg }

func misused(cmd *cobra.Command, format string, args ...any) error {
	return &misuse{cmd, fmt.Sprintf(format, args...)}
}

// coded is an error that names its exit code.
type coded struct {
	code int
	err  error
}

func (c *coded) Error() string { return c.err.Error() }
func (c *coded) Unwrap() error { return c.err }

// exit prints err and returns the process's exit code.
func (e *env) exit(root *cobra.Command, err error) int {
	if err == nil {
		return api.ExitDone
	}
	if m, ok := errors.AsType[*misuse](err); ok {
		fmt.Fprintf(e.Stderr, "gantry: %s\nusage: %s\n", feedback.Printable(m.msg), m.cmd.UseLine())
		return api.ExitMisuse
	}
	text := err.Error()
	if text != "" {
		fmt.Fprintf(e.Stderr, "gantry: %s\n", feedback.Printable(text))
	}
	return exitCode(err)
}

// exitCode maps an error to the exit codes of package api.
func exitCode(err error) int {
	if c, ok := errors.AsType[*coded](err); ok {
		return c.code
	}
	if _, ok := errors.AsType[*client.UnknownError](err); ok || errors.Is(err, job.ErrBegun) {
		return api.ExitUnknown
	}
	if w, ok := errors.AsType[*feedback.Error](err); ok {
		return api.CodeOf(w.Code).Exit
	}
	switch client.AnswerTo(err).Unsent {
	case api.Refused, api.PinMismatch:
		return api.ExitRefused
	}
	return api.ExitFailed
}

// commandHint names the command that was probably meant.
func commandHint(cmd *cobra.Command, name string) string {
	cmd.SuggestionsMinimumDistance = 2
	hint := fmt.Sprintf("there is no command %q", name)
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		return hint + "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return hint + "; gantry help lists them"
}
