package main

import (
	"fmt"
	"strings"

	"gantry/api"
	"gantry/config"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func noArgs(cmd *cobra.Command, args []string) error { return wantArgs(0)(cmd, args) }

// wantArgs asks for one of the given numbers of arguments.
func wantArgs(numbers ...int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		for _, n := range numbers {
			if len(args) == n {
				return nil
			}
		}
		if len(args) < numbers[0] {
			return misused(cmd, "an argument is missing")
		}
		return misused(cmd, "%q is one argument too many", args[len(args)-1])
	}
}

// address is NODE:RESOURCE/PATH.
type address struct {
	Node config.ClusterNode
	File api.File
}

func (a address) String() string { return a.Node.Name + ":" + a.File.Resource + "/" + a.File.Path }

// parseAddress reads NODE:RESOURCE/PATH; the path may be empty where a folder
// is allowed.
func parseAddress(cmd *cobra.Command, cluster *config.Cluster, s string, folder bool) (address, error) {
	name, rest, ok := strings.Cut(s, ":")
	if !ok || name == "" || rest == "" {
		return address{}, misused(cmd, "%q is no address; write NODE:RESOURCE/PATH, such as alpha:disks/vm1.img", s)
	}
	node, ok := cluster.Node(name)
	if !ok {
		return address{}, notFound("there is no node %q in cluster.toml; gantry nodes lists them%s", name, near(name, nodeNames(cluster)))
	}
	resource, path, _ := strings.Cut(rest, "/")
	if resource == "" || path == "" && !folder {
		return address{}, misused(cmd, "%q names no file; write NODE:RESOURCE/PATH, such as alpha:disks/vm1.img", s)
	}
	return address{node, api.File{Resource: resource, Path: path}}, nil
}

func nodeNames(c *config.Cluster) []string {
	var names []string
	for _, n := range c.Nodes {
		names = append(names, n.Name)
	}
	return names
}

func notFound(format string, args ...any) error {
	return &coded{api.ExitNotFound, fmt.Errorf(format, args...)}
}

// flagHint says which flag was probably meant.
func flagHint(cmd *cobra.Command, err error) string {
	msg := err.Error()
	name, ok := strings.CutPrefix(msg, "unknown flag: --")
	if !ok {
		return msg
	}
	var known []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			known = append(known, "--"+f.Name)
		}
	})
	return "there is no flag --" + name + near("--"+name, known)
}

// near is the clause that names the nearest of known, or "".
func near(s string, known []string) string {
	if best := config.Nearest(s, known); best != "" {
		return "; did you mean " + best + "?"
	}
	return ""
}
