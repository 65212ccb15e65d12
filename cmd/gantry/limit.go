package main

import (
	"context"
	"errors"

	"gantry/api"
	"gantry/config"
	"gantry/feedback"
	"gantry/job"

	"github.com/spf13/cobra"
)

func newLimitCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "limit JOB RATE", Short: "Change the bandwidth of a running job",
		Long: `Change how many bytes of content a running job moves per second.

RATE is a number with unit K, M, G or T, each 1024 times the one before, as in
rsync's --bwlimit: 500k, 1.5m, 10M. At least 64K. 0 takes the job's limit away;
those that its nodes have for themselves and for each other stay.`,
		Example: "  gantry limit 3f9a 10M\n  gantry limit 3f9a 0",
		Args:    wantArgs(2), ValidArgsFunction: e.completeJobs,
		RunE: func(cmd *cobra.Command, args []string) error {
			var limit rate
			if err := limit.Set(args[1]); err != nil {
				return misused(cmd, "%v", err)
			}
			_, info, o, err := e.reach(args[0])
			if err != nil {
				return err
			}
			defer o.close()
			if info.Outcome != "" {
				return refusedHere("job %s has ended: %s", info.Short(), info.Outcome)
			}
			return e.limitJob(cmd.Context(), o, info, limit)
		},
	}
}

// limitJob asks the node of every task that moves content. One that has ended
// needs no limit; when none is left, the user is told.
func (e *env) limitJob(ctx context.Context, o *operator, info *job.Info, limit rate) error {
	changed := 0
	for _, t := range info.Tasks {
		if !t.Sent || t.Request.Op != api.OpExport && t.Request.Op != api.OpImport {
			continue
		}
		c, err := o.client(t.Node)
		if err != nil {
			return err
		}
		err = c.Limit(ctx, t.Request.ID, int64(limit))
		if wire, ok := errors.AsType[*feedback.Error](err); ok && (wire.Code == api.TooLate.Name || wire.Code == api.UnknownTask.Name) {
			continue
		}
		if err != nil {
			return err
		}
		changed++
	}
	if changed == 0 {
		return refusedHere("job %s moves nothing now: it has not begun or has ended", info.Short())
	}
	if limit == 0 {
		return e.say("job %s has no limit of its own any more", info.Short())
	}
	return e.say("job %s moves at most %s a second", info.Short(), config.FormatRate(int64(limit)))
}
