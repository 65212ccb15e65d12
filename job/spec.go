package job

import (
	"fmt"
	"path/filepath"

	"gantry/api"
)

// Kinds of jobs.
const (
	Copy   = "copy"   // from a node to a node
	Export = "export" // from a node to a local file or stdout
	Digest = "digest" // of a file on a node
)

// Stdout as Spec.Local is standard output.
const Stdout = "-"

// Place is a file on a node.
type Place struct {
	Node string `json:"node"`
	api.File
}

// String is NODE:RESOURCE/PATH.
func (p Place) String() string { return p.Node + ":" + p.Resource + "/" + p.Path }

// Spec is what a user asked for. Equal specs are the same job, so that the same
// command goes on with an unfinished one.
type Spec struct {
	Kind    string `json:"kind"`
	Cluster string `json:"cluster"`
	From    Place  `json:"from"`
	To      Place  `json:"to,omitzero"`    // of a copy
	Local   string `json:"local,omitzero"` // of an export: absolute path, or Stdout
	Mode    string `json:"mode,omitzero"`  // api.ModeCreate or api.ModeReplace
	Expect  string `json:"expect,omitzero"`
	Verify  string `json:"verify,omitzero"`
}

// String is the command without its flags.
func (s Spec) String() string {
	switch s.Kind {
	case Copy:
		return "copy " + s.From.String() + " " + s.To.String()
	case Export:
		return "export " + s.From.String() + " " + s.Local
	}
	return s.Kind + " " + s.From.String()
}

// resumable reports whether a later process can go on where this one stopped:
// what went to a pipe is gone.
func (s Spec) resumable() bool { return s.Local != Stdout }

// Roles of a job's tasks.
const (
	roleExport = "export"
	roleImport = "import"
	roleDigest = "digest"
)

// tasks makes the requests of a new job, with ids and ticket.
func (s Spec) tasks() (map[string]*Task, error) {
	switch s.Kind {
	case Copy:
		ticket := api.NewTicket()
		reader := &api.Reader{ID: "spiffe://" + s.Cluster + "/node/" + s.To.Node, TicketSHA256: api.TicketSHA256(ticket)}
		export := newTask(s.From.Node, api.OpExport, api.ExportArgs{File: s.From.File, Reader: reader})
		source := api.Source{Node: s.From.Node, Task: export.Request.ID, Ticket: ticket}
		return map[string]*Task{
			roleExport: export,
			roleImport: newTask(s.To.Node, api.OpImport, api.ImportArgs{
				File: s.To.File, Mode: s.Mode, Source: source, Expect: s.Expect, Verify: s.Verify,
			}),
		}, nil
	case Export:
		if s.Local != Stdout && !filepath.IsAbs(s.Local) {
			return nil, fmt.Errorf("exporting to %s: the path is not absolute", s.Local)
		}
		// Without a named reader only the creator reads, by certificate.
		return map[string]*Task{roleExport: newTask(s.From.Node, api.OpExport, api.ExportArgs{File: s.From.File})}, nil
	case Digest:
		return map[string]*Task{roleDigest: newTask(s.From.Node, api.OpDigest, api.DigestArgs{File: s.From.File})}, nil
	}
	return nil, fmt.Errorf("there is no job of kind %q", s.Kind)
}

func newTask(node, op string, args any) *Task {
	return &Task{Node: node, Request: api.TaskRequest{ID: api.NewID(), Op: op, Args: api.Encode(args)}}
}
