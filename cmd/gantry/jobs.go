package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
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
	var all bool
	cmd := &cobra.Command{
		Use: "jobs", Short: "List the jobs that were started here, and those of the master", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			store, err := e.store()
			if err != nil {
				return err
			}
			infos, err := store.List()
			if err != nil {
				return err
			}
			h, err := e.hubAlone(cmd)
			if err != nil {
				return err
			}
			if h != nil {
				defer h.Close()
				return e.listAll(cmd.Context(), h, infos, all)
			}
			var rows [][]string
			for _, i := range infos {
				j := listedHere(i)
				if e.json {
					if err := e.printJSON(j); err != nil {
						return err
					}
					continue
				}
				rows = append(rows, []string{i.Short(), i.Created.Local().Format("2006-01-02 15:04:05"), j.State, j.Command})
			}
			if e.json || len(rows) == 0 {
				return nil
			}
			return progress.Table(e.Stdout, []string{"job", "started", "state", "command"}, rows)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "show every job of the master, not only the newest")
	return cmd
}

// listedJob is a job in gantry jobs --json. Its ticket stays in the 0600 file.
type listedJob struct {
	ID      string    `json:"id"`
	Command string    `json:"command"`
	State   string    `json:"state"`
	Created time.Time `json:"created"`

	Master string `json:"master,omitzero"` // that has it; absent: it was started here
	Owner  string `json:"owner,omitzero"`  // who asked the master for it
	Driver string `json:"driver,omitzero"` // who drives it from outside of the master
	Why    string `json:"why,omitzero"`    // of the state at the master
}

func listedHere(i *job.Info) listedJob {
	state := string(i.Outcome)
	if state == "" {
		state = "unfinished"
	}
	return listedJob{ID: i.ID, Command: commandOf(i.Spec), State: state, Created: i.Created}
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

// reach finds the job that the user names and opens what is needed to reach its
// nodes; o must be closed.
func (e *env) reach(id string) (store *job.Store, info *job.Info, o *operator, err error) {
	if store, err = e.store(); err != nil {
		return nil, nil, nil, err
	}
	if info, err = named(store, id); err != nil {
		return nil, nil, nil, err
	}
	o, err = e.operator()
	return store, info, o, err
}

func newWatchCommand(e *env) *cobra.Command {
	var after int64
	cmd := &cobra.Command{
		Use: "watch JOB", Short: "Show a job to its end, and go on with it if nobody does",
		Args: wantArgs(1), ValidArgsFunction: e.completeJobs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if after < 0 {
				return misused(cmd, "--after wants a record's number, from 0")
			}
			h, kept, err := e.atHub(cmd, args[0])
			if err != nil {
				return err
			}
			if h != nil {
				defer h.Close()
				return e.follow(cmd.Context(), h, kept, after, false, false)
			}
			if err := onlyAtHub(cmd, "after"); err != nil {
				return err
			}
			store, info, o, err := e.reach(args[0])
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
				if j.Spec.Kind == job.Call {
					return e.driveCall(cmd.Context(), o, j, false)
				}
				if j.Spec.Local == job.Stdout && j.Outcome == "" {
					return refusedHere("job %s wrote to, or read from, a pipe that is gone; gantry cancel %s ends it", info.Short(), info.Short())
				}
				if h, err = e.hubOf(cmd, o, j.Spec); err != nil {
					return err
				}
				if h != nil {
					defer h.Close()
				}
				final, err = e.drive(cmd.Context(), o, h, j, nil)
			}
			if err != nil {
				return err
			}
			return e.printFinal(info.Spec, final)
		},
	}
	cmd.Flags().Int64Var(&after, "after", 0, "at the master: show the records after number `N`")
	return cmd
}

func (e *env) printFinal(spec job.Spec, final feedback.Record) error {
	switch spec.Kind {
	case job.Call:
		return nil // another process has shown the answers
	case job.Copy, job.Import:
		return e.printMoved(final, spec.To.String())
	case job.Export:
		return e.printMoved(final, spec.Local)
	case job.Verify:
		return e.printVerified(final, spec)
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
	stop := e.onInterrupt(job.Spec{}, leave, func() { leave(job.ErrLeft) })
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
	show, end := e.shower(leave, job.Spec{})
	final, err := c.Follow(ctx, client.Run{ID: t.Request.ID, DirID: t.DirID, Sent: true}, func(rec feedback.Record) error {
		if p, ok := rec.Body.(*feedback.Progress); ok { // named as in the job's own feed
			named := *p
			named.Item = strings.TrimSuffix(t.Node+":"+p.Item, ":")
			rec.Body = &named
		}
		return show(rec)
	})
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
	abandon := false
	cmd := &cobra.Command{
		Use: "cancel JOB", Short: "End a job at its nodes",
		Long: "End a job at its nodes. It has ended when its node says so, and gantry watch shows how.\n\n" +
			"A job of a master whose node is gone for good stays unknown, because nobody can say what became of it.\n" +
			"--abandon ends it all the same: its outcome stays unknown, and nobody is asked any more.",
		Args: wantArgs(1), ValidArgsFunction: e.completeJobs,
		RunE: func(cmd *cobra.Command, args []string) error {
			h, kept, err := e.atHub(cmd, args[0])
			if err != nil {
				return err
			}
			if h != nil {
				defer h.Close()
				return e.cancelHub(cmd.Context(), h, kept, abandon)
			}
			if err := onlyAtHub(cmd, "abandon"); err != nil {
				return err
			}
			store, info, o, err := e.reach(args[0])
			if err != nil {
				return err
			}
			defer o.close()
			if info.Outcome != "" {
				return refusedHere("job %s has ended: %s", info.Short(), info.Outcome)
			}
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
			if h, err = e.hubOf(cmd, o, j.Spec); err != nil {
				return err
			}
			if h != nil {
				defer h.Close()
			}
			_, err = e.drive(cmd.Context(), o, h, j, now)
			if wire, ok := errors.AsType[*feedback.Error](err); ok && api.CodeOf(wire.Code).Outcome == api.Cancelled {
				return e.say("job %s is cancelled", info.Short())
			}
			if err == nil {
				return refusedHere("too late: job %s is done", info.Short())
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&abandon, "abandon", false, "end a job that is unknown, without its node")
	return cmd
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
		ids = append(ids, i.Short()+"\t"+commandOf(i.Spec))
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}
