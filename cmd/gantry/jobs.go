package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gantry/api"
	"gantry/client"
	"gantry/feedback"
	"gantry/job"
	"gantry/progress"

	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"
)

func newJobsCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "jobs", Short: "List the jobs that were started here", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			store, err := e.store()
			if err != nil {
				return err
			}
			infos, err := store.List()
			if err != nil {
				return err
			}
			var rows [][]string
			for _, i := range infos {
				state := string(i.Outcome)
				if state == "" {
					state = "unfinished"
				}
				if e.json {
					if err := e.printJSON(listedJob{i.ID, i.Spec.String(), state, i.Created}); err != nil {
						return err
					}
					continue
				}
				rows = append(rows, []string{i.Short(), i.Created.Local().Format("2006-01-02 15:04:05"), state, i.Spec.String()})
			}
			if e.json || len(rows) == 0 {
				return nil
			}
			return progress.Table(e.Stdout, []string{"job", "started", "state", "command"}, rows)
		},
	}
}

// listedJob is a job in gantry jobs --json. Its ticket stays in the 0600 file.
type listedJob struct {
	ID      string    `json:"id"`
	Command string    `json:"command"`
	State   string    `json:"state"`
	Created time.Time `json:"created"`
}

func (e *env) printJSON(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = e.Stdout.Write(append(b, '\n'))
	return err
}

// named finds the job that the user names; none is exit code 3.
func named(store *job.Store, id string) (*job.Info, error) {
	info, err := store.Find(id)
	if errors.Is(err, job.ErrNotFound) {
		return nil, &coded{api.ExitNotFound, err}
	}
	return info, err
}

func newWatchCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "watch JOB", Short: "Show a job to its end, and go on with it if nobody does",
		Args: wantArgs(1), ValidArgsFunction: e.completeJobs,
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := e.store()
			if err != nil {
				return err
			}
			info, err := named(store, args[0])
			if err != nil {
				return err
			}
			o, err := e.operator()
			if err != nil {
				return err
			}
			defer o.close()
			j, err := store.Open(info.ID)
			var final feedback.Record
			switch {
			case errors.Is(err, job.ErrDriven):
				final, err = e.watchDriven(cmd.Context(), o, store, info.ID)
			case err == nil:
				defer j.Close()
				if j.Spec.Local == job.Stdout && j.Outcome == "" {
					return refusedHere("job %s wrote to a pipe that is gone; gantry cancel %s ends it", info.Short(), info.Short())
				}
				final, err = e.drive(cmd.Context(), o, j, nil)
			}
			if err != nil {
				return err
			}
			return e.printFinal(info.Spec, final)
		},
	}
}

func (e *env) printFinal(spec job.Spec, final feedback.Record) error {
	switch spec.Kind {
	case job.Copy:
		return e.printMoved(final, spec.To.String())
	case job.Export:
		return e.printMoved(final, spec.Local)
	}
	return e.printDigest(final, spec.From.String())
}

// lookAgain is how often a job that another process drives is looked at before
// its main task has begun.
const lookAgain = 300 * time.Millisecond

// watchDriven shows a job that another process drives: the feed of its main
// task, straight from the node.
func (e *env) watchDriven(ctx context.Context, o *operator, store *job.Store, id string) (feedback.Record, error) {
	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	stop := e.onInterrupt(leave, func() { leave(job.ErrLeft) })
	defer stop()
	for {
		info, err := store.Find(id)
		if err != nil {
			return feedback.Record{}, err
		}
		if t := info.Main(); t.Sent {
			return e.showTask(ctx, leave, o, t)
		}
		if info.Outcome != "" {
			final, err := feedback.Decode(info.Final)
			if wire, ok := final.Body.(*feedback.Error); ok {
				return final, wire
			}
			return final, err
		}
		timer := time.NewTimer(lookAgain)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return feedback.Record{}, &coded{api.ExitLeft, context.Cause(ctx)}
		}
	}
}

func (e *env) showTask(ctx context.Context, leave context.CancelCauseFunc, o *operator, t *job.Task) (feedback.Record, error) {
	c, err := o.client(t.Node)
	if err != nil {
		return feedback.Record{}, err
	}
	show, end := e.shower(leave, false)
	final, err := c.Follow(ctx, client.Run{ID: t.Request.ID, DirID: t.DirID, Sent: true}, show)
	end()
	if errors.Is(err, job.ErrLeft) {
		return final, &coded{api.ExitLeft, errors.New("left; the other process and the nodes go on")}
	}
	if wire, ok := final.Body.(*feedback.Error); ok && err == nil {
		err = wire
	}
	return final, err
}

func newCancelCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "cancel JOB", Short: "End a job at its nodes",
		Args: wantArgs(1), ValidArgsFunction: e.completeJobs,
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := e.store()
			if err != nil {
				return err
			}
			info, err := named(store, args[0])
			if err != nil {
				return err
			}
			if info.Outcome != "" {
				return refusedHere("job %s has ended: %s", info.Short(), info.Outcome)
			}
			o, err := e.operator()
			if err != nil {
				return err
			}
			defer o.close()
			j, err := store.Open(info.ID)
			if errors.Is(err, job.ErrDriven) {
				return e.cancelDriven(cmd.Context(), o, info)
			}
			if err != nil {
				return err
			}
			defer j.Close()
			now := make(chan struct{})
			close(now)
			_, err = e.drive(cmd.Context(), o, j, now)
			if wire, ok := errors.AsType[*feedback.Error](err); ok && api.CodeOf(wire.Code).Outcome == api.Cancelled {
				return e.say("job %s is cancelled", info.Short())
			}
			if err == nil {
				return refusedHere("too late: job %s is done", info.Short())
			}
			return err
		},
	}
}

// cancelDriven asks the node; the process that drives the job sees it end.
func (e *env) cancelDriven(ctx context.Context, o *operator, info *job.Info) error {
	t := info.Main()
	c, err := o.client(t.Node)
	if err != nil {
		return err
	}
	if !t.Sent {
		return refusedHere("job %s is being started by another process; press Ctrl-C there, or try again", info.Short())
	}
	if err := c.Cancel(ctx, t.Request.ID); err != nil {
		return err
	}
	return e.say("asked %s to cancel job %s; gantry watch %s shows how it ends", t.Node, info.Short(), info.Short())
}

// say prints a sentence for people.
func (e *env) say(format string, args ...any) error {
	if e.quiet {
		return nil
	}
	_, err := fmt.Fprintf(e.Stderr, format+"\n", args...)
	return err
}

func (e *env) completeJobs(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	store, err := e.store()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	infos, err := store.List()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var ids []string
	for _, i := range infos {
		ids = append(ids, i.Short()+"\t"+i.Spec.String())
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}
