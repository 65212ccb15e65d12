package job

import (
	"context"
	"errors"
	"os"

	"gantry/api"
	"gantry/client"
	"gantry/feedback"
	"gantry/transfer"
)

// verify exports both sides and compares what they say. Nothing is moved, and
// both exports are ended in any case but one: a master that leaves compares again
// when it is back. A command line's comparison is taken up by nobody.
func (r *run) verify(ctx context.Context) (api.Raw, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := r.background(ctx, func(ctx context.Context) {
		select {
		case <-r.d.Cancel:
			cancel(api.CancelledBy.Err("cancelled"))
		case <-ctx.Done():
		}
	})
	defer stop()
	beside, leave := context.WithCancel(context.WithoutCancel(ctx))
	defer leave()
	ends := map[string]*following{}
	for role := range r.j.Tasks {
		ends[role] = r.startTask(beside, role)
	}
	result, err := r.compare(ctx, ends)
	if err != nil && ctx.Err() != nil && r.j.dir == "" && wireError(context.Cause(ctx)) == nil {
		return nil, context.Cause(ctx)
	}
	for role, end := range ends {
		if err == nil {
			err = r.compared(ctx, role, &result)
		}
		if err != nil {
			err = end.blame(err)
			r.drop(ctx, role)
		}
		end.wait(lastWords)
	}
	switch {
	case err == nil:
		return api.Encode(result), nil
	case ctx.Err() != nil:
		if cause, ok := errors.AsType[*feedback.Error](context.Cause(ctx)); ok {
			return nil, cause
		}
		return nil, api.Interrupted.Err("left while it compared; nothing was changed")
	}
	return nil, err
}

// compare waits until both sides are there and compares them.
func (r *run) compare(ctx context.Context, ends map[string]*following) (api.VerifyResult, error) {
	for _, end := range ends {
		if err := end.begun(ctx); err != nil {
			return api.VerifyResult{}, err
		}
	}
	spec := r.j.Spec
	v := transfer.Verify{NameA: spec.From.String(), NameB: spec.other(), Report: reporter{r.j.feed}}
	var err error
	if v.A, err = r.sourceOf(roleExport); err != nil {
		return api.VerifyResult{}, err
	}
	if spec.Local == "" {
		v.B, err = r.sourceOf(roleOther)
	} else {
		var x transfer.Exporter
		var done func()
		if x, done, err = r.openSide(); err == nil {
			defer done()
			v.B = transfer.Here(x)
		}
	}
	if err != nil {
		return api.VerifyResult{}, err
	}
	return v.Run(ctx)
}

func (r *run) sourceOf(role string) (client.Source, error) {
	t := r.j.Tasks[role]
	c, err := r.d.Client(t.Node)
	return client.Source{Client: c, Task: t.Request.ID}, err
}

// openSide opens the local file or directory.
func (r *run) openSide() (transfer.Exporter, func(), error) {
	info, err := os.Stat(r.j.Spec.Local)
	if err != nil {
		return nil, nil, localError(err, "looking at %s", r.j.Spec.Local)
	}
	if !info.IsDir() {
		return r.openLocal()
	}
	o := transfer.TreeOptions{Special: true, Filter: r.j.Spec.Filter, Checksum: true}
	return r.openBelow(r.j.Spec.Local, func(root *os.Root, work string) (transfer.Exporter, error) {
		return transfer.OpenTree(root, "", work, o, reporter{r.j.feed})
	})
}

// compared tells an export that its reader is done with it, which ends it.
func (r *run) compared(ctx context.Context, role string, result *api.VerifyResult) error {
	source, err := r.sourceOf(role)
	if err != nil {
		return err
	}
	digest := result.A.Digest
	if role == roleOther {
		digest = result.B.Digest
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), courtesy)
	defer cancel()
	if err := source.Finish(ctx, digest); err != nil {
		// What was compared is compared; the export is ended the other way.
		r.j.Log("warn", r.j.Tasks[role].Node, "cannot tell the source that it was compared: "+err.Error())
		r.drop(ctx, role)
	}
	return nil
}
