package job

import (
	"context"
	"errors"
	"sync"
	"time"

	"gantry/api"
	"gantry/feedback"
)

// copy exports at one node and imports at the other. The outcome is the
// import's: what the export says means only that the reader said so.
func (r *run) copy(ctx context.Context) (api.Raw, error) {
	if final, ok := r.finals[r.j.Tasks[roleImport].Request.ID]; ok {
		value, err := valueOf(r.j.Spec.To.Node, final)
		if _, over := r.finals[r.j.Tasks[roleExport].Request.ID]; err != nil && !over {
			r.drop(ctx, roleExport) // who saw the import fail may have died before
		}
		return value, err
	}
	if why := r.j.Tasks[roleImport].Refused; why != nil {
		return nil, why // whatever became of the export since
	}
	exporting, leave := context.WithCancel(ctx)
	defer leave()
	export := r.startExport(exporting)
	if err := export.begun(ctx); err != nil && !r.j.Tasks[roleImport].Sent {
		return nil, err
	}
	if _, over := r.finals[r.j.Tasks[roleExport].Request.ID]; over && !r.j.Tasks[roleImport].Sent {
		export.wait(lastWords)
		if export.err != nil {
			return nil, export.err // nobody can import from it any more
		}
	}
	// The user may cancel while the import has not begun: then it never will.
	if r.cancelled() && !r.j.Tasks[roleImport].Sent {
		r.drop(ctx, roleExport)
		return nil, api.CancelledBy.Err("cancelled before the import began")
	}
	stop := r.background(ctx, func(ctx context.Context) { r.onCancel(ctx, roleImport) })
	value, err := r.follow(ctx, roleImport, nil)
	stop()
	switch {
	case err == nil:
		// The import tells the export that it is done; its last records are
		// worth a moment, but not the outcome.
		export.wait(lastWords)
	case ctx.Err() == nil && wireError(err) != nil:
		// Only a job that ends needs its export no more; what a full disk here
		// interrupted goes on later.
		err = export.blame(err)
		r.drop(ctx, roleExport)
		export.wait(lastWords)
	}
	return value, err
}

// exporting is the export of a job, followed beside it.
type exporting struct {
	started chan struct{} // closed when it is known to exist
	ended   chan struct{} // closed when its following has ended
	err     error         // set before ended is closed
}

func (r *run) startExport(ctx context.Context) *exporting {
	e := &exporting{started: make(chan struct{}), ended: make(chan struct{})}
	begun := sync.OnceFunc(func() { close(e.started) })
	r.work.Go(func() {
		defer close(e.ended)
		_, e.err = r.follow(ctx, roleExport, begun)
	})
	return e
}

// begun waits until the export exists: before, an importer that asks for it
// would be refused.
func (e *exporting) begun(ctx context.Context) error {
	select {
	case <-e.started:
		return nil
	case <-e.ended:
		select {
		case <-e.started:
			return nil
		default:
			return e.err
		}
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// blame returns the export's error where the import's says only that the export
// is over: what ended it is what the user must know.
func (e *exporting) blame(err error) error {
	wire, ok := errors.AsType[*feedback.Error](err)
	if !ok || wire.Code != api.TooLate.Name && wire.Code != api.UnknownTask.Name {
		return err
	}
	e.wait(lastWords)
	select {
	case <-e.ended:
		if cause, ok := errors.AsType[*feedback.Error](e.err); ok {
			return cause
		}
	default:
	}
	return err
}

// wait waits for the export's end, at most d.
func (e *exporting) wait(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-e.ended:
	case <-timer.C:
	}
}
