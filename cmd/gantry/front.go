package main

import (
	"fmt"

	"path/filepath"
	"slices"
	"strings"

	"gantry/api"
	"gantry/client"
	"gantry/config"
	"gantry/front"
	"gantry/pki"
	"gantry/progress"

	"github.com/spf13/cobra"
)

func newFrontCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{Use: "front", Short: "The web server before a node", Args: cobra.ArbitraryArgs, RunE: group}
	cmd.AddCommand(newFrontConfigCommand(e), newFrontTokenCommand(e), newFrontCheckCommand(e))
	return cmd
}

// group is the body of a command that only has others below it.
func group(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return &misuse{cmd, commandHint(cmd, args[0])}
	}
	return misused(cmd, "name what to do; gantry help %s lists it", cmd.Name())
}

func frontKind(cmd *cobra.Command, s string) (front.Kind, error) {
	k := front.Kind(s)
	if k == front.EmbeddedServer || !slices.Contains(front.Kinds, k) {
		return "", misused(cmd, "there is no configuration for %q; lighttpd and nginx have one", s)
	}
	return k, nil
}

func newFrontConfigCommand(e *env) *cobra.Command {
	var node, master, include string
	var o front.Options
	cmd := &cobra.Command{
		Use:   "config lighttpd|nginx --node FILE|--master FILE --cert FILE --key FILE --dir DIR",
		Short: "Print the front's configuration for a node or a master",
		Long: "Print the shipped configuration, filled in from the node's or the master's own: addresses, socket, and the folders that the front\n" +
			"sends itself. Every line has its reason above it.",
		Args: wantArgs(1), ValidArgs: []string{"lighttpd", "nginx"},
	}
	f := cmd.Flags()
	f.StringVar(&node, "node", "", "the node's configuration `file`")
	f.StringVar(&master, "master", "", "the master's configuration `file`, for its front")
	f.StringVar(&o.Cert, "cert", "", "the front's certificate (PEM)")
	f.StringVar(&o.Key, "key", "", "the front's key (PEM), readable by the front's user only")
	f.StringVar(&o.CA, "ca", "", "the CA's certificate (default: the one that the node's configuration names)")
	f.StringVar(&o.Dir, "dir", "", "a folder of the front's own: process id, log, temporary files")
	f.StringVar(&include, "token-include", "", "the file that gantry front token printed, if the node asks for a token")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		kind, err := frontKind(cmd, args[0])
		if err != nil {
			return err
		}
		for name, value := range map[string]string{"--node": node + master, "--cert": o.Cert, "--key": o.Key, "--dir": o.Dir} {
			if value == "" {
				return misused(cmd, "%s is missing", name)
			}
		}
		if node != "" && master != "" {
			return misused(cmd, "--node and --master: one front is before one of them")
		}
		if master != "" {
			err = frontOfMaster(&o, master)
		} else {
			err = frontOfNode(&o, node)
		}
		if err != nil {
			return err
		}
		o.TokenInclude = include
		for _, p := range []*string{&o.Cert, &o.Key, &o.CA, &o.Dir, &o.TokenInclude} {
			if *p != "" {
				if *p, err = filepath.Abs(*p); err != nil {
					return err
				}
			}
		}
		text, err := front.Render(kind, o)
		if err != nil {
			return err
		}
		_, err = fmt.Fprint(e.Stdout, text)
		return err
	}
	return cmd
}

// frontOfNode takes what a node's configuration says about its front.
func frontOfNode(o *front.Options, path string) error {
	n, err := config.LoadNode(path)
	if err != nil {
		return err
	}
	if o.CA == "" {
		o.CA = n.Identity.CA
	}
	o.API, o.Data, o.Socket = n.Front.APIListen, n.Front.DataListen, n.Socket
	for _, r := range n.Resources {
		if r.Send == "front" {
			o.Send = append(o.Send, front.Dir{Name: r.Name, Path: r.Path})
		}
	}
	return nil
}

// frontOfMaster takes what a master's configuration says about its front.
func frontOfMaster(o *front.Options, path string) error {
	m, err := config.LoadMaster(path)
	if err != nil {
		return err
	}
	if o.CA == "" {
		o.CA = m.Identity.CA
	}
	o.Prefix, o.API, o.Socket = api.MasterPrefix, m.Front.APIListen, m.Socket
	return nil
}

func newFrontTokenCommand(e *env) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "token lighttpd|nginx --file FILE", Short: "Print the include with which a shared front proves itself",
		Long: "Print the root-only include with the node's token, from the file that [front] token_file names. Keep it at mode 0600.",
		Args: wantArgs(1), ValidArgs: []string{"lighttpd", "nginx"},
	}
	cmd.Flags().StringVar(&file, "file", "", "the token's `file`")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		kind, err := frontKind(cmd, args[0])
		if err != nil {
			return err
		}
		if file == "" {
			return misused(cmd, "--file is missing")
		}
		token, err := pki.ReadSecret(file)
		if err != nil {
			return err
		}
		text, err := front.RenderToken(kind, strings.TrimSpace(string(token)))
		if err != nil {
			return err
		}
		_, err = fmt.Fprint(e.Stdout, text)
		return err
	}
	return cmd
}

func newFrontCheckCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "check NODE|MASTER|URL", Short: "Try what a node's or a master's front really does", Args: wantArgs(1),
		Long: "Try what a live front does with lines, leaving clients, uploads and ranges. It needs the right selftest there.",
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := e.operator()
			if err != nil {
				return err
			}
			defer o.close()
			url := strings.TrimSuffix(args[0], "/")
			named := func(n config.ClusterNode) bool { return n.Name == args[0] || n.URL == url || n.DataURL == url }
			i := slices.IndexFunc(o.cluster.Nodes, named)
			if i < 0 {
				if i := slices.IndexFunc(o.cluster.Masters, named); i >= 0 {
					m := o.cluster.Masters[i]
					return e.printChecks(front.CheckMasterURL(cmd.Context(), m.URL, client.TLS(o.identity, m)))
				}
				return o.noNode(args[0])
			}
			n := o.cluster.Nodes[i]
			if !strings.HasPrefix(url, "https://") {
				url = n.URL
			}
			checks := front.CheckURL(cmd.Context(), url, client.TLS(o.identity, n))
			return e.printChecks(checks)
		},
	}
}

func (e *env) printChecks(checks []front.Check) error {
	var rows [][]string
	var remedies []string
	failed := 0
	for _, c := range checks {
		verdict := "ok"
		if !c.OK {
			verdict, failed = "FAILED", failed+1
		}
		if e.json {
			if err := e.printJSON(c); err != nil {
				return err
			}
			continue
		}
		rows = append(rows, []string{c.Name, verdict, c.Text, c.Detail})
		if c.Remedy != "" {
			remedies = append(remedies, c.Name+": "+c.Remedy)
		}
	}
	if len(rows) > 0 {
		if err := progress.Table(e.Stdout, []string{"check", "", "what was found", "figures"}, rows); err != nil {
			return err
		}
	}
	if len(remedies) > 0 {
		fmt.Fprintf(e.Stdout, "\nWhat mends it, in the front's configuration:\n  %s\n", strings.Join(remedies, "\n  "))
	}
	switch {
	case len(checks) == 0:
		return &coded{api.ExitFailed, fmt.Errorf("the front was not checked: nothing was asked")}
	case failed > 0:
		return &coded{api.ExitFailed, fmt.Errorf("%d of %d checks failed; compare the front's configuration with gantry front config", failed, len(checks))}
	}
	return nil
}
