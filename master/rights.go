package master

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"gantry/access"
	"gantry/api"
	"gantry/job"
	"gantry/pki"
)

// A need is one right that a job takes at a node.
type need struct {
	right          api.Right
	node, resource string
	pointer        string // of the field that asks for it
}

// needs lists what a job does, in the rights that its tasks need at the nodes.
func needs(spec job.Spec) []need {
	read := need{api.MayExport, spec.From.Node, spec.From.Resource, "/spec/from"}
	var list []need
	switch spec.Kind {
	case job.Call:
		op := api.CallOpOf(spec.Call.Op)
		for _, node := range spec.Call.Nodes {
			list = append(list, need{op.Right, node, spec.Call.Args.Resource, "/spec/call/nodes"})
		}
	case job.Digest:
		read.right = api.MayDigest
		list = append(list, read)
	case job.Copy, job.Export:
		list = append(list, read)
	case job.Verify:
		list = append(list, read)
		if spec.Local == "" {
			list = append(list, need{api.MayExport, spec.To.Node, spec.To.Resource, "/spec/to"})
		}
	}
	if spec.Kind == job.Copy || spec.Kind == job.Import {
		list = append(list, need{api.ImportRight(spec.Mode, spec.Extraneous), spec.To.Node, spec.To.Resource, "/spec/to"})
	}
	if len(spec.Args) > 0 && spec.From.Node != "" {
		list = append(list, need{api.MayCommand, spec.From.Node, spec.From.Resource, "/spec/args"})
	}
	if len(spec.TargetArgs) > 0 && spec.To.Node != "" {
		list = append(list, need{api.MayCommand, spec.To.Node, spec.To.Resource, "/spec/target_args"})
	}
	return list
}

// permit refuses a job of which the caller may not do every part. Only then it
// looks whether the nodes exist: who may not ask does not learn which do.
func (s *Server) permit(c access.Caller, spec job.Spec) error {
	list := needs(spec)
	if len(list) == 0 {
		return badSpec("/spec/kind", "there is no right for such a job", kinds...)
	}
	for _, n := range list {
		if err := s.gate.Policy.AllowsAt(c, n.right, n.node, n.resource); err != nil {
			return err
		}
	}
	for _, n := range list {
		if _, ok := s.gate.Cluster.Node(n.node); !ok {
			return badSpec(n.pointer+"/node", "this master's cluster.toml does not name that node")
		}
	}
	return nil
}

// stillPermitted judges a job again when an attempt is about to begin: since it
// was taken the master may have been started with other grants, or other nodes.
func (s *Server) stillPermitted(owner string, spec job.Spec) error {
	c, err := callerOf(owner)
	if err == nil {
		err = s.permit(c, spec)
	}
	if err != nil {
		s.deny(c, "begin", objectOf(spec), err)
	}
	return err
}

// callerOf is the caller that has this name.
func callerOf(owner string) (access.Caller, error) {
	if uid, ok := strings.CutPrefix(owner, api.LocalPrefix); ok {
		n, err := strconv.ParseUint(uid, 10, 32)
		if err != nil {
			return access.Caller{}, fmt.Errorf("the job's owner: %w", err)
		}
		return access.Caller{Local: &access.Local{UID: uint32(n), Self: int(n) == os.Getuid()}}, nil
	}
	id, err := pki.ParseURI(owner)
	return access.Caller{ID: id}, err
}

// objectOf names what a job would touch, for the audit log.
func objectOf(spec job.Spec) string {
	const most = 512
	text := spec.String()
	if len(text) > most {
		text = text[:most] + "…"
	}
	return text
}

// taskRefs picks what may be shown out of an attempt's memory, which has tickets
// beside it.
func taskRefs(raw api.Raw) []api.TaskRef {
	var memory job.Info
	if len(raw) == 0 || api.DecodeBytes(raw, &memory) != nil {
		return nil
	}
	var refs []api.TaskRef
	for _, role := range slices.Sorted(maps.Keys(memory.Tasks)) {
		if len(refs) == maxRefs {
			break
		}
		t := memory.Tasks[role]
		refs = append(refs, api.TaskRef{Node: t.Node, Task: t.Request.ID, Op: t.Request.Op})
	}
	return refs
}

// maxRefs bounds the tasks that are shown of one attempt; those of a call are in
// its feed.
const maxRefs = 16

// limitsOf refuses limits that the configuration does not name.
func (s *Server) limitsOf(names []string) error {
	if len(names) > api.MaxLimitNames {
		return badSpec("/limits", fmt.Sprintf("%d are the most", api.MaxLimitNames))
	}
	var known []string
	for _, l := range s.cfg.Named {
		known = append(known, l.Name)
	}
	for i, name := range names {
		if !slices.Contains(known, name) {
			return badSpec(fmt.Sprintf("/limits/%d", i), "this master has no such limit", known...)
		}
		if slices.Contains(names[:i], name) {
			return badSpec(fmt.Sprintf("/limits/%d", i), "stands there twice")
		}
	}
	return nil
}
