package main

import (
	"context"
	"io"
	"os"
	"time"
)

// env is the process as the commands see it; a test makes its own.
type env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Getenv         func(string) string
	Now            func() time.Time
	// IsTerminal says whether w is one, and its width in columns.
	IsTerminal func(w any) (width int, ok bool)
	// Interrupts receives one value for each SIGINT or SIGTERM.
	Interrupts <-chan os.Signal
	// Executable is the path of the running program.
	Executable string

	home   string // --home
	master string // --master
	json   bool   // --json
	quiet  bool   // --quiet
}

// run executes the command line args and returns the exit code.
func run(ctx context.Context, e *env, args []string) int {
	root := newRootCommand(e)
	root.SetArgs(args)
	return e.exit(root, root.ExecuteContext(ctx))
}
