package transfer

import (
	"context"
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
	// Window returns the lines of [Exporter.Window].
	Window(ctx context.Context, from, n, done int64) (io.ReadCloser, error)
	// Content returns the bytes from off to off+length; whatever follows them is
	// not read.
	Content(ctx context.Context, off, length int64) (io.ReadCloser, error)
	// Rehash returns the lines of [Exporter.Rehash].
	Rehash(ctx context.Context, n int64) (io.ReadCloser, error)
	// Sub returns the lines of [Parter.Sub]; a source whose pieces have no parts
	// refuses with bad_request.
	Sub(ctx context.Context, pieces []int64) (io.ReadCloser, error)
	// Frames returns the bytes of [WriteFrames].
	Frames(ctx context.Context, ranges []Range, compress bool) (io.ReadCloser, error)
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
	connections   = api.DefaultParallel
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
	Mode   string      // api.ModeCreate (default), api.ModeReplace or api.ModeUpdate
	Perm   os.FileMode // of a created file, default 0640; a replaced one keeps its own
	Task   string      // id of the task, which names the stage: letters, digits, '-'
	Dir    string      // folder of the task, for the files of stage.go
	Expect string      // digest that the file must have, or ""
	Verify string      // VerifyWire (default) or VerifyDisk
	Cached bool        // write through the page cache, where whole pieces else go past it
	Report Reporter    // default Silent

	// Cache keeps the values of the target, and of zero pieces; nil: none.
	// TrustMTime believes its values of an old copy whose state is the one that
	// they were recorded in: what can be shared is not read.
	Cache      *Cache
	TrustMTime bool
	// Compress is api.CompressAuto (default) or api.CompressOff.
	Compress string
	// DryRun asks the source for everything but bytes and says what an import
	// would do; nothing is changed.
	DryRun bool
	// KeepOld keeps a file that is replaced beside the target, see [OldName].
	KeepOld bool
	// Checksum reads what is there, also where a record says what it holds.
	Checksum bool
	// Tree makes trees welcome, beside files: Name may be "", the resource's root.
	Tree *TreeTarget

	// At most one of these is set, and then Root is not: the target is a block
	// device, written in place, or a program's input. Name is what progress and
	// messages call it.
	Device  string // path
	Command *Program

	// RetryFor is how long the source may be out of reach without a proved piece
	// or a manifest line in between; default api.RetryFor.
	RetryFor time.Duration
	// Parallel is how many content requests there are at a time, each with a
	// piece in memory; 0 means 4, more than api.MaxParallel are not made.
	Parallel int
	// Commit, if set, is called once, just before the point of no return. When
	// it returns an error the import ends with that error and nothing is
	// published; once it returned nil, cancelling the context has no effect.
	Commit func() error

	// For tests: the first and longest wait of the backoff, the longest silence,
	// that the line is known to be slow, and a function that may fail the nth operation on the stage.
	minWait, maxWait, idle time.Duration
	slow                   bool // the line is known to be slow
	hook                   func(op string) error
	step                   int // entries that one Discard removes, 0: discardStep
}

// workers is how many connections there are.
func (m *Import) workers() int {
	if m.Parallel <= 0 {
		return connections
	}
	return min(m.Parallel, api.MaxParallel)
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
	defer r.drop()
	switch {
	case r.Device != "":
		return r.toDevice(ctx)
	case r.Command != nil:
		return r.toCommand(ctx)
	}
	if m.Tree != nil {
		k := m.openIndex()
		defer k.close()
		if k != nil {
			r.have = k.head.Lines
		}
		kind, err := r.kind(ctx)
		if err != nil {
			return none, err
		}
		if r.have = ""; kind == kindTree {
			reply := r.held
			r.held = nil
			return m.runTree(ctx, k, reply)
		}
	}
	return r.toFile(ctx)
}

// onlyContent refuses a source that is a tree.
func (r *run) onlyContent(ctx context.Context) error {
	kind, err := r.kind(ctx)
	if err == nil && kind == kindTree {
		err = fail(api.BadRequest, nil, "the source is a tree, the target %q takes the content of one file; import it into a resource of kind tree", r.Name)
	}
	return err
}

// fill brings the source's content into s.
func (r *run) fill(ctx context.Context, s sink) (api.ImportResult, error) {
	r.sink = s
	r.counter = r.Report.Progress(r.Name, "fetch", "bytes", -1)
	r.counter.Explain(r.waits.why)
	defer r.counter.End()
	defer func() { r.values.close() }()
	err := r.pull(ctx)
	if err != nil {
		return api.ImportResult{}, s.failed(err)
	}
	defer while(&r.waits.disk)()
	result, err := s.finish(ctx)
	return result, s.failed(err)
}

// run is one call of Run or Recover.
type run struct {
	Import
	puller

	sink    sink // set by fill
	file    File
	decided gauge
	bytes   struct{ fetched, copied, reflinked, hole, carried int64 } // guarded by decided.mu
	reuse
	values  *recorder // of the target, for the cache
	digest  string    // computed
	started time.Time

	perRequest int // most pieces of one content request

	stream bool   // the source is one; set before the sink begins
	safe   prefix // of a stream: the pieces that are durable
}

// prepare checks the fields.
func (m *Import) prepare() (*run, error) {
	r := &run{Import: *m, started: time.Now(), perRequest: requestPieces}
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
	case r.Mode != api.ModeCreate && r.Mode != api.ModeReplace && r.Mode != api.ModeUpdate:
		return nil, fail(api.BadRequest, nil, "mode %q", r.Mode)
	case r.Verify != VerifyWire && r.Verify != VerifyDisk:
		return nil, fail(api.BadRequest, nil, "verify %q", r.Verify)
	case r.Compress != "" && r.Compress != api.CompressAuto && r.Compress != api.CompressOff:
		return nil, fail(api.BadRequest, nil, "compress %q", r.Compress)
	case r.KeepOld && r.Mode == api.ModeCreate:
		return nil, fail(api.BadRequest, nil, "keep_old and mode create: nothing is replaced; use mode replace or update")
	case r.Expect != "" && !digestOK:
		return nil, fail(api.BadRequest, nil, "expect %.80q is not b3: and 64 lower-case hex digits", r.Expect)
	case !validTask(r.Task):
		return nil, fail(api.BadRequest, nil, "task id %.80q", r.Task)
	}
	r.puller.init(m, r.Report)
	r.pace.off = r.Compress == api.CompressOff
	r.pace.isSlow.Store(r.slow)
	return r, nil
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
		Bytes: api.Bytes{Fetched: r.bytes.fetched, Copied: r.bytes.copied, Reflinked: r.bytes.reflinked, Hole: r.bytes.hole, Carried: r.bytes.carried},
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
	if r.sink != nil {
		sum = sum.plus(r.sink.earlier())
	}
	return sum
}
