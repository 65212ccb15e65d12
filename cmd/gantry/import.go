package main

import (
	"path/filepath"

	"gantry/job"

	"github.com/spf13/cobra"
)

func newImportCommand(e *env) *cobra.Command {
	var m moving
	cmd := &cobra.Command{
		Use: "import FILE|DIR|- NODE:RESOURCE[/PATH]", Short: "Bring a file or folder from here, or standard input, to a node",
		Long: "Bring a file or a folder from here to a node, or what comes from standard input. This command sends what the node asks for;\n" +
			"the node proves every piece before it writes it and publishes it in one step. Killed or left, the same\n" +
			"command goes on where it was, while the node waits for it (an hour); what came from standard input is gone then.",
		Example: "  gantry import vm1.img beta:disks/vm1.img\n  gantry import --update --delete site beta:www/site\n  pg_dump mail | gantry import - beta:dumps/mail.sql",
		Args:    wantArgs(2),
	}
	m.flags(cmd)
	m.targetFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		spec, err := m.spec(cmd, job.Import)
		if err != nil {
			return err
		}
		if spec.Local, err = e.localSource(cmd, args[0]); err != nil {
			return err
		}
		o, to, err := e.addressed(cmd, args[1])
		if err != nil {
			return err
		}
		defer o.close()
		spec.Cluster, spec.To = o.cluster.Name, to.place()
		final, err := e.begin(cmd, o, spec, m.fresh)
		if err != nil {
			return e.printIncomplete(err, to.String())
		}
		return e.printMoved(final, to.String())
	}
	return cmd
}

// localSource is the file that a user names, behind its links: a job is found
// again by it.
func (e *env) localSource(cmd *cobra.Command, name string) (string, error) {
	switch _, terminal := e.IsTerminal(e.Stdin); {
	case name == job.Stdin && terminal:
		return "", misused(cmd, "standard input is a terminal; redirect it, or name a file")
	case name == job.Stdin:
		return name, nil
	case name == "":
		return "", misused(cmd, "the file's name is empty")
	}
	path, err := filepath.Abs(name)
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return path, nil // whoever opens it says what is wrong
	}
	return real, nil
}
