package node

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"

	"gantry/api"
	"gantry/config"
	"gantry/transfer"
)

// openSource opens what is exported; dir is nil where the resource has none.
func (op *exportOp) openSource(t *task, r config.Resource, dir *os.Root) (transfer.Exporter, error) {
	if !rooted(r) {
		return op.openUnrooted(t, r)
	}
	report := named{reporter{t}, t.snapshot().File.Path}
	if r.Kind != config.KindTree || isFile(dir, op.Path) {
		if len(op.Filter) > 0 {
			return nil, api.BadRequest.Err("args.filter and args.path: the path is a file, and rules choose what of a directory moves")
		}
		o := transfer.ExportOptions{Cache: t.node.cache, TrustMTime: op.TrustMTime}
		return o.Open(dir, op.Path, t.work(), report)
	}
	o := t.node.treeOptions(r, op.Path)
	o.Filter, o.Checksum = op.Filter, op.Checksum
	return transfer.OpenTree(dir, op.Path, t.work(), o, report)
}

// isFile says whether path is a regular file.
func isFile(dir *os.Root, path string) bool {
	if path == "" {
		return false
	}
	info, err := dir.Lstat(path)
	return err == nil && info.Mode().IsRegular()
}

// treeOptions are what the resource's keys say. What was read of a tree is remembered by its
// place.
func (n *Node) treeOptions(r config.Resource, path string) transfer.TreeOptions {
	place := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s", r.Name, path)) // a snapshot's path changes
	return transfer.TreeOptions{
		Cross: r.Tree.Cross, Special: r.Tree.Special == config.SpecialKeep, Xattrs: r.Tree.Xattrs,
		Known: filepath.Join(n.folder.known(), hex.EncodeToString(place[:16])),
	}
}

// tree computes the digest of a tree. After a restart it goes on.
func (op *digestOp) tree(ctx context.Context, t *task, r config.Resource, dir *os.Root) (any, error) {
	o := t.node.treeOptions(r, op.Path)
	o.Checksum = op.Full
	x, err := transfer.OpenTree(dir, op.Path, t.work(), o, reporter{t})
	if err != nil {
		return nil, err
	}
	defer x.Close()
	total, err := x.Hash(ctx)
	if err != nil {
		return nil, err
	}
	if total.Skipped > 0 {
		t.feed.Log("warn", op.Path, fmt.Sprintf("%d entries could not be read and are not in the digest", total.Skipped))
	}
	return api.DigestResult{Digest: x.Digest(), Size: x.Size(), Entries: total.Entries, Skipped: total.Skipped}, nil
}
