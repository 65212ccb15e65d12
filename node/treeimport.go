package node

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"

	"gantry/api"
	"gantry/config"
	"gantry/transfer"
)

// treeTarget is what the resource's keys and the caller say of a tree; nil for
// resources that take none.
func (n *Node) treeTarget(r config.Resource, args *api.ImportArgs) *transfer.TreeTarget {
	if r.Tree == nil {
		return nil
	}
	place := sha256.Sum256(fmt.Appendf(nil, "import\x00%s\x00%s", r.Name, args.Path))
	return &transfer.TreeTarget{
		Policy:     transfer.TreePolicy{Owner: r.Tree.Owner, Xattrs: r.Tree.Xattrs, Special: r.Tree.Special, SetID: r.Tree.SetID},
		Extraneous: args.Extraneous,
		Known:      filepath.Join(n.folder.known(), hex.EncodeToString(place[:16])),
	}
}

// clean does in the task's runner, when its final was shown, what an import of a
// tree leaves for later: mostly to remove the old one. It ends with the node; the
// sweep does the rest.
func (op *importOp) clean(t *task) {
	m, done, err := op.transfer(t)
	if err != nil || m.Tree == nil {
		if err == nil {
			done()
		}
		return
	}
	defer done()
	if err := m.Clean(t.node.work); err != nil {
		t.node.log.Warn("cleaning up after a tree", "task", t.id, "err", err)
	}
}
