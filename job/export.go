package job

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"gantry/api"
	"gantry/client"
	"gantry/feedback"
	"gantry/transfer"

	"github.com/go-json-experiment/json"
)

// localPerm is the mode of a file that an export makes here. What nodes hold is
// often somebody's disk or mail, so only the caller reads it.
const localPerm = 0o600

// export exports at a node and pulls the bytes itself.
func (r *run) export(ctx context.Context) (api.Raw, error) {
	if p, ok, err := r.publishing(); err != nil || ok {
		if err != nil {
			return nil, err
		}
		return r.recover(ctx, p)
	}
	if r.j.Spec.Local == Stdout && r.j.Tasks[roleExport].Sent {
		r.drop(ctx, roleExport)
		return nil, api.Interrupted.Err("what went to standard output is gone")
	}
	exporting, leave := context.WithCancel(ctx)
	defer leave()
	export := r.startExport(exporting)
	if err := export.begun(ctx); err != nil {
		return nil, err
	}
	pulling, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := r.background(pulling, func(ctx context.Context) {
		select {
		case <-r.d.Cancel:
			cancel(api.CancelledBy.Err("cancelled"))
		case <-ctx.Done():
		}
	})
	result, err := r.pull(pulling)
	stop()
	switch {
	case err == nil:
		return r.exported(ctx, result, export)
	case ctx.Err() != nil && r.j.Spec.resumable():
		return nil, context.Cause(ctx)
	case wireError(err) == nil && r.j.Spec.resumable():
		return nil, err
	}
	err = export.blame(err)
	r.drop(ctx, roleExport)
	export.wait(lastWords)
	return nil, err
}

// exported tells the source. That it is told is a courtesy: the file is here.
func (r *run) exported(ctx context.Context, result api.ImportResult, export *exporting) (api.Raw, error) {
	source, err := r.source()
	if err == nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), courtesy)
		defer cancel()
		err = source.Finish(ctx, result.Digest)
	}
	if err != nil {
		r.j.Log("warn", r.j.Spec.From.Node, "cannot tell the source that the file arrived: "+err.Error())
	}
	if export != nil && err == nil {
		export.wait(lastWords)
	}
	return api.Encode(result), nil
}

func (r *run) source() (client.Source, error) {
	t := r.j.Tasks[roleExport]
	c, err := r.d.Client(t.Node)
	return client.Source{Client: c, Task: t.Request.ID}, err
}

func (r *run) pull(ctx context.Context) (api.ImportResult, error) {
	source, err := r.source()
	if err != nil {
		return api.ImportResult{}, err
	}
	if r.j.Spec.Local == Stdout {
		s := &pipe{source: source, out: r.d.Stdout, log: r.j.Log, expect: r.j.Spec.Expect}
		s.item = r.j.feed.Item("stdout", "write", "bytes", -1)
		defer s.item.End()
		return s.run(ctx)
	}
	im, done, err := r.local(source)
	if err != nil {
		return api.ImportResult{}, err
	}
	defer done()
	result, err := im.Run(ctx)
	// Who leaves comes back; only the user's cancelling has a code.
	_, coded := errors.AsType[*feedback.Error](context.Cause(ctx))
	if left := ctx.Err() != nil && !coded; err != nil && !left && !errors.Is(err, transfer.ErrUnsettled) {
		if err := im.Discard(); err != nil {
			r.j.Log("warn", "", "the part that arrived stays: "+err.Error())
		}
	}
	return result, err
}

// local is the import of package transfer that writes the file here.
func (r *run) local(source transfer.Source) (*transfer.Import, func(), error) {
	dir, base := filepath.Split(r.j.Spec.Local)
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, nil, localError(err, "opening %s", dir)
	}
	work := filepath.Join(r.j.dir, "work")
	if err := os.MkdirAll(work, 0o700); err != nil {
		root.Close()
		return nil, nil, localError(err, "making %s", work)
	}
	im := &transfer.Import{
		Source: source, Root: root, Name: base, Mode: r.j.Spec.Mode, Perm: localPerm, Task: r.j.ID, Dir: work,
		Expect: r.j.Spec.Expect, Verify: r.j.Spec.Verify, Report: reporter{r.j.feed},
	}
	return im, func() {
		// Nobody expects a folder of ours beside the file; it goes unless
		// another export still uses it.
		_ = root.Remove(transfer.StageDir)
		root.Close()
	}, nil
}

func localError(err error, format string, args ...any) error {
	code := api.IO
	switch {
	case errors.Is(err, os.ErrNotExist):
		code = api.NotFound
	case errors.Is(err, os.ErrPermission):
		code = api.Denied
	}
	return &feedback.Error{Code: code.Name, Message: fmt.Sprintf(format, args...) + ": " + err.Error(), Retryable: code.Retryable}
}

// publishing finds the point of no return of an earlier run.
func (r *run) publishing() (p api.Publishing, found bool, err error) {
	err = r.j.stored(func(rec feedback.Record) {
		if s, ok := rec.Body.(*feedback.State); ok && s.State == api.StatePublishing {
			found = json.Unmarshal(s.Detail, &p) == nil
		}
	})
	return p, found, err
}

// recover ends a publication that a crash interrupted.
func (r *run) recover(ctx context.Context, p api.Publishing) (api.Raw, error) {
	source, err := r.source()
	if err != nil {
		return nil, err
	}
	im, done, err := r.local(source)
	if err != nil {
		return nil, err
	}
	defer done()
	result, err := im.Recover(p)
	if err != nil {
		return nil, err
	}
	return r.exported(ctx, result, nil)
}

// reporter lets package transfer report into the job's feed.
type reporter struct{ feed *feedback.Feed }

func (r reporter) State(name string, detail any) error { return r.feed.State(name, detail) }
func (r reporter) Log(level, item, text string)        { r.feed.Log(level, item, text) }
func (r reporter) Progress(item, phase, unit string, total int64) transfer.Counter {
	return r.feed.Item(item, phase, unit, total)
}

// now is for measuring only.
func seconds(since time.Time) float64 { return time.Since(since).Seconds() }
