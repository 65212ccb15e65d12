package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"

	"gantry/api"
	"gantry/feedback"
	"gantry/job"
	"gantry/progress"

	"github.com/spf13/cobra"
)

// hubPages bounds how many pages of jobs are looked through for a short id.
const hubPages = 50

// each hands fn the jobs of the master, newest first, until it returns false or
// pages are through; more says that there are others.
func (h *hub) each(ctx context.Context, pages int, fn func(*api.Job) bool) (more bool, err error) {
	filter := url.Values{}
	for range pages {
		list, err := h.Jobs(ctx, filter)
		if err != nil {
			return false, err
		}
		for i := range list.Jobs {
			if !fn(&list.Jobs[i]) {
				return true, nil
			}
		}
		if list.Next == "" {
			return false, nil
		}
		filter.Set("cursor", list.Next)
	}
	return true, nil
}

// find finds the job that the user names, by its id or one end of it.
func (h *hub) find(ctx context.Context, id string) (*api.Job, error) {
	if api.ValidID(id) {
		return h.Job(ctx, id)
	}
	var found []string
	if _, err := h.each(ctx, hubPages, func(j *api.Job) bool {
		if names(id, j.ID) {
			found = append(found, j.ID)
		}
		return len(found) < 2
	}); err != nil {
		return nil, err
	}
	switch len(found) {
	case 0:
		return nil, notFound("job %q is neither here nor at master %s; gantry jobs lists them", id, h.name)
	case 1:
		return h.Job(ctx, found[0])
	}
	return nil, notFound("job %q: several jobs at master %s have an id like that, name more of it", id, h.name)
}

// atHub finds a job at the master: one that is not kept here, or any when
// --master says so. h is nil where the job is to be looked for here alone; else
// it must be closed.
func (e *env) atHub(cmd *cobra.Command, id string) (h *hub, j *api.Job, err error) {
	if e.master == "" {
		store, err := e.store()
		if err != nil {
			return nil, nil, err
		}
		if _, err := store.Find(id); !errors.Is(err, job.ErrNotFound) {
			return nil, nil, nil
		}
	}
	if h, err = e.hubAlone(cmd); h == nil || err != nil {
		return nil, nil, err
	}
	if j, err = h.find(cmd.Context(), id); err != nil {
		h.Close()
		return nil, nil, err
	}
	return h, j, nil
}

// listAll lists the jobs that were started here and the newest ones of the
// master, or all of them.
func (e *env) listAll(ctx context.Context, h *hub, here []*job.Info, all bool) error {
	own := map[string]*job.Info{}
	for _, i := range here {
		own[i.ID] = i
	}
	var jobs []listedJob
	pages := 1
	if all {
		pages = 1 << 30
	}
	more, err := h.each(ctx, pages, func(j *api.Job) bool {
		var spec job.Spec
		command := j.Kind
		if api.DecodeBytes(j.Spec, &spec) == nil {
			command = commandOf(spec)
		}
		state := string(j.State)
		if i := own[j.ID]; i != nil && i.Outcome != "" {
			state = string(i.Outcome) // which the master may not have been told
		}
		delete(own, j.ID)
		jobs = append(jobs, listedJob{
			ID: j.ID, Command: command, State: state, Created: j.Created, Master: h.name, Owner: j.Owner, Driver: j.Driver, Why: j.Why,
		})
		return true
	})
	for _, i := range here {
		if own[i.ID] != nil {
			jobs = append(jobs, listedHere(i))
		}
	}
	slices.SortStableFunc(jobs, func(a, b listedJob) int { return b.Created.Compare(a.Created) })
	if shown := e.showAll(jobs); shown != nil {
		return shown
	}
	if err != nil {
		return fmt.Errorf("only the jobs that were started here are shown: %w", err)
	}
	if more {
		return e.say("the newest jobs of master %s are shown; --all shows every one", h.name)
	}
	return nil
}

func (e *env) showAll(jobs []listedJob) error {
	var rows [][]string
	for _, j := range jobs {
		if e.json {
			if err := e.printJSON(j); err != nil {
				return err
			}
			continue
		}
		where := "here"
		if j.Master != "" {
			where = j.Master
		}
		if j.Driver != "" {
			where += ", by " + feedback.Printable(path.Base(j.Driver))
		}
		rows = append(rows, []string{
			shortID(j.ID), j.Created.Local().Format("2006-01-02 15:04:05"), feedback.Printable(j.State), where, feedback.Printable(j.Command),
		})
	}
	if len(rows) == 0 {
		return nil
	}
	return progress.Table(e.Stdout, []string{"job", "started", "state", "at", "command"}, rows)
}

// cancelHub asks a master for a job's end, or to give up asking its node.
func (e *env) cancelHub(ctx context.Context, h *hub, j *api.Job, abandon bool) error {
	if j.State.Final() {
		return refusedHere("job %s has ended: %s", shortID(j.ID), j.State)
	}
	if abandon {
		j, err := h.Abandon(ctx, j.ID)
		if err != nil {
			return err
		}
		return e.say("job %s is %s: %s", shortID(j.ID), j.State, j.Why)
	}
	if _, err := h.Cancel(ctx, j.ID); err != nil {
		return err
	}
	if j.Driver != "" && j.State == api.JobUnknown {
		return e.say("asked for the end of job %s; who drives it, %s, has not reported of late, and ends it when that command is back", shortID(j.ID), j.Driver)
	}
	if j.State == api.JobUnknown {
		return e.say("asked for the end of job %s, whose node does not answer; if that is gone for good: gantry cancel --abandon %s", shortID(j.ID), shortID(j.ID))
	}
	return e.say("asked master %s to cancel job %s; gantry watch %s shows how it ends", h.name, shortID(j.ID), shortID(j.ID))
}

// retryHub tries a master's job again: of a call those nodes that were not done,
// else all of it, or from what is left to publish.
func (e *env) retryHub(cmd *cobra.Command, h *hub, j *api.Job, from string, only []api.Outcome, f *calling, detach bool) error {
	if j.Kind == job.Call && from == "" {
		return e.recall(cmd, h, j, only, f, detach)
	}
	for _, name := range append([]string{"only"}, callFlags...) {
		if cmd.Flags().Changed(name) {
			return misused(cmd, "--%s is for calls, and job %s is a %s", name, shortID(j.ID), j.Kind)
		}
	}
	again, err := e.insist(cmd.Context(), h, func(ctx context.Context, key string) (*api.Job, error) {
		return h.Retry(ctx, j.ID, api.RetryRequest{From: from}, key)
	})
	if err != nil {
		return err
	}
	return e.follow(cmd.Context(), h, again, 0, detach, false)
}

// callFlags are those that calling.flags adds.
var callFlags = []string{"window", "timeout", "waves", "max-failed", "diff"}

// recall calls those nodes of an ended call again that had one of the outcomes.
func (e *env) recall(cmd *cobra.Command, h *hub, j *api.Job, only []api.Outcome, f *calling, detach bool) error {
	if !j.State.Final() {
		return refusedHere("job %s has not ended: %s; gantry watch %s shows it", shortID(j.ID), j.State, shortID(j.ID))
	}
	var spec job.Spec
	if err := api.DecodeBytes(j.Spec, &spec); err != nil || spec.Call == nil {
		return fmt.Errorf("reading job %s: it is no call that this version knows", shortID(j.ID))
	}
	var answers []job.NodeAnswer
	if _, err := h.Watch(cmd.Context(), j.ID, 0, nil, func(rec feedback.Record) error {
		if a, ok := job.CallAnswerOf(rec); ok {
			answers = append(answers, a)
		}
		return nil
	}); err != nil {
		return err
	}
	call, ok := job.RetryCall(spec.Call, j.ID, answers, only)
	if !ok {
		return refusedHere("no node of job %s has such an outcome: nothing to try again", shortID(j.ID))
	}
	if err := f.apply(cmd, call); err != nil {
		return err
	}
	spec.Call = call
	return e.queue(cmd.Context(), h, spec, &queued{detach: detach, priority: j.Priority, attempts: j.MaxAttempts, limits: j.Limits}, f.diff)
}

// onlyAtHub refuses flags that a job which was started here does not have.
func onlyAtHub(cmd *cobra.Command, flags ...string) error {
	for _, name := range flags {
		if cmd.Flags().Changed(name) {
			return misused(cmd, "--%s is for the jobs of a master; --master names one", name)
		}
	}
	return nil
}
