package transfer

import (
	"context"
	"io"
	"time"

	"gantry/api"

	"golang.org/x/sync/errgroup"
)

// Limits of what a comparison names; the rest is counted.
const (
	maxRanges      = 200
	maxDifferences = 200
	// maxDifferencesText bounds the paths that are named, in bytes: a result
	// record has room for twice that, escaped.
	maxDifferencesText = 12 << 10
	// verifyAhead is how many entries one side may be ahead of the other.
	verifyAhead = 64
)

// Verify compares two exports by what their sources say of them; no content
// moves. Both manifests are read side by side, so memory is bounded at any size.
type Verify struct {
	A, B         Source
	NameA, NameB string   // for messages
	Report       Reporter // default Silent
	RetryFor     time.Duration
}

// Run compares. The result says what differs; errors are about one of the sources
// and name it. Of files and streams the content is compared, of trees content,
// type, link target, mode and mtime of every entry; owners and extended
// attributes are not.
func (v *Verify) Run(ctx context.Context) (api.VerifyResult, error) {
	started := time.Now()
	if v.Report == nil {
		v.Report = Silent{}
	}
	var a, b puller
	a.init(&Import{Source: v.A, Name: v.NameA, RetryFor: v.RetryFor}, v.Report)
	b.init(&Import{Source: v.B, Name: v.NameB, RetryFor: v.RetryFor}, v.Report)
	kind, err := v.kinds(ctx, &a, &b)
	if err != nil {
		return api.VerifyResult{}, err
	}
	counter := v.Report.Progress(v.NameA, "compare", "bytes", -1)
	defer counter.End()
	counter.Explain(func() string {
		if why := a.waits.why(); why != "" {
			return v.NameA + ": " + why
		}
		return v.NameB + ": " + b.waits.why()
	})
	res := api.VerifyResult{Kind: kind}
	if kind == kindTree {
		err = verifyTrees(ctx, &a, &b, counter, &res)
	} else {
		err = verifyFiles(ctx, &a, &b, counter, &res)
	}
	res.Seconds = time.Since(started).Seconds()
	return res, err
}

// kinds asks both what they are; a tree and a file cannot be compared.
func (v *Verify) kinds(ctx context.Context, a, b *puller) (string, error) {
	var kindA, kindB string
	g, gctx := errgroup.WithContext(ctx)
	ask := func(p *puller, kind *string) func() error {
		return func() (err error) {
			*kind, err = p.kind(gctx)
			p.drop()
			return err
		}
	}
	g.Go(ask(a, &kindA))
	g.Go(ask(b, &kindB))
	if err := g.Wait(); err != nil {
		return "", err
	}
	if (kindA == kindTree) != (kindB == kindTree) {
		return "", fail(api.BadRequest, nil, "%s is a %s and %s is a %s: name two files or two trees", v.NameA, kindA, v.NameB, kindB)
	}
	return kindA, nil
}

// both runs two readers of manifests side by side with what compares them.
func both[T any](ctx context.Context, read [2]func(context.Context, func(T) error) error, compare func(next [2]func() (T, bool)) error) error {
	g, ctx := errgroup.WithContext(ctx)
	var next [2]func() (T, bool)
	for i := range read {
		items := make(chan T, verifyAhead)
		g.Go(func() error {
			err := read[i](ctx, func(item T) error { return send(ctx, items, item) })
			if err == nil {
				close(items) // after an error the comparison ends by the context
			}
			return err
		})
		next[i] = func() (item T, ok bool) {
			select {
			case item, ok = <-items:
			case <-ctx.Done():
			}
			return item, ok
		}
	}
	g.Go(func() error {
		err := compare(next)
		if ctx.Err() != nil { // whatever it made of half a manifest
			return cancelled(ctx)
		}
		return err
	})
	return g.Wait()
}

// pieces reads the manifest of a file or stream; what it says at its end goes to
// side.
func (p *puller) pieces(side *api.VerifiedSide) func(context.Context, func(part) error) error {
	return func(ctx context.Context, emit func(part) error) error {
		var next int64
		p.done = func() int64 { return next } // a stream may forget what was compared
		digest, err := p.windows(ctx, nil, func(f File, e Entry) error {
			side.Size, next = f.Size, e.N+e.Count
			return emit(part{Entry: e, size: f.Size})
		})
		side.Digest = digest
		return err
	}
}

// verifyFiles compares piece by piece. Runs of zeros may be cut differently.
func verifyFiles(ctx context.Context, a, b *puller, counter Counter, res *api.VerifyResult) error {
	read := [2]func(context.Context, func(part) error) error{a.pieces(&res.A), b.pieces(&res.B)}
	err := both(ctx, read, func(next [2]func() (part, bool)) error {
		x, okX := next[0]()
		y, okY := next[1]()
		counter.SetTotal(max(x.size, y.size))
		for okX && okY {
			n := min(x.Count, y.Count)
			length := min(n*PieceSize, max(left(x), left(y)))
			if x.Zero != y.Zero || !x.Zero && x.Value != y.Value || min(n*PieceSize, left(x)) != min(n*PieceSize, left(y)) {
				differs(res, x.off(), length)
			}
			res.Pieces += n
			counter.Add(length)
			if x = x.after(n); x.Count == 0 {
				x, okX = next[0]()
			}
			if y = y.after(n); y.Count == 0 {
				y, okY = next[1]()
			}
		}
		for i, rest := range [2]part{x, y} { // of the longer one
			for ok := [2]bool{okX, okY}[i]; ok; rest, ok = next[i]() {
				differs(res, rest.off(), min(rest.Count*PieceSize, left(rest)))
				counter.Add(min(rest.Count*PieceSize, left(rest)))
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	res.Equal = res.Different == 0 && res.A.Size == res.B.Size
	if res.Equal != (res.A.Digest == res.B.Digest) {
		return badManifest("the pieces of both and their digests %s and %s contradict each other", res.A.Digest, res.B.Digest)
	}
	return nil
}

// left is how much of the whole there is from the part on; of a stream that has
// not ended, more than the part.
func left(p part) int64 {
	if p.size < 0 {
		return MaxSize
	}
	return p.size - p.off()
}

// after is the part without its first n pieces.
func (p part) after(n int64) part {
	p.N, p.Count = p.N+n, p.Count-n
	return p
}

// differs notes a part of a file.
func differs(res *api.VerifyResult, at, length int64) {
	res.Different += length
	last := len(res.Ranges) - 1
	switch {
	case last >= 0 && res.More == 0 && res.Ranges[last].At+res.Ranges[last].Len == at:
		res.Ranges[last].Len += length
	case last+1 < maxRanges:
		res.Ranges = append(res.Ranges, api.Range{At: at, Len: length})
	default:
		res.More++
	}
}

// A treeItem is an entry of a tree that is complete, or one that could not be
// read.
type treeItem struct {
	TreeEntry
	unread  bool
	unnamed bool // its path is for people and stands in no order
}

// entries reads the manifest of a tree.
func (p *puller) entries(side *api.VerifiedSide, header func(TreeHeader)) func(context.Context, func(treeItem) error) error {
	return func(ctx context.Context, emit func(treeItem) error) error {
		var cursor TreeCursor
		for end := false; !end; {
			err := p.retry(ctx, "manifest", func() (bool, error) {
				start := cursor.Next
				defer while(&p.waits.manifest)()
				rc, err := watch(ctx, p.winIdle, func(ctx context.Context) (io.ReadCloser, error) {
					return p.source.Window(ctx, start, treeWindow, 0)
				})
				if err != nil {
					return false, err
				}
				defer rc.Close()
				w, err := ReadTreeWindow(rc, &cursor, treeWindow, func(h TreeHeader, l TreeLine) error {
					p.progress()
					header(h)
					return emitItem(&l, emit)
				})
				end, side.Digest, side.Size = w.End, w.Digest, w.Size
				return cursor.Next > start, err
			})
			if err != nil {
				return err
			}
		}
		return nil
	}
}

// emitItem hands an entry on once it is complete: a large file has its digest
// after its pieces.
func emitItem(l *TreeLine, emit func(treeItem) error) error {
	switch {
	case l.Kind == TreeKindEntry && (l.Entry.Type != TreeFile || l.Entry.Size <= PieceSize), l.Kind == TreeKindDigest:
		return emit(treeItem{TreeEntry: l.Entry})
	case l.Kind == TreeKindDropped:
		return emit(treeItem{TreeEntry: TreeEntry{Path: l.Entry.Path}, unread: true})
	case l.Kind == TreeKindSkipped:
		return emit(treeItem{TreeEntry: TreeEntry{Path: l.Path}, unread: true, unnamed: l.Code == SkipBadName})
	}
	return nil
}

// verifyTrees merges both manifests, which are in the same order.
func verifyTrees(ctx context.Context, a, b *puller, counter Counter, res *api.VerifyResult) error {
	res.Counts = &api.Differences{}
	d := differing{res: res}
	read := [2]func(context.Context, func(treeItem) error) error{
		a.entries(&res.A, func(h TreeHeader) { counter.Estimate(h.Size) }), b.entries(&res.B, func(TreeHeader) {}),
	}
	err := both(ctx, read, func(next [2]func() (treeItem, bool)) error {
		named := func(i int) (treeItem, bool) {
			item, ok := next[i]()
			for ok && item.unnamed {
				d.note(item.Path, "unread")
				item, ok = next[i]()
			}
			return item, ok
		}
		x, okX := named(0)
		y, okY := named(1)
		for okX || okY {
			order := 0
			switch {
			case !okY:
				order = -1
			case !okX:
				order = 1
			default:
				order = ComparePaths(x.Path, y.Path)
			}
			d.compare(order, &x, &y)
			if order <= 0 {
				counter.Add(x.Size)
				x, okX = named(0)
			}
			if order >= 0 {
				y, okY = named(1)
			}
		}
		return nil
	})
	res.Equal = *res.Counts == api.Differences{}
	return err
}

// differing notes what differs between two trees.
type differing struct {
	res  *api.VerifyResult
	text int // bytes of the paths that are named
}

// compare compares the entries of one path; order below or above 0 means that
// only one side has it.
func (d *differing) compare(order int, x, y *treeItem) {
	switch {
	case order < 0:
		d.note(x.Path, only(x, "only_a"))
	case order > 0:
		d.note(y.Path, only(y, "only_b"))
	default:
		d.res.Entries++
		if what := differences(x, y); len(what) > 0 {
			d.note(x.Path, what...)
		}
	}
}

func only(item *treeItem, what string) string {
	if item.unread {
		return "unread" // the other side may have nothing there, or much
	}
	return what
}

// differences names what differs between two entries of one path.
func differences(x, y *treeItem) (what []string) {
	if x.unread || y.unread {
		return []string{"unread"}
	}
	if x.Type != y.Type {
		return []string{"type"}
	}
	if x.Size != y.Size || x.Digest != y.Digest {
		what = append(what, "content")
	}
	if x.Target != y.Target || x.Rdev != y.Rdev {
		what = append(what, "target")
	}
	if x.Mode != y.Mode {
		what = append(what, "mode")
	}
	if !x.MTime.Equal(y.MTime) {
		what = append(what, "mtime")
	}
	return what
}

// note counts a difference and names it while there is room.
func (d *differing) note(path string, what ...string) {
	n := d.res.Counts
	for _, w := range what {
		*map[string]*int64{
			"content": &n.Content, "type": &n.Type, "target": &n.Target, "mode": &n.Mode, "mtime": &n.MTime,
			"only_a": &n.OnlyA, "only_b": &n.OnlyB, "unread": &n.Unread,
		}[w]++
	}
	if d.text += len(path); len(d.res.Differences) == maxDifferences || d.text > maxDifferencesText {
		d.res.More++
		return
	}
	d.res.Differences = append(d.res.Differences, api.DifferentOne{Path: path, What: what})
}
