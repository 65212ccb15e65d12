package job

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"gantry/api"
)

// Kinds of jobs.
const (
	Copy   = "copy"   // from a node to a node
	Export = "export" // from a node to a local file or stdout
	Import = "import" // from a local file or stdin to a node
	Digest = "digest" // of a file on a node
	Verify = "verify" // a comparison with another node, or with a local file
	Call   = "call"   // one operation on many nodes
)

// Stdout as Spec.Local is standard output.
const Stdout = "-"

// Stdin as Spec.Local of an import is standard input.
const Stdin = "-"

// Place is a file on a node.
type Place struct {
	Node string `json:"node"`
	api.File
}

// String is NODE:RESOURCE/PATH, or NODE:RESOURCE for the whole of it.
func (p Place) String() string {
	if p.Path == "" {
		return p.Node + ":" + p.Resource
	}
	return p.Node + ":" + p.Resource + "/" + p.Path
}

// Spec is what a user asked for. Equal specs are the same job, so that the same
// command goes on with an unfinished one.
type Spec struct {
	Kind    string `json:"kind"`
	Cluster string `json:"cluster"`
	From    Place  `json:"from,omitzero"`
	To      Place  `json:"to,omitzero"`    // of a copy or an import
	Way     string `json:"way,omitzero"`   // of a copy: Pull, Push, or "" as the nodes can
	Local   string `json:"local,omitzero"` // of an export or import: absolute path, or Stdout or Stdin
	Mode    string `json:"mode,omitzero"`  // api.ModeCreate, api.ModeReplace or api.ModeUpdate
	Expect  string `json:"expect,omitzero"`
	Verify  string `json:"verify,omitzero"`
	Resume  string `json:"resume,omitzero"` // the ended import whose stage is taken over
	Full    bool   `json:"full,omitzero"`   // of a digest: drop what was recorded before
	// Call is what a call asks for; nil in all other jobs.
	Call *api.CallSpec `json:"call,omitzero"`
	Options
}

// Options go into the tasks as they are; see api.ExportArgs and api.ImportArgs.
type Options struct {
	KeepOld    bool     `json:"keep_old,omitzero"`
	DryRun     bool     `json:"dry_run,omitzero"`
	Extraneous string   `json:"extraneous,omitzero"`
	Checksum   bool     `json:"checksum,omitzero"`
	TrustMTime bool     `json:"trust_mtime,omitzero"`
	Bandwidth  int64    `json:"bwlimit,omitzero"` // bytes a second, at both ends: what only the reader holds back piles up on the way
	Parallel   int      `json:"parallel,omitzero"`
	Compress   string   `json:"compress,omitzero"`
	Filter     []string `json:"filter,omitempty"`
	Args       []string `json:"args,omitempty"`        // of the source's command
	TargetArgs []string `json:"target_args,omitempty"` // of the target's command
}

// equal says whether two specs ask for the same.
func (s Spec) equal(other Spec) bool { return bytes.Equal(api.Encode(s), api.Encode(other)) }

// exportArgs are those of the export that the job makes.
func (s Spec) exportArgs() api.ExportArgs {
	return api.ExportArgs{
		File: s.From.File, Checksum: s.Checksum, TrustMTime: s.TrustMTime, Filter: s.Filter,
		Bandwidth: s.Bandwidth, Args: s.Args,
	}
}

// importArgs are those of the import that the job makes, but for its source.
func (s Spec) importArgs() api.ImportArgs {
	return api.ImportArgs{
		File: s.To.File, Mode: s.Mode, Expect: s.Expect, Verify: s.Verify, Resume: s.Resume,
		KeepOld: s.KeepOld, DryRun: s.DryRun, Extraneous: s.Extraneous, Checksum: s.Checksum, TrustMTime: s.TrustMTime,
		Bandwidth: s.Bandwidth, Parallel: s.Parallel, Compress: s.Compress, Args: s.TargetArgs,
	}
}

// String is the command without its flags.
func (s Spec) String() string {
	switch s.Kind {
	case Copy:
		return "copy " + s.From.String() + " " + s.To.String()
	case Export:
		return "export " + s.From.String() + " " + s.Local
	case Import:
		return "import " + s.Local + " " + s.To.String()
	case Verify:
		return "verify " + s.From.String() + " " + s.other()
	case Call:
		return callString(s.Call)
	}
	return s.Kind + " " + s.From.String()
}

// resumable reports whether a later process can go on where this one stopped:
// what went to a pipe, or came from one, is gone, and so is what was compared.
func (s Spec) resumable() bool { return s.Local != Stdout && s.Kind != Verify }

// other is the second side of a comparison.
func (s Spec) other() string {
	if s.Local != "" {
		return s.Local
	}
	return s.To.String()
}

// resourceAt is what a node's part of the job is called when its path is "".
func (s Spec) resourceAt(node string) string {
	if node == s.To.Node {
		return s.To.Resource
	}
	return s.From.Resource
}

// localName is what the local side of a job is called in its feed.
func (s Spec) localName() string {
	if s.Local == Stdin {
		return "stdin"
	}
	return filepath.Base(s.Local)
}

// Roles of a job's tasks.
const (
	roleExport = "export"
	roleImport = "import"
	roleDigest = "digest"
	roleOther  = "other" // the second export of a comparison
)

// tasks makes the requests of a new job, with ids and ticket.
func (s Spec) tasks() (map[string]*Task, error) {
	switch s.Kind {
	case Copy:
		ticket := api.NewTicket()
		reader := &api.Reader{ID: "spiffe://" + s.Cluster + "/node/" + s.To.Node, TicketSHA256: api.TicketSHA256(ticket)}
		exportArgs, importArgs := s.exportArgs(), s.importArgs()
		exportArgs.Reader = reader
		export := newTask(s.From.Node, api.OpExport, exportArgs)
		importArgs.Source = api.Source{Node: s.From.Node, Task: export.Request.ID, Ticket: ticket}
		return map[string]*Task{
			roleExport: export,
			roleImport: newTask(s.To.Node, api.OpImport, importArgs),
		}, nil
	case Export:
		if s.Local != Stdout && !filepath.IsAbs(s.Local) {
			return nil, fmt.Errorf("exporting to %s: the path is not absolute", s.Local)
		}
		// Without a named reader only the creator reads, by certificate.
		return map[string]*Task{roleExport: newTask(s.From.Node, api.OpExport, s.exportArgs())}, nil
	case Import:
		if s.Local != Stdin && !filepath.IsAbs(s.Local) {
			return nil, fmt.Errorf("importing %s: the path is not absolute", s.Local)
		}
		importArgs := s.importArgs()
		importArgs.Push = &api.Pusher{} // only the creator pushes, by certificate
		return map[string]*Task{roleImport: newTask(s.To.Node, api.OpImport, importArgs)}, nil
	case Verify:
		tasks := map[string]*Task{roleExport: newTask(s.From.Node, api.OpExport, s.exportArgs())}
		if s.Local == "" {
			other := s.exportArgs()
			other.File, other.Args = s.To.File, s.TargetArgs
			tasks[roleOther] = newTask(s.To.Node, api.OpExport, other)
		}
		return tasks, nil
	case Call:
		return callTasks(s.Call)
	case Digest:
		return map[string]*Task{roleDigest: newTask(s.From.Node, api.OpDigest, api.DigestArgs{File: s.From.File, Full: s.Full})}, nil
	}
	return nil, fmt.Errorf("there is no job of kind %q", s.Kind)
}

func newTask(node, op string, args any) *Task {
	return &Task{Node: node, Request: api.TaskRequest{ID: api.NewID(), Op: op, Args: api.Encode(args)}}
}

// Driven reports whether a master drives the job: one with a local side is
// driven by whoever has that side.
func (s Spec) Driven() bool { return s.Local == "" }

// Nodes are the nodes that the job touches, each once.
func (s Spec) Nodes() []string {
	if s.Call != nil {
		return slices.Clone(s.Call.Nodes)
	}
	var nodes []string
	for _, name := range []string{s.From.Node, s.To.Node} {
		if name != "" && !slices.Contains(nodes, name) {
			nodes = append(nodes, name)
		}
	}
	return nodes
}

// Slots are the nodes on which the job takes a slot while it runs. A call takes
// none: it has a window of its own, and is short at each node.
func (s Spec) Slots() []string {
	if s.Call != nil {
		return nil
	}
	return s.Nodes()
}

// Check says why there can be no such job.
func (s Spec) Check() error {
	source, target := s.From.Node != "" && s.From.Resource != "", s.To.Node != "" && s.To.Resource != ""
	ok := false
	switch s.Kind {
	case Call:
		if s.Call == nil || source || target || s.Local != "" {
			return errors.New("a call has the member call, and neither from, to nor local")
		}
		return CheckCall(s.Call)
	case Copy:
		ok = source && target && s.Local == ""
	case Export:
		ok = source && !target && s.Local != ""
	case Import:
		ok = target && !source && s.Local != ""
	case Digest:
		ok = source && !target && s.Local == ""
	case Verify:
		ok = source && target == (s.Local == "")
	default:
		return fmt.Errorf("kind: there is no job of kind %q", s.Kind)
	}
	if !ok || s.Call != nil {
		return fmt.Errorf("a %s does not go from %q to %q with the local side %q", s.Kind, s.From, s.To, s.Local)
	}
	return nil
}
