package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"gantry/api"
	"gantry/feedback"
	"gantry/internal/cluster"
	"gantry/job"
)

// Names in the demo's cluster.
const (
	demoMaster        = "hub"
	demoMasterProgram = demoMaster + "/master"
)

// master is the name of the cluster's master; "" for none.
func (d *demo) master() string {
	if d.hub {
		return demoMaster
	}
	return ""
}

// copyByMaster submits the copy to the master, watches it, and kills the master
// half way: the job goes on at its nodes, the master's successor takes it up,
// and the watching goes on where it was.
func (d *demo) copyByMaster(ctx context.Context) error {
	ctx, stop := d.env.untilInterrupted(ctx)
	defer stop()
	hub := d.cluster.MasterClient()
	defer hub.Close()
	spec := job.Spec{
		Kind: job.Copy, Cluster: cluster.Name, Mode: api.ModeCreate,
		From: job.Place{Node: "alpha", File: api.File{Resource: cluster.Resource, Path: d.name}},
		To:   job.Place{Node: "beta", File: api.File{Resource: cluster.Resource, Path: d.name}},
	}
	j, err := hub.Submit(ctx, &api.JobRequest{Spec: api.Encode(spec)}, "")
	if err != nil {
		return d.left(ctx, err)
	}
	copying, over := context.WithCancel(ctx)
	var killed string
	var killing sync.WaitGroup
	killing.Go(func() { killed, err = d.killHalfWay(copying) })
	show, end := d.env.shower(func(error) {}, spec)
	final, watchErr := hub.Watch(ctx, j.ID, 0, nil, show)
	end()
	over()
	killing.Wait()
	if err := errors.Join(watchErr, err); err != nil {
		return d.left(ctx, err)
	}
	if wire, ok := final.Body.(*feedback.Error); ok {
		return wire
	}
	result, err := resultIn(final.Line)
	if err != nil {
		return err
	}
	fmt.Fprintf(d.out, "master  %s\n", killed)
	return d.report(ctx, result)
}

// left makes of the end of ctx, which is the user's wish, the exit code for it.
func (d *demo) left(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return &coded{api.ExitLeft, errors.New("left while the copy ran; the demo's cluster has ended with it")}
	}
	return err
}

// killHalfWay kills the master when half of the bytes have left the source, and
// says what came of it.
func (d *demo) killHalfWay(ctx context.Context) (string, error) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for sent := int64(0); sent < d.bytes/2; sent = d.cluster.Proxy("alpha").Sent() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return "not killed: the copy was over before half of its bytes were seen to move", nil
		}
	}
	before := d.cluster.Process(demoMasterProgram)
	if err := d.cluster.Kill(demoMasterProgram); err != nil {
		return "", err
	}
	var after cluster.Process
	err := d.cluster.Await(context.WithoutCancel(ctx), demoMasterProgram, func(p cluster.Process) bool {
		after = p
		return p.Starts > before.Starts && p.PID != 0
	})
	return fmt.Sprintf("process %d killed half way (SIGKILL); its successor %d went on with the job", before.PID, after.PID), err
}
