package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"gantry/api"
	"gantry/client"
	"gantry/config"
	"gantry/progress"

	"github.com/spf13/cobra"
)

func newListCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "list [NODE | NODE:RESOURCE[/PATH]]", Short: "List resources, or the files of one",
		Example: "  gantry list\n  gantry list alpha:disks",
		Args:    wantArgs(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := e.operator()
			if err != nil {
				return err
			}
			defer o.close()
			if len(args) == 1 && strings.Contains(args[0], ":") {
				a, err := parseAddress(cmd, o.cluster, args[0])
				if err != nil {
					return err
				}
				return e.listFiles(cmd.Context(), o, a)
			}
			nodes := nodeNames(o.cluster)
			if len(args) == 1 {
				if _, ok := o.cluster.Node(args[0]); !ok {
					return o.noNode(args[0])
				}
				nodes = args
			}
			return e.listResources(cmd.Context(), o, nodes)
		},
	}
}

func (e *env) listResources(ctx context.Context, o *operator, nodes []string) error {
	var rows [][]string
	var failed []error
	for _, name := range nodes {
		c, err := o.client(name)
		if err != nil {
			return err
		}
		list, err := c.Resources(ctx)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		for _, r := range list.Resources {
			if e.json {
				if err := e.printJSON(nodeResource{name, r}); err != nil {
					return err
				}
				continue
			}
			var may []string
			for _, m := range r.May {
				may = append(may, string(m))
			}
			free, size := progress.Bytes(r.Free), progress.Bytes(r.Size)
			if r.Kind == config.KindDevice || r.Size == 0 {
				free = "-"
			}
			if r.Size == 0 {
				size = "-"
			}
			rows = append(rows, []string{name + ":" + r.Name, r.Kind, free, size, strings.Join(may, " ")})
		}
	}
	if len(rows) > 0 {
		if err := progress.Table(e.Stdout, []string{"resource", "kind", "free", "size", "you may"}, rows); err != nil {
			return err
		}
	}
	return errors.Join(failed...)
}

// nodeResource is a line of gantry list --json.
type nodeResource struct {
	Node string `json:"node"`
	api.Resource
}

func (e *env) listFiles(ctx context.Context, o *operator, a address) error {
	c, err := o.client(a.Node.Name)
	if err != nil {
		return err
	}
	var rows [][]string
	err = pages(ctx, c, a, func(f api.FileInfo) error {
		if e.json {
			return e.printJSON(f)
		}
		size := progress.Bytes(f.Size)
		if f.Type != "file" {
			size = ""
		}
		rows = append(rows, []string{f.Mode, size, f.MTime.Local().Format("2006-01-02 15:04"), f.Type, f.Name})
		return nil
	})
	if err != nil || len(rows) == 0 {
		return err
	}
	return progress.Table(e.Stdout, []string{"mode", "size", "changed", "type", "name"}, rows)
}

// pages reads page after page. A node whose cursor does not move is stopped.
func pages(ctx context.Context, c *client.Client, a address, fn func(api.FileInfo) error) error {
	for cursor := ""; ; {
		page, err := c.Files(ctx, a.File.Resource, a.File.Path, cursor)
		if err != nil {
			return err
		}
		for _, f := range page.Files {
			if err := fn(f); err != nil {
				return err
			}
		}
		if page.Next == "" {
			return nil
		}
		if page.Next == cursor {
			return fmt.Errorf("%s: the list does not go on after %q; look at the node's version", c.Node(), cursor)
		}
		cursor = page.Next
	}
}
