package node

import (
	"context"
	"fmt"
	"slices"

	"gantry/access"
	"gantry/api"
	"gantry/config"
	"gantry/internal/serve"
	"gantry/pki"
	"gantry/transfer"
)

// An operation is what a task does. Its fields are the task's arguments.
type operation interface {
	name() string
	file() api.File
	right() api.Right
	// check judges the arguments by themselves.
	check() error
	// prepare claims what the task needs for itself, before it is accepted.
	prepare(t *task) error
	// run does it. It returns soon after ctx ends.
	run(ctx context.Context, t *task) (any, error)
	// discard removes what an ended task left outside of its folder.
	discard(t *task) error
}

// operations makes an empty operation by name.
var operations = map[string]func() operation{
	api.OpExport: func() operation { return new(exportOp) },
	api.OpImport: func() operation { return new(importOp) },
	api.OpDigest: func() operation { return new(digestOp) },
}

// decodeOperation reads and checks arguments.
func decodeOperation(name string, args api.Raw) (operation, error) {
	make := operations[name]
	if make == nil {
		return nil, api.BadRequest.Err(fmt.Sprintf("op: allowed are %s, %s and %s", api.OpDigest, api.OpExport, api.OpImport))
	}
	op := make()
	if err := serve.DecodeJSON(args, op, "args"); err != nil {
		return nil, err
	}
	if err := op.check(); err != nil {
		return nil, err
	}
	return op, nil
}

func checkFile(f api.File) error {
	if f.Resource == "" || len(f.Resource) > api.MaxName {
		return api.BadRequest.Err(fmt.Sprintf("args.resource: a name of 1 to %d bytes is needed", api.MaxName))
	}
	if f.Path == "" {
		return nil // which kinds have that, permit knows
	}
	return transfer.CheckName(f.Path)
}

// permit judges the caller first: whoever may do nothing here does not learn
// which resources there are.
func (n *Node) permit(caller access.Caller, op operation) error {
	if err := n.gate.Policy.Allows(caller, op.right(), op.file().Resource); err != nil {
		return err
	}
	r, err := n.resource(op.file().Resource)
	if err != nil {
		return err
	}
	if op.file().Path == "" && r.Kind == config.KindFiles {
		return transfer.CheckName("")
	}
	if err := n.fits(caller, r, op); err != nil {
		return err
	}
	if op.name() == api.OpImport && !r.Writable {
		return api.Denied.Err("resource " + r.Name + " is read-only on this node")
	}
	return nil
}

// stillPermitted judges a task again that goes on after a restart: the node may
// have been started with other grants or resources. That a resource is gone is
// for the operation to say: who had a task of it knows that there was one.
func (n *Node) stillPermitted(who string, op operation) error {
	if _, err := n.resource(op.file().Resource); err != nil {
		return nil
	}
	id, err := pki.ParseURI(who)
	if err != nil {
		return err
	}
	return n.permit(access.Caller{ID: id}, op)
}

// authorize judges what a route itself needs. Tasks are judged by their
// operation, lists by what they show.
func (n *Node) authorize(caller access.Caller, route api.Route, vars map[string]string) error {
	return n.gate.Policy.Allows(caller, route.Right, vars["resource"])
}

// visible lists the names of the resources that a caller may list.
func (n *Node) visible(caller access.Caller) []string {
	var names []string
	for _, r := range n.cfg.Resources {
		if slices.Contains(n.gate.Policy.RightsOn(caller, r.Name), api.MayList) {
			names = append(names, r.Name)
		}
	}
	slices.Sort(names)
	return names
}

// digestOp computes the digest of one file. After a restart it reads it again.
type digestOp struct{ api.DigestArgs }

func (op *digestOp) name() string          { return api.OpDigest }
func (op *digestOp) file() api.File        { return op.File }
func (op *digestOp) right() api.Right      { return api.MayDigest }
func (op *digestOp) check() error          { return checkFile(op.File) }
func (op *digestOp) prepare(t *task) error { return nil }
func (op *digestOp) discard(t *task) error { return nil }

func (op *digestOp) run(ctx context.Context, t *task) (any, error) {
	r, err := t.node.resource(op.Resource)
	if err != nil {
		return nil, err
	}
	if r.Kind == config.KindDevice {
		digest, size, err := transfer.DigestDevice(ctx, r.Path, r.Live, r.Name, reporter{t})
		if err != nil {
			return nil, err
		}
		return api.DigestResult{Digest: digest, Size: size}, nil
	}
	dir, err := root(r)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if r.Kind == config.KindTree && !isFile(dir, op.Path) {
		return op.tree(ctx, t, r, dir)
	}
	f, err := transfer.OpenFile(dir, op.Path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	digest, size, err := t.node.cache.Digest(ctx, f, op.Path, reporter{t}, op.Full)
	if err != nil {
		return nil, err
	}
	return api.DigestResult{Digest: digest, Size: size}, nil
}
