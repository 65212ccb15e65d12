package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"gantry/api"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// TreeTarget says how a tree is kept below a resource. An Import that has one
// takes trees beside files.
type TreeTarget struct {
	Policy TreePolicy
	// Extraneous is what becomes of entries that the source does not have:
	// api.ExtraneousKeep (default), ExtraneousList or ExtraneousDelete. When the
	// source could not read all of its own, nothing is deleted.
	Extraneous string
	// Known is a file of records that save reading unchanged files again, "" for
	// none. Its folder must be there.
	Known string
}

// treeWindow is how many lines of a tree's manifest are asked for at once.
const treeWindow = api.MaxWindow

// treeImport is one call of Run or Recover for a tree.
type treeImport struct {
	Import
	puller
	Policy     TreePolicy
	Extraneous string

	top    *os.File // the resource's root
	dir    *os.File // the target's folder, nil at the root
	base   string   // the target's name in it
	stages *os.File
	stage  *os.File // nil until build
	rec    treeStaged
	made   *dirTree // stageNew
	old    *dirTree // nil without an old tree
	oldID  identity
	oldBuf []byte // see room
	known  *lookReader
	index  *indexWriter // nil without an old tree
	here   identity     // what same looked at last
	moves  *moves       // nil until something is looked for

	cursor  TreeCursor
	header  *TreeHeader
	lines   *os.File // treeLines, written through spool
	spool   *bufWriter
	late    *bufWriter
	kept    *kept
	n       int64 // entries seen
	heard   bool  // all of them
	reads   int64 // files of the old tree that the plan had to read
	seen    pathSet
	shut    pathSet // of what the source has and does not look at
	turned  pathSet // of directories of the old tree that are something else now
	carried pathSet // of what only the old tree had
	filter  *Filter // of the source
	big     *bigFile
	news    jobInMaking // files to fetch
	olds    jobInMaking // files that the old tree has
	jobs    chan bringJob
	spare   chan []treeFile // of jobs that are done
	failed  error           // of the stage: nothing of it can be trusted
	digest  string
	resumed bool

	lost, missing, left, named tally
	linkedMu                   sync.Mutex
	linked                     map[uint64]bool // old inodes of several names that have one in the stage
	count                      api.Entries
	bytes                      struct{ fetched, copied, hole, carried atomic.Int64 }
	links                      atomic.Int64 // files that share an inode with the old tree
	renamed                    atomic.Int64 // files that the old tree has under another path
	counter, entries           Counter
	placed                     atomic.Int64 // what counter has as done
	started                    time.Time
	before                     counters // of earlier starts
	spoil                      sync.Once
}

// inPlace says that the target is the resource's root, which cannot be renamed:
// it is published file by file.
func (r *treeImport) inPlace() bool { return r.dir == nil }

// item names the tree in progress and log.
func (m *Import) treeItem() string {
	if m.Name == "" {
		return "/"
	}
	return m.Name
}

// prepareTree checks the fields and opens the target's folder and the stages.
func (m *Import) prepareTree() (_ *treeImport, err error) {
	base, err := m.prepare()
	if err != nil {
		return nil, err
	}
	r := &treeImport{Import: base.Import, started: base.started, Extraneous: m.Tree.Extraneous}
	r.puller.init(m, r.Report)
	r.puller.item = m.treeItem()
	if r.Policy, err = m.Tree.Policy.orDefaults(); err != nil {
		return nil, err
	}
	switch r.Extraneous {
	case "":
		r.Extraneous = api.ExtraneousKeep
	case api.ExtraneousKeep, api.ExtraneousList, api.ExtraneousDelete:
	default:
		return nil, fail(api.BadRequest, nil, "extraneous %.40q: allowed are keep, list and delete", r.Extraneous)
	}
	if m.Name == "" && m.KeepOld {
		return nil, fail(api.BadRequest, nil, "keep_old: the root of a resource cannot be kept under another name; import into a directory below it")
	}
	say := func(level string) func(string) {
		return func(text string) { r.Report.Log(level, r.item, text) }
	}
	r.lost = tally{limit: 1, say: say("warn")}
	r.missing = tally{limit: maxNamed, say: say("error")}
	r.left = tally{limit: maxNamed, say: say("warn")}
	r.named = tally{limit: maxNamed, say: say("info")}
	r.linked, r.olds.olds = map[uint64]bool{}, true
	if err := r.openFolders(); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

// openFolders opens the resource, the target's folder and StageDir.
func (r *treeImport) openFolders() (err error) {
	if r.top, err = r.Root.Open("."); err != nil {
		return local(err, "opening the resource")
	}
	if r.Name != "" {
		if r.dir, r.base, err = openParent(r.Root, r.Name); err != nil {
			return err
		}
	}
	if r.stages, err = openStageDir(r.top, true); err != nil {
		return err
	}
	folder := r.dir
	if folder == nil {
		folder = r.top
	}
	from, err := identify(int(r.stages.Fd()), "")
	to, err2 := identify(int(folder.Fd()), "")
	if err = errors.Join(err, err2); err != nil {
		return local(err, "looking at the target's folder")
	}
	if from.dev != to.dev || from.mount != to.mount {
		return fail(api.BadFileSystem, nil, "the folder of %q is on another file system than the resource", r.Name)
	}
	return nil
}

// runTree is Run for a source that is a tree. reply is the first one, if it was
// asked for with the index k, which may be nil.
func (m *Import) runTree(ctx context.Context, k *indexReader, reply io.ReadCloser) (res api.ImportResult, err error) {
	if k == nil {
		reply.Close()
	} else {
		defer reply.Close()
	}
	r, err := m.prepareTree()
	if err != nil {
		return res, err
	}
	defer r.close()
	r.counter = r.Report.Progress(r.item, "fetch", "bytes", -1)
	r.counter.Explain(r.waits.why)
	defer r.counter.End()
	r.entries = r.Report.Progress(r.item+" entries", "fetch", "entries", -1)
	r.entries.Explain(r.waits.why)
	defer r.entries.End()
	if err := r.openOldTree(); err != nil {
		return res, err
	}
	if k != nil && r.stands(ctx, k, reply) {
		if r.Expect != "" && r.Expect != r.digest {
			return res, r.unexpected()
		}
		return r.publish(ctx)
	}
	reply.Close()
	r.newIndex()
	if err := r.openSpools(); err != nil {
		return res, err
	}
	if err = r.bring(ctx); err == nil {
		res, err = r.publish(ctx)
	}
	return res, r.ended(err)
}

// comparing says that nothing may be made: the target is there, or nobody wants
// more than to know.
func (r *treeImport) comparing() bool {
	return r.DryRun || r.Mode == api.ModeCreate && r.old != nil
}

// openOldTree opens what is at the target. An empty root is no old tree.
func (r *treeImport) openOldTree() error {
	d, err := r.openTarget()
	if d == nil || err != nil {
		return err
	}
	if r.oldID, err = identify(int(d.Fd()), ""); err != nil {
		d.Close()
		return local(err, "looking at the target")
	}
	if r.inPlace() && r.Mode == api.ModeCreate {
		names, err := d.Readdirnames(2)
		if err != nil && !errors.Is(err, io.EOF) {
			d.Close()
			return local(err, "reading the target")
		}
		if len(names) == 0 || len(names) == 1 && names[0] == StageDir {
			d.Close()
			return nil
		}
	}
	r.old = newDirTree(d)
	if r.Tree.Known != "" {
		if r.known = openLooks(r.Tree.Known); r.known != nil {
			_ = os.Chtimes(r.Tree.Known, time.Now(), time.Now()) // it is used: see SweepKnown
		}
	}
	return nil
}

// openTarget opens the target's directory, nil when there is none.
func (r *treeImport) openTarget() (*os.File, error) {
	if r.inPlace() {
		d, err := openDirAt(int(r.top.Fd()), ".")
		return d, local(err, "opening the resource")
	}
	id, err := identify(int(r.dir.Fd()), r.base)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, local(err, "looking at the target")
	case id.mode&unix.S_IFMT != unix.S_IFDIR:
		return nil, fail(api.Exists, nil, "target %q is there and is no directory, the source is a tree", r.Name)
	}
	d, err := openDirAt(int(r.dir.Fd()), r.base)
	return d, local(err, "opening the target")
}

// openSpools opens the files in which the manifest is kept. A manifest is heard
// anew by each run.
func (r *treeImport) openSpools() (err error) {
	if r.lines, r.spool, err = newSpool(filepath.Join(r.Dir, treeLines)); err != nil {
		return err
	}
	if _, r.late, err = newSpool(filepath.Join(r.Dir, treeLate)); err != nil {
		return err
	}
	r.kept, err = openKept(filepath.Join(r.Dir, treeKept))
	return local(err, "opening the notes of kept files")
}

// bring reads the manifest and makes the new tree as far as it differs.
func (r *treeImport) bring(ctx context.Context) error {
	r.jobs = make(chan bringJob, treeQueue)
	r.spare = make(chan []treeFile, treeQueue)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(r.jobs)
		return r.plan(ctx)
	})
	for range r.workers() {
		g.Go(func() error { return r.work(ctx) })
	}
	return g.Wait()
}

// gain counts bytes that are proved and in place, or takes them back.
func (r *treeImport) gain(n int64) {
	r.placed.Add(n)
	r.counter.Proved(n)
	r.counter.Add(n)
}

// plan reads the manifest to its end.
func (r *treeImport) plan(ctx context.Context) error {
	for end := false; !end; {
		err := r.retry(ctx, "manifest", func() (bool, error) {
			start := r.cursor.Next
			defer while(&r.waits.manifest)()
			rc, err := watch(ctx, r.winIdle, func(ctx context.Context) (io.ReadCloser, error) {
				return r.source.Window(ctx, start, treeWindow, 0)
			})
			if err != nil {
				return false, err
			}
			defer rc.Close()
			w, err := ReadTreeWindow(rc, &r.cursor, treeWindow, func(h TreeHeader, l TreeLine) error {
				r.progress()
				return r.line(ctx, h, &l)
			})
			end, r.digest = w.End, w.Digest
			if err == nil {
				err = r.begin(ctx, w.Header) // a tree without entries, too
			}
			return r.cursor.Next > start, err
		})
		if err != nil {
			return err
		}
	}
	if r.Expect != "" && r.Expect != r.digest {
		return r.unexpected()
	}
	return r.planned(ctx)
}

// unexpected is the refusal of a tree that is not the one that was expected.
func (r *treeImport) unexpected() error {
	return fail(api.DigestMismatch, nil, "the source has the digest %s, expected was %s", r.digest, r.Expect)
}

// begin is called with the first line of each window.
func (r *treeImport) begin(ctx context.Context, h TreeHeader) error {
	if r.header != nil {
		if r.header.Root.Mode != h.Root.Mode || !r.header.Root.MTime.Equal(h.Root.MTime) {
			return fail(api.SourceChanged, nil, "the manifest is now of another tree")
		}
		return nil
	}
	r.header = &h
	if h.Exact {
		r.counter.SetTotal(h.Size)
		r.entries.SetTotal(h.Entries)
	}
	if err := (TreePolicy{Owner: r.Policy.Owner}).vet(r.rootEntry()); err != nil {
		return err
	}
	if r.old != nil && r.sameRoot() {
		return nil
	}
	return r.build(ctx)
}

// planned is called when all of the manifest is here.
func (r *treeImport) planned(ctx context.Context) error {
	r.heard = true
	r.counter.SetTotal(r.cursor.At)
	r.entries.SetTotal(r.cursor.Entries)
	if err := r.strangers(ctx); err != nil {
		return err
	}
	if err := r.queue(ctx, &r.news); err != nil {
		return err
	}
	return r.queue(ctx, &r.olds)
}

// ended removes a stage that cannot be trusted.
func (r *treeImport) ended(err error) error {
	if err == nil || r.stage == nil {
		return err
	}
	if r.failed == nil {
		r.counters().write(r.Dir)
		return err
	}
	r.Report.Log("error", r.item, "nothing of the stage can be trusted any more, it is removed")
	return errors.Join(err, r.Discard())
}

// distrust remembers that a sync failed.
func (r *treeImport) distrust(err error) error {
	r.spoil.Do(func() { r.failed = err })
	return err
}

func (r *treeImport) close() {
	for _, f := range []*os.File{r.dir, r.stages, r.stage, r.top, r.lines} {
		if f != nil {
			f.Close()
		}
	}
	for _, t := range []*dirTree{r.made, r.old} {
		if t != nil {
			t.close()
		}
	}
	if r.late != nil {
		r.late.f.Close()
	}
	if r.kept != nil {
		r.kept.f.Close()
	}
	if r.big != nil {
		r.big.close()
	}
	r.known.close()
	r.index.drop()
}

// counters are those of this start and the earlier ones.
func (r *treeImport) counters() counters {
	return r.before.plus(counters{Wire: r.wire.Load(), Attempts: r.attempts.Load(), Cuts: r.cuts.Load(), Seconds: time.Since(r.started).Seconds()})
}

// result sums up.
func (r *treeImport) result(target string) api.ImportResult {
	count := r.count
	count.Renamed = r.renamed.Load()
	sum := r.counters()
	res := api.ImportResult{
		Digest: r.digest, Size: r.cursor.At, Wire: sum.Wire, Attempts: sum.Attempts, Cuts: sum.Cuts, Seconds: sum.Seconds,
		Bytes: api.Bytes{
			Fetched: r.bytes.fetched.Load(), Copied: r.bytes.copied.Load(), Hole: r.bytes.hole.Load(), Carried: r.bytes.carried.Load(),
		},
		Verified: r.Verify, Target: target, Entries: &count, DryRun: r.DryRun,
	}
	if res.Seconds > 0 {
		res.Rate = float64(res.Size) / res.Seconds
	}
	return res
}

// incomplete makes the error of an import that published a tree with parts
// missing: it is never called done.
func incomplete(res api.ImportResult) error {
	if res.Entries == nil || res.Entries.Skipped == 0 {
		return nil
	}
	lost, rest := "1 entry of the source is", "the rest is in place"
	if n := res.Entries.Skipped; n > 1 {
		lost = fmt.Sprintf("%d entries of the source are", n)
	}
	if res.DryRun {
		rest = "and would not be"
	}
	err := api.Incomplete.Err(lost + " not in the tree, " + rest)
	err.Detail = api.Encode(res)
	return err
}
