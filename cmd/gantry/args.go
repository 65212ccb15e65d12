package main

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

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

func (a address) String() string { return a.place().String() }

// addressed opens what is needed to reach nodes and reads an address of one; the
// operator must be closed.
func (e *env) addressed(cmd *cobra.Command, s string) (*operator, address, error) {
	o, err := e.operator()
	if err != nil {
		return nil, address{}, err
	}
	a, err := parseAddress(cmd, o.cluster, s)
	if err != nil {
		o.close()
		return nil, address{}, err
	}
	return o, a, nil
}

// parseAddress reads NODE:RESOURCE/PATH. NODE:RESOURCE and NODE:RESOURCE/ name
// all of the resource; whether its kind has that is for the node to say.
func parseAddress(cmd *cobra.Command, cluster *config.Cluster, s string) (address, error) {
	name, rest, ok := strings.Cut(s, ":")
	if !ok || name == "" || rest == "" {
		return address{}, misused(cmd, "%q is no address; write NODE:RESOURCE/PATH, such as alpha:disks/vm1.img", s)
	}
	node, ok := cluster.Node(name)
	if !ok {
		return address{}, notFound("there is no node %q in cluster.toml; gantry nodes lists them%s", name, near(name, nodeNames(cluster)))
	}
	resource, path, _ := strings.Cut(rest, "/")
	switch {
	case !utf8.ValidString(s):
		return address{}, misused(cmd, "%q is not valid UTF-8", s)
	case resource == "":
		return address{}, misused(cmd, "%q names no resource; write NODE:RESOURCE/PATH, such as alpha:disks/vm1.img", s)
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
	if bad, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		return fmt.Sprintf("--%s %q: %v", bad.GetFlag().Name, bad.GetValue(), errors.Unwrap(bad))
	}
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
