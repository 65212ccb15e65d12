package main

import (
	"fmt"
	"strings"

	"gantry/api"
	"gantry/feedback"
	"gantry/progress"

	"github.com/spf13/cobra"
)

func newCheckCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "check NODE:RESOURCE[/PATH]", Short: "Try whether a node's user can really read and write a resource",
		Long: `Try whether a node's user can really read and write a resource, and what its file
system can do. Where node.toml allows imports two small files are made in .gantry
and removed. For what is refused it says which folder refuses, and what to grant.
Exit code 1 when something is refused.`,
		Example: "  gantry check alpha:disks\n  gantry check alpha:disks/vm1.img",
		Args:    wantArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, a, err := e.addressed(cmd, args[0])
			if err != nil {
				return err
			}
			defer o.close()
			c, err := o.client(a.Node.Name)
			if err != nil {
				return err
			}
			check, err := c.Check(cmd.Context(), a.File.Resource, a.File.Path)
			if err != nil {
				return err
			}
			if err := e.printCheck(a, check); err != nil {
				return err
			}
			if !check.OK {
				return &coded{api.ExitFailed, fmt.Errorf("%s is not all that it should be", a)}
			}
			return nil
		},
	}
}

func (e *env) printCheck(a address, check *api.Check) error {
	if e.json {
		return e.printJSON(check)
	}
	var rows [][]string
	var grants []string
	for _, i := range check.Items {
		rows = append(rows, []string{feedback.Printable(i.Name), feedback.Printable(i.State), feedback.Printable(i.Text)})
		if i.Grant != "" {
			grants = append(grants, feedback.Printable(i.Name+": "+i.Grant))
		}
	}
	who := fmt.Sprintf("uid %d", check.UID)
	if check.User != "" {
		who += " (" + feedback.Printable(check.User) + ")"
	}
	if _, err := fmt.Fprintf(e.Stdout, "%s runs as %s, groups %s\n", a.Node.Name, who, strings.Trim(fmt.Sprint(check.Groups), "[]")); err != nil {
		return err
	}
	if len(check.Capabilities) > 0 {
		if _, err := fmt.Fprintln(e.Stdout, "with", feedback.Printable(strings.Join(check.Capabilities, ", "))); err != nil {
			return err
		}
	}
	if err := progress.Table(e.Stdout, []string{"tried", "result", "remarks"}, rows); err != nil {
		return err
	}
	for _, g := range grants {
		if _, err := fmt.Fprintln(e.Stdout, "to grant:", g); err != nil {
			return err
		}
	}
	return nil
}
