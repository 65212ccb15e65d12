package job

import (
	"context"
	"errors"
	"fmt"

	"gantry/api"
	"gantry/client"
	"gantry/feedback"
	"gantry/transfer"
)

// Ways of a copy.
const (
	Pull = "pull" // the target's node dials the source's
	Push = "push" // the source's node dials the target's
)

// askWithin bounds the question who can dial whom: a node answers after
// api.ReachWait at most.
const askWithin = 2 * api.ReachWait

// choose settles, once per job and before anything starts, which end of a copy
// dials the other.
func (r *run) choose(ctx context.Context) error {
	if r.j.Spec.Kind != Copy || r.j.Way != "" || r.begun() {
		return nil
	}
	way, why := r.j.Spec.Way, ""
	if way == "" {
		var err error
		if way, why, err = r.direction(ctx); err != nil {
			return err
		}
	}
	if err := r.j.choose(way); err != nil {
		return err
	}
	if why != "" {
		r.j.Log("info", "", why)
	}
	return nil
}

// direction asks both ends. An end that cannot be asked decides nothing: the copy
// itself will say what is wrong with it.
func (r *run) direction(ctx context.Context) (way, why string, err error) {
	from, to := r.j.Spec.From.Node, r.j.Spec.To.Node
	if from == to {
		return Pull, "", nil
	}
	undecided := func() (way, why string, err error) { return Pull, "", context.Cause(ctx) }
	down, err := r.reach(ctx, to, from)
	if err != nil {
		return undecided()
	}
	if down.Outcome == api.ReachOK {
		return Pull, to + " pulls: it can dial " + from, nil
	}
	up, err := r.reach(ctx, from, to)
	if err != nil {
		return undecided()
	}
	if up.Outcome == api.ReachOK {
		return Push, fmt.Sprintf("%s pushes: it can dial %s, and %s cannot dial it (%s)", from, to, to, found(down)), nil
	}
	return "", "", api.UnreachableBoth.Err(fmt.Sprintf("neither node can dial the other: %s finds %s %s, and %s finds %s %s",
		to, from, found(down), from, to, found(up)))
}

func found(r *api.Reach) string {
	if r.Message == "" {
		return r.Outcome
	}
	return r.Outcome + ": " + feedback.Printable(r.Message)
}

func (r *run) reach(ctx context.Context, node, neighbour string) (*api.Reach, error) {
	c, err := r.node(node)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	return c.Reach(ctx, neighbour)
}

// choose makes the way durable. Nothing of the job was sent, so its tasks may be
// made anew.
func (j *Job) choose(way string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if way == Push {
		j.Tasks = j.Spec.pushTasks()
	}
	j.Way = way
	return j.keeper.Save(&j.Info)
}

// pushTasks are those of a copy whose source pushes.
func (s Spec) pushTasks() map[string]*Task {
	ticket := api.NewTicket()
	importArgs, exportArgs := s.importArgs(), s.exportArgs()
	importArgs.Push = &api.Pusher{ID: "spiffe://" + s.Cluster + "/node/" + s.From.Node, TicketSHA256: api.TicketSHA256(ticket)}
	im := newTask(s.To.Node, api.OpImport, importArgs)
	exportArgs.To = &api.PushTo{Node: s.To.Node, Task: im.Request.ID, Ticket: ticket}
	return map[string]*Task{roleImport: im, roleExport: newTask(s.From.Node, api.OpExport, exportArgs)}
}

// pushCopy is a copy whose source pushes: the import is there first. The outcome
// is the import's, as always.
func (r *run) pushCopy(ctx context.Context) (api.Raw, error) {
	following, leave := context.WithCancel(ctx)
	defer leave()
	stop := r.background(ctx, func(ctx context.Context) { r.onCancel(ctx, roleImport) })
	defer stop()
	im := r.startTask(following, roleImport)
	if err := im.begun(ctx); err != nil {
		return nil, err
	}
	if im.over() { // nobody has to push
		return im.value, r.notCancelled(im.err, r.exportError())
	}
	export := r.startTask(following, roleExport)
	select {
	case <-im.ended:
	case <-export.ended:
		if wireError(export.err) != nil {
			// Nobody pushes any more. Where the import knows why, that is the
			// reason; where it has to be cancelled for it, the export's is.
			r.drop(ctx, roleImport)
		}
		select {
		case <-im.ended:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if err := r.notCancelled(im.err, export.err); err != im.err {
			return nil, err
		}
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if im.err != nil && wireError(im.err) != nil && ctx.Err() == nil {
		r.drop(ctx, roleExport)
	}
	export.wait(lastWords)
	return im.value, im.err
}

// notCancelled is an import's error, or the export's where it was that for which
// the import had to be cancelled, not the user.
func (r *run) notCancelled(im, export error) error {
	wire := wireError(im)
	if wire != nil && wire.Code == api.CancelledBy.Name && wireError(export) != nil && !r.cancelled() {
		return export
	}
	return im
}

// exportError is how the export ended, as far as an earlier run has seen it.
func (r *run) exportError() error {
	t := r.j.Tasks[roleExport]
	if t.Refused != nil {
		return t.Refused
	}
	if final, ok := r.finals[t.Request.ID]; ok {
		_, err := valueOf(t.Node, final)
		return err
	}
	return nil
}

// importLocal imports a file of this machine, or standard input, at a node: this
// process pushes.
func (r *run) importLocal(ctx context.Context) (api.Raw, error) {
	t := r.j.Tasks[roleImport]
	if final, ok := r.finals[t.Request.ID]; ok {
		return valueOf(t.Node, final)
	}
	if r.cancelled() {
		return r.single(ctx, roleImport) // whatever became of the source
	}
	if r.j.Spec.Local == Stdin && t.Sent {
		r.drop(ctx, roleImport)
		return nil, api.Interrupted.Err("what came from standard input is gone")
	}
	x, closeSource, err := r.openLocal()
	if err != nil {
		if t.Sent && wireError(err) != nil {
			r.drop(ctx, roleImport) // nobody can push it any more
		}
		return nil, err
	}
	defer closeSource()
	value, err := r.pushLocal(ctx, x)
	if ctx.Err() != nil && r.j.Spec.Local == Stdin {
		r.drop(ctx, roleImport)
		return nil, api.Interrupted.Err("it was left, and what came from standard input is gone")
	}
	return value, err
}

// pushLocal follows the import and pushes x to it.
func (r *run) pushLocal(ctx context.Context, x transfer.Exporter) (api.Raw, error) {
	following, leave := context.WithCancel(ctx)
	defer leave()
	stop := r.background(ctx, func(ctx context.Context) { r.onCancel(ctx, roleImport) })
	defer stop()
	im := r.startTask(following, roleImport)
	if err := im.begun(ctx); err != nil {
		return nil, err
	}
	pushing, end := context.WithCancel(ctx)
	defer end()
	failed := make(chan error, 1)
	stopPush := r.background(pushing, func(ctx context.Context) {
		if _, err := r.pushTo(ctx, x); err != nil && ctx.Err() == nil {
			failed <- err
		}
	})
	defer stopPush()
	select {
	case <-im.ended:
		return im.value, im.err
	case err := <-failed:
		r.j.Log("error", r.j.Spec.Local, "cannot push: "+err.Error())
		r.drop(ctx, roleImport)
		im.wait(courtesy)
		select {
		case <-im.ended:
			if wire := wireError(im.err); wire == nil || wire.Code != api.CancelledBy.Name || r.cancelled() {
				return im.value, im.err
			}
		default:
		}
		return nil, err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (r *run) pushTo(ctx context.Context, x transfer.Exporter) (api.Wants, error) {
	t := r.j.Tasks[roleImport]
	c, err := r.d.Client(t.Node)
	if err != nil {
		return api.Wants{}, err
	}
	p := transfer.Push{
		From: x, To: client.Demand{Client: c, Task: t.Request.ID}, Name: r.j.Spec.localName(),
		Parallel: r.j.Spec.Parallel, Limits: transfer.Limits{transfer.NewLimit(r.j.Spec.Bandwidth)}, Report: reporter{r.j.feed},
	}
	return p.Run(ctx)
}

// A following is a task that is followed beside the steps.
type following struct {
	exporting
	value api.Raw // set before ended is closed
}

func (r *run) startTask(ctx context.Context, role string) *following {
	f := &following{exporting: exporting{started: make(chan struct{}), ended: make(chan struct{})}}
	begun := onceClosed(f.started)
	r.work.Go(func() {
		defer close(f.ended)
		f.value, f.err = r.follow(ctx, role, begun)
	})
	return f
}

// over reports whether the following has ended.
func (f *following) over() bool {
	select {
	case <-f.ended:
		return true
	default:
		return false
	}
}

func onceClosed(c chan struct{}) func() {
	var closed bool
	return func() { // follow calls it from one goroutine
		if !closed {
			closed = true
			close(c)
		}
	}
}

var errStopped = errors.New("standard input is not read any more")
