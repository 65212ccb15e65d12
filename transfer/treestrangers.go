package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"gantry/api"

	"golang.org/x/sys/unix"
)

// strangers deals with what the old tree has and the source does not.
func (r *treeImport) strangers(ctx context.Context) (err error) {
	if r.old == nil {
		return nil
	}
	if r.count.Skipped > 0 && r.Extraneous == api.ExtraneousDelete {
		r.Extraneous = api.ExtraneousKeep
		r.Report.Log("warn", r.item, "nothing is deleted: the source could not read all of its own entries")
	}
	if err := r.guard(r.header.Filter); err != nil {
		return badManifest("%s", wireMessage(err))
	}
	// What is protected is carried into a stage: whether there is one comes first.
	if r.guarding() && !r.building() && !r.comparing() {
		s := stranger{treeImport: r, ctx: ctx, scout: true}
		if err = s.all(); errors.Is(err, errStop) {
			err = r.build(ctx)
		}
		if err != nil {
			return err
		}
	}
	s := stranger{treeImport: r, ctx: ctx}
	if err := s.all(); err != nil {
		return err
	}
	r.named.rest("… and %[2]d more")
	return nil
}

// guard sets the rules of the source. As with rsync they protect, too: what they
// exclude is not deleted.
func (r *treeImport) guard(rules []string) (err error) {
	r.filter, err = ParseFilter(rules)
	return err
}

// guarding says whether something may be kept that a deletion meets.
func (r *treeImport) guarding() bool {
	return r.Extraneous == api.ExtraneousDelete && (r.filter != nil || r.shut.count > 0)
}

// guards says whether p, which the source does not tell of, is nothing to be
// deleted: a rule excludes it, or the source has it and does not look at it.
func (r *treeImport) guards(p string, dir bool) bool {
	return !r.filter.Includes(p, dir) || r.shut.has(p)
}

// A stranger is the walk over the old tree.
type stranger struct {
	*treeImport
	ctx     context.Context
	scout   bool         // only look: errStop says that something is to be deleted
	pending []pendingDir // directories on the way that are deleted, unless something in them is kept
}

type pendingDir struct {
	name, path string
	id         identity
	kept       bool
}

// Of whom a directory of the old tree is.
const (
	groundOurs    = iota // the source has it, too
	groundForeign        // it does not
	groundGuarded        // nothing in it is deleted
)

// within is where the walk is.
type within struct {
	dir    string
	ground int
	turned bool // the source has something else than a directory at its path, or on the way
	depth  int
}

func (s *stranger) all() error {
	d, err := openDirAt(int(s.old.top.Fd()), ".")
	if err != nil {
		return local(err, "reading the old copy")
	}
	defer d.Close()
	return s.walk(d, within{})
}

// walk looks at the entries of d.
func (s *stranger) walk(d *os.File, in within) error {
	if in.depth > maxDepth {
		return fail(api.BadFileSystem, nil, "the target's tree is deeper than %d directories", maxDepth)
	}
	for {
		if s.ctx.Err() != nil {
			return cancelled(s.ctx)
		}
		names, err := d.Readdirnames(removeChunk)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return local(err, "reading the folder %.300q of the target", in.dir)
		}
		for _, name := range names {
			if err := s.entry(d, in, name); err != nil {
				return err
			}
		}
	}
}

func (s *stranger) entry(d *os.File, in within, name string) error {
	p := path.Join(in.dir, name)
	id, ok, err := s.look(d, name, p)
	if !ok || err != nil {
		return err
	}
	isDir := id.mode&unix.S_IFMT == unix.S_IFDIR
	known := in.ground == groundOurs && s.seen.has(p)
	next := within{p, groundForeign, in.turned || known && s.turned.has(p), in.depth + 1}
	switch {
	case in.ground == groundGuarded, !known && s.guards(p, isDir), s.shut.has(p):
		next.ground = groundGuarded
	case known:
		next.ground = groundOurs
	}
	keep := next.ground == groundGuarded || s.Extraneous != api.ExtraneousDelete
	if !known && (keep || !isDir) {
		if err := s.meet(d, pendingDir{name, p, id, keep}, in.turned); err != nil {
			return err
		}
	}
	if !isDir {
		return nil
	}
	if !known && !keep {
		s.pending = append(s.pending, pendingDir{name: name, path: p, id: id})
	}
	sub, err := openDirAt(int(d.Fd()), name)
	if err != nil {
		return local(err, "opening the folder %.300q of the target", p)
	}
	defer sub.Close()
	if err := s.walk(sub, next); err != nil || known {
		return err
	}
	if !keep {
		last := len(s.pending) - 1
		if keep = s.pending[last].kept; !keep {
			err = s.gone(p)
		}
		s.pending = s.pending[:last]
	}
	if err != nil || !keep || !s.carries() {
		return err
	}
	return s.dressLike(sub, p, id)
}

// look judges what p is; ok is false when it is nothing to deal with.
func (s *stranger) look(d *os.File, name, p string) (id identity, ok bool, err error) {
	if name == StageDir {
		if s.inPlace() {
			return id, false, nil
		}
		return id, false, fail(api.BadPath, nil, "%.300q belongs to gantry itself: another resource lies in the target, which can therefore not be replaced", p)
	}
	id, err = identify(int(d.Fd()), name)
	if errors.Is(err, fs.ErrNotExist) {
		return id, false, nil
	}
	if err != nil {
		return id, false, local(err, "looking at %.300q of the target", p)
	}
	if id.mount != s.oldID.mount {
		if s.inPlace() {
			return id, false, nil // what is mounted there stays
		}
		return id, false, fail(api.BadFileSystem, nil, "a file system is mounted at %.300q of the target, which can therefore not be replaced", p)
	}
	return id, true, nil
}

// carries says whether what is kept comes along into the new tree.
func (s *stranger) carries() bool {
	return !s.scout && s.building() && !s.inPlace() && !s.comparing()
}

// meet deals with an entry that the source does not have: a file, or a directory
// that is kept.
func (s *stranger) meet(d *os.File, e pendingDir, turned bool) error {
	switch {
	case s.comparing() && !s.DryRun:
		return fail(api.Exists, nil, "target %q is there and has %.300q, which the source has not", s.item, e.path)
	case !e.kept:
		return s.gone(e.path)
	case turned:
		return inTheWay(e.path)
	}
	for i := range s.pending {
		dir := &s.pending[i]
		if dir.kept {
			continue
		}
		dir.kept = true
		if err := s.stays(nil, dir); err != nil {
			return err
		}
	}
	return s.stays(d, &e)
}

// inTheWay refuses to lose what is kept below the path of a file.
func inTheWay(p string) error {
	return fail(api.Exists, nil, "%.300q of the target is not in the source and its folder is no directory there: delete what the source does not have, or move it away", p)
}

// stays counts what is kept, and brings it along.
func (s *stranger) stays(d *os.File, e *pendingDir) error {
	if s.scout {
		return nil
	}
	s.count.Extraneous++
	if s.Extraneous == api.ExtraneousList {
		s.named.add("", func() string { return fmt.Sprintf("%.300q is extra: the source does not have it", e.path) })
	}
	if !s.carries() {
		return nil
	}
	return s.carryOne(d, e.name, e.path, e.id)
}

// gone counts what is deleted.
func (s *stranger) gone(p string) error {
	if s.scout {
		return errStop
	}
	s.count.Deleted++
	what := "deleted"
	if s.DryRun {
		what = "to be deleted"
	}
	s.named.add("", func() string { return fmt.Sprintf("%.300q is %s: the source does not have it", p, what) })
	return s.build(s.ctx)
}
