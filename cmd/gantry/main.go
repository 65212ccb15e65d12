package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/term"
)

func main() { os.Exit(start()) }

// start joins the process to run. A signal is a question to the command, not
// the end of its context: a job asks whether to cancel or to leave.
func start() int {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	// A reader that left (`| head`) shows as an error of the write, not as a
	// death in the middle of a job.
	signal.Ignore(syscall.SIGPIPE)
	executable, err := os.Executable()
	if err != nil {
		executable = os.Args[0]
	}
	return run(context.Background(), &env{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Getenv: os.Getenv, Now: time.Now, IsTerminal: isTerminal,
		Interrupts: signals, Executable: executable,
	}, os.Args[1:])
}

func isTerminal(w any) (int, bool) {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0, false
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width < 20 {
		width = 80
	}
	return width, true
}
