package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"gantry/api"
	"gantry/client"
	"gantry/feedback"
	"gantry/job"
	"gantry/progress"

	"github.com/spf13/cobra"
)

// begin takes up or makes the job of spec and drives it to its end.
func (e *env) begin(cmd *cobra.Command, o *operator, spec job.Spec, fresh bool) (feedback.Record, error) {
	h, err := e.hubOf(cmd, o, spec)
	if err != nil {
		return feedback.Record{}, err
	}
	if h != nil {
		defer h.Close()
	}
	store, err := e.store()
	if err != nil {
		return feedback.Record{}, err
	}
	if err := store.Sweep(); err != nil {
		return feedback.Record{}, err
	}
	j, resumed, err := store.Begin(spec, fresh)
	if errors.Is(err, job.ErrDriven) {
		return feedback.Record{}, refusedHere("the same command is running in another process; gantry jobs and gantry watch show it, --new starts another one")
	}
	if err != nil {
		return feedback.Record{}, err
	}
	defer j.Close()
	if resumed && !e.quiet {
		fmt.Fprintf(e.Stderr, "going on with job %s of %s; --new starts afresh\n", j.Short(), j.Created.Local().Format("2 Jan 15:04:05"))
	}
	return e.drive(cmd.Context(), o, h, j, nil)
}

// drive shows and runs an open job. cancel, when closed, ends its tasks; nil
// leaves that to the user's answer to Ctrl-C. h is the master that is told of a
// job with a local side; it may be nil.
func (e *env) drive(ctx context.Context, o *operator, h *hub, j *job.Job, cancel chan struct{}) (feedback.Record, error) {
	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	d := &job.Driver{Client: o.client, Lean: o.lean, Stdout: e.Stdout, Stdin: e.Stdin, Cancel: cancel}
	end := func() {} // of a job that is being cancelled already
	if cancel == nil {
		asked := make(chan struct{})
		d.Cancel = asked
		end = sync.OnceFunc(func() { close(asked) })
		stop := e.onInterrupt(j.Spec, leave, end)
		defer stop()
	}
	show, closeShow := e.shower(leave, j.Spec)
	reported := report(ctx, h, j, end, func(level, text string) {
		if e.json {
			_ = e.say("%s", text) // standard output has the job's feed and nothing else
			return
		}
		_ = show(feedback.Record{Kind: feedback.KindLog, Time: e.Now(), Body: &feedback.Log{Level: level, Text: text}})
	})
	watching, stopWatching := context.WithCancel(context.WithoutCancel(ctx))
	var watch sync.WaitGroup
	watch.Go(func() { _ = j.Watch(watching, 0, show) })
	final, err := d.Run(ctx, j)
	if err != nil {
		stopWatching() // without a final the feed goes on
	}
	watch.Wait()
	stopWatching()
	reported()
	closeShow()
	if err == nil {
		if wire, ok := final.Body.(*feedback.Error); ok {
			err = wire
		}
	}
	return final, e.judge(j, err)
}

// judge makes of a driver's error what the user should read.
func (e *env) judge(j *job.Job, err error) error {
	if _, ok := errors.AsType[*client.UnknownError](err); ok {
		return fmt.Errorf("job %s: %w; the same command, or gantry watch %s, asks again", j.Short(), err, j.Short())
	}
	if errors.Is(err, job.ErrLeft) && j.Spec.Kind == job.Call {
		return &coded{api.ExitLeft, fmt.Errorf("left job %s: gantry watch %s calls the nodes that have not answered, gantry retry %s says so afresh", j.Short(), j.Short(), j.Short())}
	}
	if errors.Is(err, job.ErrLeft) && j.Spec.Kind == job.Import {
		return &coded{api.ExitLeft, fmt.Errorf("left job %s: nothing is sent any more, until the same command, or gantry watch %s, goes on with it; gantry cancel %s ends it", j.Short(), j.Short(), j.Short())}
	}
	if errors.Is(err, job.ErrLeft) {
		return &coded{api.ExitLeft, fmt.Errorf("left job %s while it runs: gantry watch %s shows it, gantry cancel %s ends it", j.Short(), j.Short(), j.Short())}
	}
	// A disk of ours that fails says nothing about tasks that were started.
	if _, wire := errors.AsType[*feedback.Error](err); err != nil && !wire && j.Begun() {
		return &coded{api.ExitUnknown, fmt.Errorf("job %s: %w; its outcome is unknown here: the same command, or gantry watch %s, asks its nodes", j.Short(), err, j.Short())}
	}
	return err
}

// shower returns what shows records, and its end.
func (e *env) shower(leave context.CancelCauseFunc, spec job.Spec) (show func(feedback.Record) error, end func()) {
	stdoutTaken := spec.Kind == job.Export && spec.Local == job.Stdout
	if e.json && !stdoutTaken {
		return func(rec feedback.Record) error {
			if _, err := e.Stdout.Write(append(rec.Line, '\n')); err != nil {
				leave(job.ErrLeft) // nobody reads any more
				return err
			}
			return nil
		}, func() {}
	}
	width, _ := e.IsTerminal(e.Stderr)
	d := progress.New(progress.Options{Out: e.Stderr, Width: width, Now: e.Now, Quiet: e.quiet})
	return func(rec feedback.Record) error {
		d.Show(rec)
		if a, ok := job.CallAnswerOf(rec); ok && a.Err != nil && spec.Kind == job.Call {
			d.Log("info", fmt.Sprintf("%s: %s: %s", a.Node, a.Outcome, strings.TrimPrefix(a.Err.Message, a.Node+": ")))
		}
		return nil
	}, d.Close
}

// onInterrupt lets Ctrl-C ask what to do with a job that this command drives.
func (e *env) onInterrupt(spec job.Spec, leave context.CancelCauseFunc, cancel func()) (stop func()) {
	without := "The nodes work on without this command."
	if spec.Kind == job.Import {
		without = "The node waits for this command for an hour, and the same command goes on."
	}
	return e.interrupted(without, spec.Kind == job.Call, leave, cancel)
}

// interrupted lets Ctrl-C ask what to do; without says what happens to the job
// when it is left, and a call that this command drives is ended unasked. Without
// a terminal, for SIGTERM, and the second time, it leaves.
func (e *env) interrupted(without string, call bool, leave context.CancelCauseFunc, cancel func()) (stop func()) {
	done := make(chan struct{})
	asked := false
	var wg sync.WaitGroup
	wg.Go(func() {
		var answers <-chan string
		for {
			select {
			case <-done:
				return
			case sig := <-e.Interrupts:
				if call && sig == os.Interrupt && !asked {
					// Nothing runs on at the nodes that would be worth a question.
					asked = true
					fmt.Fprintln(e.Stderr, "\nending the call; Ctrl-C again leaves at once")
					cancel()
					continue
				}
				_, in := e.IsTerminal(e.Stdin)
				_, out := e.IsTerminal(e.Stderr)
				if answers != nil || !in || !out || sig != os.Interrupt {
					leave(job.ErrLeft)
					return
				}
				fmt.Fprint(e.Stderr, "\n"+without+" Type c to cancel the job, l to leave it running,\nanything else to stay; Ctrl-C again leaves: ")
				answers = e.readLine()
			case answer := <-answers:
				answers = nil
				switch strings.ToLower(strings.TrimSpace(answer)) {
				case "c", "cancel":
					cancel()
				case "l", "leave":
					leave(job.ErrLeft)
					return
				}
			}
		}
	})
	return func() { close(done); wg.Wait() }
}

// readLine reads one line from the terminal. A read of a terminal cannot be
// taken back, so its goroutine may wait until the process ends; it is started
// only when the user is asked.
func (e *env) readLine() <-chan string {
	answers := make(chan string, 1)
	go func() {
		line, err := bufio.NewReader(e.Stdin).ReadString('\n')
		if err == nil {
			answers <- line
		}
	}()
	return answers
}
