package node

import (
	"os"

	"gantry/access"
	"gantry/api"
	"gantry/config"
	"gantry/transfer"
)

// rooted says whether a resource is a directory. A device and a command have no
// paths below them.
func rooted(r config.Resource) bool {
	return r.Kind != config.KindDevice && r.Kind != config.KindCommand
}

// fits judges an operation by the kind of its resource.
func (n *Node) fits(caller access.Caller, r config.Resource, op operation) error {
	if r.Kind == config.KindCommand {
		if err := n.gate.Policy.Allows(caller, api.MayCommand, r.Name); err != nil {
			return err
		}
	}
	if !rooted(r) && op.file().Path != "" {
		return api.BadPath.Err("resource " + r.Name + " is a " + r.Kind + " and has no paths; leave the path out")
	}
	args, resume := []string(nil), ""
	switch op := op.(type) {
	case *exportOp:
		args = op.Args
		if !rooted(r) && len(op.Filter) > 0 {
			return api.BadRequest.Err("args.filter: resource " + r.Name + " is a " + r.Kind + " and has no entries to choose from")
		}
	case *importOp:
		args, resume = op.Args, op.Resume
		if r.Kind == config.KindDevice && (op.Mode == "" || op.Mode == api.ModeCreate) {
			return api.BadRequest.Err("args.mode: a device is always there; use replace or update, which overwrite it in place")
		}
	}
	if !rooted(r) && resume != "" {
		return api.BadRequest.Err("args.resume: a " + r.Kind + " has no stage to take over")
	}
	return runs(r, op.name(), args)
}

// runs judges what only commands have.
func runs(r config.Resource, op string, args []string) error {
	if r.Kind != config.KindCommand {
		if len(args) > 0 {
			return api.BadRequest.Err("args.args: resource " + r.Name + " is no command")
		}
		return nil
	}
	switch {
	case op == api.OpDigest:
		return api.BadRequest.Err("resource " + r.Name + " is a command, whose output is not the same twice; export it")
	case op == api.OpExport && r.Command.Direction != config.CommandExport:
		return api.BadRequest.Err("resource " + r.Name + " is a command that takes input; import into it")
	case op == api.OpImport && r.Command.Direction != config.CommandImport:
		return api.BadRequest.Err("resource " + r.Name + " is a command that gives output; export it")
	}
	if _, err := r.Command.Expand(args); err != nil {
		return api.BadRequest.Err("args.args: " + err.Error())
	}
	return nil
}

// program is the command of r as it runs for the task.
func program(t *task, r config.Resource, args []string) (transfer.Program, error) {
	argv, err := r.Command.Expand(args)
	if err != nil { // the configuration has changed since
		return transfer.Program{}, api.BadRequest.Err("args.args: " + err.Error())
	}
	return transfer.Program{Argv: argv, Env: r.Command.Env, Dir: r.Command.Dir, Task: t.id}, nil
}

// openUnrooted opens a device or starts a command.
func (op *exportOp) openUnrooted(t *task, r config.Resource) (transfer.Exporter, error) {
	if r.Kind == config.KindDevice {
		return transfer.OpenDevice(r.Path, r.Live, r.Name, t.work(), reporter{t})
	}
	p, err := program(t, r, op.Args)
	if err != nil {
		return nil, err
	}
	return transfer.OpenCommand(p, r.Name, t.work(), r.Command.Spool, reporter{t})
}

// into sets the target of an import that has no directory.
func (op *importOp) into(m *transfer.Import, t *task, r config.Resource) error {
	m.Name = r.Name
	if r.Kind == config.KindDevice {
		m.Device = r.Path
		return nil
	}
	p, err := program(t, r, op.Args)
	m.Command = &p
	return err
}

// claim names the target of an import.
func claim(r config.Resource, path string) (transfer.Claim, error) {
	switch r.Kind {
	case config.KindDevice:
		key, err := transfer.DeviceKey(r.Path)
		return transfer.Claim{Key: key}, err
	case config.KindCommand:
		return transfer.Claim{Key: "command " + r.Name}, nil
	}
	dir, err := root(r)
	if err != nil {
		return transfer.Claim{}, err
	}
	defer dir.Close()
	return transfer.ClaimOf(dir, path)
}

// failed is closed when the export cannot go on by itself: its command died.
func (e *exporter) failed() <-chan struct{} {
	if x, ok := e.x.(*transfer.Stream); ok {
		return x.Failed()
	}
	return nil
}

// closeRoot closes what only directories have.
func closeRoot(dir *os.Root) error {
	if dir == nil {
		return nil
	}
	return dir.Close()
}
