package job

import (
	"context"
	"maps"
	"slices"

	"gantry/api"
	"gantry/client"
	"gantry/feedback"
)

// A Node is what the steps ask of a node; *client.Client is one.
type Node interface {
	Follow(ctx context.Context, run client.Run, fn func(feedback.Record) error) (feedback.Record, error)
	Cancel(ctx context.Context, task string) error
	Ack(ctx context.Context, task string, seq int64) error
	Reach(ctx context.Context, neighbour string) (*api.Reach, error)
}

// Attempt drives j's tasks until the outcome of this attempt is known: value of
// one that is done, else wire. It does not end j's feed, so that another attempt
// may follow in it. Any err leaves the attempt undecided, as with Run; calling
// Attempt again goes on with the same tasks.
func (d *Driver) Attempt(ctx context.Context, j *Job) (value api.Raw, wire *feedback.Error, err error) {
	r, err := d.newRun(j)
	if err != nil {
		return nil, nil, err
	}
	defer r.work.Wait()
	return r.steps(ctx)
}

// Settle returns nil when it is proved that no task of j runs any more, or ever
// will: each has its final record in j's feed, or never began. What may still
// run is cancelled first. Call it between two attempts.
func (d *Driver) Settle(ctx context.Context, j *Job) error {
	r, err := d.newRun(j)
	if err != nil {
		return err
	}
	defer r.work.Wait()
	for _, role := range j.open(r.finals) {
		stop := r.background(ctx, func(ctx context.Context) { r.ask(ctx, role) })
		_, err := r.follow(ctx, role, nil)
		stop()
		// A refusal or an error of the task ends it as well as a result does.
		if err != nil && (ctx.Err() != nil || wireError(err) == nil) {
			return err
		}
	}
	return nil
}

// Open lists the tasks of which nothing in j's feed proves that they have ended or
// never began, by role.
func (j *Job) Open() (tasks []*Task, err error) {
	_, finals, err := j.known()
	for _, role := range j.open(finals) {
		tasks = append(tasks, j.Tasks[role])
	}
	return tasks, err
}

// open lists their roles, in order.
func (i *Info) open(finals map[string]feedback.Record) (roles []string) {
	for _, role := range slices.Sorted(maps.Keys(i.Tasks)) {
		t := i.Tasks[role]
		if _, over := finals[t.Request.ID]; !over && t.Sent && t.Refused == nil {
			roles = append(roles, role)
		}
	}
	return roles
}

func (d *Driver) newRun(j *Job) (*run, error) {
	after, finals, err := j.known()
	if err != nil {
		return nil, err
	}
	return &run{d: d, j: j, after: after, finals: finals, items: map[string]*item{}}, nil
}
