package transfer

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"gantry/api"
	"gantry/internal/atomicfile"
)

// recoverTree ends a publication that a crash interrupted; see Recover.
func (m *Import) recoverTree(p api.Publishing) (res api.ImportResult, err error) {
	r, err := m.prepareTree()
	if err != nil {
		return res, err
	}
	defer r.close()
	rec, ok, err := readTreeStaged(r.Dir)
	if err != nil || !ok {
		return res, errors.Join(local(err, "reading the record of the stage"), fail(api.IO, nil, "the record of the stage is gone"))
	}
	r.rec = rec
	res = r.recordedTree(p)
	if rec.Settled {
		return res, incomplete(res)
	}
	if r.stage, err = rec.open(r.stages); err != nil {
		return res, err
	}
	if r.stage == nil {
		return res, fail(api.TargetChanged, nil, "the stage of %q is gone: somebody else removed it", r.item)
	}
	if err := r.recoverPlace(p, res.Old); err != nil {
		return res, err
	}
	return res, incomplete(res)
}

// recoverPlace looks where the tree is.
func (r *treeImport) recoverPlace(p api.Publishing, old string) error {
	staged, err := isNew(r.stage, stageNew, p)
	if err != nil {
		return local(err, "looking at the stage")
	}
	if r.inPlace() {
		if !staged {
			return fail(api.TargetChanged, nil, "the stage of %q is gone: somebody else changed it", r.item)
		}
		if err := r.reopen(); err != nil {
			return err
		}
		return r.put(p, "")
	}
	if staged {
		return r.put(p, old)
	}
	ours, err := isNew(r.dir, r.base, p)
	if err != nil {
		return local(err, "looking at the target")
	}
	if ours {
		return r.settled(func() error { return r.leave(p, old) })
	}
	return r.rescue()
}

// rescue keeps an old tree whose successor is not where it was put.
func (r *treeImport) rescue() error {
	lost := "target %q is neither the published tree nor is its stage left: somebody else changed it since"
	if r.rec.OldIno == 0 {
		return fail(api.TargetChanged, nil, lost, r.Name)
	}
	name, err := r.oldName()
	if err != nil {
		return err
	}
	err = atomicfile.Rename(r.stage, stageNew, r.dir, name, atomicfile.NoReplace, "treein.keepold")
	if err == nil {
		err = atomicfile.SyncFile(r.dir, "treein.targetdir")
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return local(err, "keeping the old copy")
	}
	return fail(api.TargetChanged, nil, lost+"; the old copy is kept as %q", r.Name, name)
}

// recordedTree is the result as it was written before the point of no return.
func (r *treeImport) recordedTree(p api.Publishing) (res api.ImportResult) {
	data, err := os.ReadFile(filepath.Join(r.Dir, resultRecord))
	if err == nil {
		err = json.Unmarshal(data, &res)
	}
	if err != nil || res.Digest != p.Digest {
		r.Report.Log("warn", r.item, "the record of the result cannot be read, only size and digest are known")
		res = api.ImportResult{Digest: p.Digest, Size: p.Size, Verified: r.Verify}
	}
	return res
}
