package transfer

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"gantry/api"
)

// Source is where an import gets its bytes. Methods are called concurrently and
// obey their context, also while the reader that they returned is read. A
// *[feedback.Error] in an error's chain is a refusal and ends the import, unless
// its code is one that passes by itself (draining, too_many, internal,
// peer_unreachable); every other error is a broken connection and the request is
// made again. Nothing that a Source delivers is trusted.
type Source interface {
	// Window returns the lines of [Export.Window].
	Window(ctx context.Context, from, n int64) (io.ReadCloser, error)
	// Content returns the bytes from off to off+length; whatever follows them is
	// not read.
	Content(ctx context.Context, off, length int64) (io.ReadCloser, error)
	// Rehash returns the lines of [Export.Rehash].
	Rehash(ctx context.Context, n int64) (io.ReadCloser, error)
}

// How the bytes of an import are proved.
const (
	VerifyWire = "wire" // in memory, before they are written
	VerifyDisk = "disk" // and once more, read back before the file is published
)

// Defaults of an Import.
const (
	defaultPerm = 0o640
	// connections and requestPieces were measured best over TLS on two cores:
	// 4 connections, 16 MiB a request.
	connections   = 4
	requestPieces = api.MaxRange / PieceSize
	// windowPieces is a window: 256 MiB of source.
	windowPieces = 64
	// windowIdle ends a silent manifest: three missed heartbeats.
	windowIdle = api.SilentIntervals * api.HeartbeatInterval
	// contentIdle ends a silent content request; fronts do the same at 60 s.
	contentIdle = time.Minute
)

// Import brings one file. Fill the fields, then call Run once; after a restart
// an Import with the same fields goes on where the earlier one stopped.
type Import struct {
	Source Source
	Root   *os.Root    // root of the resource
	Name   string      // of the target, below Root; its folder must exist
	Mode   string      // api.ModeCreate (default) or api.ModeReplace
	Perm   os.FileMode // of a created file, default 0640; a replaced one keeps its own
	Task   string      // id of the task, which names the stage: letters, digits, '-'
	Dir    string      // folder of the task, for the files of stage.go
	Expect string      // digest that the file must have, or ""
	Verify string      // VerifyWire (default) or VerifyDisk
	Report Reporter    // default Silent

	// RetryFor is how long the source may be out of reach without a proved piece
	// or a manifest line in between; default api.RetryFor.
	RetryFor time.Duration
	// Commit, if set, is called once, just before the point of no return. When
	// it returns an error the import ends with that error and nothing is
	// published; once it returned nil, cancelling the context has no effect.
	Commit func() error

	// For tests: the first and longest wait of the backoff, the longest silence,
	// and a function that may fail the nth operation on the stage.
	minWait, maxWait, idle time.Duration
	hook                   func(op string) error
}

// Run imports. When it returns nil the target is complete and durable and has
// the digest of the result; when it returns an error other than [ErrUnsettled]
// the target is what it was before. The caller then makes the result durable,
// and only then tells the source that the reader is done.
//
// Create onto a target that has the source's content already ends done, target
// "already there". A context that ends before Commit ends the import with the
// context's cause when that has a code, else with cancelled.
//
// The stage stays when Run fails, for another Run with the same Dir or a
// [TakeOver]; use Discard to give its room back. Only a stage whose sync failed
// is removed at once: nobody can tell what of it is on disk.
func (m *Import) Run(ctx context.Context) (api.ImportResult, error) {
	var none api.ImportResult
	r, err := m.prepare()
	if err != nil {
		return none, err
	}
	defer r.close()
	there, err := r.exists()
	if err != nil {
		return none, err
	}
	if there && r.Mode == api.ModeCreate {
		return r.compare(ctx)
	}
	if err := r.openStages(); err != nil {
		return none, err
	}
	r.counter = r.Report.Progress(r.Name, "fetch", "bytes", -1)
	defer r.counter.End()
	if err := r.pull(ctx); err != nil {
		return none, r.spoiled(err)
	}
	result, err := r.publish(ctx)
	return result, r.spoiled(err)
}

// run is one call of Run or Recover.
type run struct {
	Import
	puller

	dir    *os.File // the target's folder
	base   string   // the target's name in it
	stages *os.File // StageDir
	st     *stage   // set by begin

	counter Counter
	file    File
	decided gauge
	bytes   struct{ fetched, hole, carried int64 } // guarded by decided.mu
	digest  string                                 // computed
	started time.Time
}

// prepare checks the fields and opens the target's folder.
func (m *Import) prepare() (*run, error) {
	r := &run{Import: *m, started: time.Now()}
	if r.Mode == "" {
		r.Mode = api.ModeCreate
	}
	if r.Verify == "" {
		r.Verify = VerifyWire
	}
	if r.Perm == 0 {
		r.Perm = defaultPerm
	}
	if r.Report == nil {
		r.Report = Silent{}
	}
	_, digestOK := ParseDigest(r.Expect)
	switch {
	case r.Mode != api.ModeCreate && r.Mode != api.ModeReplace:
		return nil, fail(api.BadRequest, nil, "mode %q", r.Mode)
	case r.Verify != VerifyWire && r.Verify != VerifyDisk:
		return nil, fail(api.BadRequest, nil, "verify %q", r.Verify)
	case r.Expect != "" && !digestOK:
		return nil, fail(api.BadRequest, nil, "expect %.80q is not b3: and 64 lower-case hex digits", r.Expect)
	case !validTask(r.Task):
		return nil, fail(api.BadRequest, nil, "task id %.80q", r.Task)
	}
	r.puller.init(m, r.Report)
	var err error
	r.dir, r.base, err = openParent(r.Root, r.Name)
	return r, err
}

// validTask keeps a task id from being a path.
func validTask(id string) bool {
	for _, c := range id {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' {
			return false
		}
	}
	return id != "" && len(id) <= api.MaxName
}

// exists says whether there is a target; it must be a regular file.
func (r *run) exists() (bool, error) {
	id, err := identify(int(r.dir.Fd()), r.base)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return false, nil
	case err != nil:
		return false, local(err, "looking at the target")
	case !id.regular():
		return false, fail(api.NotRegular, nil, "target %q is there and is not a regular file", r.Name)
	}
	return true, nil
}

// compare ends a create onto a target that is there: done if its content is the
// source's, else refused. Nothing is fetched.
func (r *run) compare(ctx context.Context) (api.ImportResult, error) {
	var none api.ImportResult
	f, err := openAt(r.dir, r.base, r.Name)
	if err != nil {
		return none, err
	}
	defer f.Close()
	src, err := newSource(f)
	if err != nil {
		return none, err
	}
	counter := r.Report.Progress(r.Name, "compare", "bytes", src.id.size)
	defer counter.End()
	sc, tree := scanner{src: src}, Tree{}
	differs := fail(api.Exists, nil, "target %q is there with other content", r.Name)
	digest, err := r.windows(ctx, nil, func(file File, e Entry) error {
		if file.Size != src.id.size {
			return differs
		}
		for n := e.N; n < e.N+e.Count; n++ {
			v, zero, err := sc.piece(ctx, n)
			switch {
			case codeOf(err) == api.SourceChanged:
				return fail(api.TargetChanged, err, "target %q changed while it was compared", r.Name)
			case err != nil:
				return err
			case zero != e.Zero || !zero && v != e.Value:
				return differs
			}
			tree.Add(v)
			counter.Add(PieceLen(n, src.id.size))
		}
		return nil
	})
	if err != nil {
		return none, err
	}
	r.file, r.digest = File{Size: src.id.size}, FormatDigest(tree.Root())
	if err := r.agree(digest); err != nil {
		return none, err
	}
	r.bytes.carried = src.id.size
	return r.result(api.TargetThere), nil
}

// agree compares the computed digest with the source's and the expected one.
func (r *run) agree(stated string) error {
	if r.digest != stated {
		return badManifest("its digest %s is not the one of its values, %s", stated, r.digest)
	}
	if r.Expect != "" && r.Expect != r.digest {
		return fail(api.DigestMismatch, nil, "the source has the digest %s, expected was %s", r.digest, r.Expect)
	}
	return nil
}

// result sums up; see api.ImportResult.
func (r *run) result(target string) api.ImportResult {
	sum := r.counters()
	res := api.ImportResult{
		Digest: r.digest, Size: r.file.Size,
		Bytes: api.Bytes{Fetched: r.bytes.fetched, Hole: r.bytes.hole, Carried: r.bytes.carried},
		Wire:  sum.Wire, Attempts: sum.Attempts, Cuts: sum.Cuts, Seconds: sum.Seconds,
		Verified: r.Verify, Target: target,
	}
	if res.Seconds > 0 {
		res.Rate = float64(res.Size) / res.Seconds
	}
	return res
}

// counters are those of this start and the earlier ones.
func (r *run) counters() counters {
	sum := counters{Wire: r.wire.Load(), Attempts: r.attempts.Load(), Cuts: r.cuts.Load(), Seconds: time.Since(r.started).Seconds()}
	if r.st != nil {
		sum = sum.plus(r.st.before)
	}
	return sum
}

func (r *run) close() {
	if r.st != nil {
		r.st.close()
	}
	if r.stages != nil {
		r.stages.Close()
	}
	r.dir.Close()
}

// spoiled removes a stage that spoil marked.
func (r *run) spoiled(err error) error {
	if err != nil && r.st != nil && r.st.isSpoilt() {
		r.Report.Log("error", r.Name, "nothing of the stage can be trusted any more, it is removed")
		if derr := r.st.discard(r.stages, r.Dir); derr != nil {
			return errors.Join(err, derr)
		}
	}
	return err
}
