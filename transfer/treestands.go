package transfer

import (
	"context"
	"io"
	"path/filepath"
	"time"

	"gantry/api"

	"golang.org/x/sys/unix"
)

// kindSame is the line that stands for all numbered lines.
const kindSame = "same"

// A Haver is a [Source] that can be told which numbered lines its reader has, by
// their digest. Its reply to that may be the line kindSame instead of them, or
// that of Window(ctx, 0, n, 0).
type Haver interface {
	WindowHaving(ctx context.Context, n int64, have string) (io.ReadCloser, error)
}

// indexRules is what an index of the target depends on beside its entries.
func (t *TreeTarget) indexRules() string {
	p, err := t.Policy.orDefaults()
	if err != nil {
		return ""
	}
	return rules(p)
}

// openIndex opens what is known of the target as a whole, nil when there is none
// or when everything is to be read.
func (m *Import) openIndex() *indexReader {
	if m.Tree.Known == "" || m.Checksum || m.Verify == VerifyDisk {
		return nil
	}
	return openIndex(m.Tree.Known+indexSuffix, m.Tree.indexRules())
}

// stands says whether the target is as its index says and the source's lines,
// too, are those of the index: then there is nothing to do, and r has the end's
// numbers. reply is the source's to a request that named the index. Whatever else
// it finds, the lines tell more of it.
func (r *treeImport) stands(ctx context.Context, k *indexReader, reply io.Reader) bool {
	if r.old == nil {
		return false
	}
	ctx, cancel := context.WithCancel(ctx)
	proof := make(chan bool, 1)
	go func() {
		proof <- k.holds(ctx, int(r.old.top.Fd()), func() error { return nil })
	}()
	h, same := readSame(reply, &k.head)
	if !same {
		cancel()
	}
	holds := <-proof
	cancel()
	if !same || !holds || len(h.Filter) > 0 {
		return false
	}
	r.header = &h
	if !r.sameRoot() {
		r.header = nil
		return false
	}
	n := k.head.total()
	r.counter.SetTotal(k.head.Size)
	r.entries.SetTotal(n)
	r.count, r.count.Unchanged = k.head.Entries, n
	r.digest, r.cursor.At = k.head.Digest, k.head.Size
	r.bytes.carried.Add(k.head.Size)
	r.gain(k.head.Size)
	r.entries.Add(n)
	return true
}

// readSame reads a reply and says whether it is kindSame and fits the index.
func readSame(reply io.Reader, head *indexHead) (h TreeHeader, same bool) {
	tr := &treeReader{br: newTreeBuffer(reply)}
	l, _, err := tr.next()
	if err == nil {
		h, err = l.header()
	}
	if err == nil {
		l, _, err = tr.next()
	}
	if err != nil || l.Kind != kindSame || *l.Digest != head.Lines {
		return h, false
	}
	if l, _, err = tr.next(); err != nil || l.Kind != kindEnd || tr.end() != nil {
		return h, false
	}
	return h, *l.Digest == head.Digest && *l.Size == head.Size && *l.Entries == head.total() && *l.Skipped == 0
}

// rootEntry is the tree's own directory.
func (r *treeImport) rootEntry() *TreeEntry {
	return &TreeEntry{Path: ".", Type: TreeDir, TreeAttrs: r.header.Root}
}

// sameRoot says whether the target's own attributes are the source's. Those of a
// resource's root are the administrator's.
func (r *treeImport) sameRoot() bool {
	if r.inPlace() || r.comparing() {
		return true
	}
	ok, err := r.Policy.alike(r.rootEntry(), r.oldID, func() (map[string][]byte, error) {
		return r.Policy.readXattrs(int(r.old.top.Fd()), ".")
	})
	return ok && err == nil
}

// newIndex begins an index of the target, for when it does not differ.
func (r *treeImport) newIndex() {
	if r.Tree.Known == "" || r.DryRun || r.old == nil {
		return
	}
	r.index = newIndex(filepath.Join(r.Dir, treeIndexFile), r.Tree.indexRules(), r.oldID, r.started.Add(-racyTime))
}

// endIndex keeps the index of a target that does not differ.
func (r *treeImport) endIndex() {
	c := &r.count
	if r.building() || len(r.header.Filter) > 0 || c.Extraneous > 0 || c.Deleted > 0 || c.Unchanged != c.Files+c.Dirs+c.Links+c.Symlinks+c.Special {
		r.index.spoil()
	}
	r.index.end(r.Tree.Known+indexSuffix, r.digest, r.cursor.At)
}

// indexPublished takes up an entry of a tree that was published; id is what its
// file looks like.
func (r *treeImport) indexPublished(x *indexWriter, tree *dirTree, e *TreeEntry, id *identity) {
	if x == nil || x.bad {
		return
	}
	dir, name, done, err := tree.in(e.Path)
	if err != nil {
		x.spoil()
		return
	}
	defer done()
	here := *id
	if e.Type != TreeFile {
		if here, err = identify(dir, name); err != nil || here.mode&unix.S_IFMT != typeBits[e.Type] {
			x.spoil()
			return
		}
	}
	alike, err := r.Policy.alike(e, here, func() (map[string][]byte, error) { return r.Policy.readXattrs(dir, name) })
	if err != nil || !alike {
		x.spoil()
		return
	}
	x.entry(e.Path, e.Type, &here)
}

// openIndex opens what is known of the source as a whole, nil when there is none.
func (x *TreeExport) openIndex() *indexReader {
	path := x.knownPath()
	if path == "" || x.record.Options.Checksum {
		return nil
	}
	return openIndex(path+indexSuffix, x.indexRules())
}

// indexRules is what an index of the source depends on beside its entries; a tree
// of which rules choose has none.
func (x *TreeExport) indexRules() string {
	o := x.record.Options
	if len(o.Filter) > 0 {
		return ""
	}
	o.Known, o.Checksum = "", false
	return rules(o)
}

// newIndex begins an index of what is walked from the start.
func (x *TreeExport) newIndex(started time.Time) {
	if x.knownPath() != "" && x.indexRules() != "" && x.spool.c.Next == 0 {
		x.spool.index = newIndex(filepath.Join(x.dir, treeIndexFile), x.indexRules(), x.top, started.Add(-racyTime))
	}
}

// A sameTree is the end of a manifest whose lines nobody needed.
type sameTree struct {
	Lines   string `json:"lines"`
	Digest  string `json:"digest"`
	Size    int64  `json:"size"`
	Entries int64  `json:"entries"`
}

// isSame says whether the tree is still that of the numbered lines which have the
// digest have, by looking at every entry. Once lines were made it is not asked.
func (x *TreeExport) isSame(ctx context.Context, have string, beat func() error) (*sameTree, error) {
	x.mu.Lock()
	same, begun := x.record.Same, x.begun || x.ended
	x.mu.Unlock()
	if begun || have == "" {
		return nil, nil
	}
	if same != nil {
		if same.Lines != have {
			same = nil
		}
		return same, nil
	}
	k := x.openIndex()
	defer k.close()
	if k == nil || k.head.Lines != have {
		return nil, nil
	}
	var failed error
	told := time.Now()
	holds := k.holds(ctx, int(x.root.Fd()), func() error {
		if time.Since(told) > api.HeartbeatInterval {
			told = time.Now()
			failed = beat()
		}
		return failed
	})
	if failed != nil || !holds {
		return nil, failed
	}
	same = &sameTree{Lines: have, Digest: k.head.Digest, Size: k.head.Size, Entries: k.head.total()}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.begun { // by another request
		return nil, nil
	}
	x.record.Same = same
	if err := x.save("tree.end"); err != nil {
		x.record.Same = nil
		return nil, local(err, "recording the end")
	}
	x.item.SetTotal(same.Size)
	x.item.Add(same.Size)
	x.carried.Add(same.Size)
	return same, nil
}

// lines are those that stand for all.
func (s *sameTree) lines() (same, end treeLine) {
	skipped := int64(0)
	return treeLine{Kind: kindSame, Digest: &s.Lines}, treeLine{Kind: kindEnd, Size: &s.Size, Digest: &s.Digest, Entries: &s.Entries, Skipped: &skipped}
}
