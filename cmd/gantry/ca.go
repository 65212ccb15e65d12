package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gantry/pki"
	"gantry/progress"

	"github.com/spf13/cobra"
)

// caFolder is the CA's folder within --home when --dir does not name one.
const caFolder = "ca"

// caCommand is what the commands below gantry ca share.
type caCommand struct {
	env *env
	dir string // --dir
}

func newCACommand(e *env) *cobra.Command {
	c := &caCommand{env: e}
	cmd := &cobra.Command{
		Use:   "ca",
		Short: "Issue and revoke the certificates of a cluster",
		Long: `A cluster's certificate authority is a folder. Its ca.key can make anybody of
anything: keep the folder on a machine of its own, and a copy off line.`,
		Args:              noArgs,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: c.folder,
	}
	cmd.PersistentFlags().StringVar(&c.dir, "dir", "", "the CA's folder (default ca in --home)")
	cmd.AddCommand(c.initCommand(), c.issueCommand(), c.listCommand(), c.revokeCommand(), c.crlCommand())
	return cmd
}

// folder sets --dir to its default if it was not given.
func (c *caCommand) folder(*cobra.Command, []string) error {
	if c.dir != "" {
		return nil
	}
	home, err := c.env.folder()
	c.dir = filepath.Join(home, caFolder)
	return err
}

func (c *caCommand) options() pki.Options { return pki.Options{Now: c.env.Now} }

// open opens the CA, or says how to make one.
func (c *caCommand) open() (*pki.CA, error) {
	ca, err := pki.OpenCA(c.dir, c.options())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, notFound("there is no CA in %s; make one: gantry ca init CLUSTER --dir %s", c.dir, c.dir)
	}
	return ca, err
}

// tell prints a line of the answer for people: not under --json or --quiet.
func (c *caCommand) tell(format string, args ...any) {
	if !c.env.json && !c.env.quiet {
		fmt.Fprintf(c.env.Stdout, format+"\n", args...)
	}
}

// print prints v under --json.
func (c *caCommand) print(v any) error {
	if !c.env.json {
		return nil
	}
	return c.env.printJSON(v)
}

func (c *caCommand) initCommand() *cobra.Command {
	return &cobra.Command{
		Use: "init CLUSTER", Short: "Make a CA for a new cluster", Args: wantArgs(1),
		Example: "  gantry ca init demo --dir /root/demo-ca",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := pki.CheckName("cluster", args[0]); err != nil {
				return misused(cmd, "%v", err)
			}
			ca, err := pki.InitCA(c.dir, args[0], c.options())
			if err != nil {
				return err
			}
			c.tell("made the CA of cluster %s in %s, valid until %s", ca.Cluster(), c.dir, day(ca.Cert().NotAfter))
			c.tell("keep %s secret: whoever has it can be anybody", filepath.Join(c.dir, pki.KeyFile))
			c.tell("next: gantry ca issue front NAME --host ADDRESS, gantry ca issue node NAME, gantry ca issue operator YOU")
			return c.print(map[string]any{"cluster": ca.Cluster(), "dir": c.dir, "not_after": ca.Cert().NotAfter.UTC()})
		},
	}
}

func (c *caCommand) issueCommand() *cobra.Command {
	var hosts []string
	var out string
	var days int
	var replace bool
	cmd := &cobra.Command{
		Use: "issue ROLE NAME", Short: "Make a key and a certificate for a " + strings.Join(pki.Roles, ", "), Args: wantArgs(2),
		Example: "  gantry ca issue front alpha --host alpha.example.org --host 192.0.2.7\n  gantry ca issue node alpha\n  gantry ca issue operator ann --out ~/.config/gantry",
		Long: `Writes cert.pem, key.pem, ca.pem and crl.pem into a folder, for one party:

  front     what a node's web server shows; --host names the addresses in its urls
  node      what a node shows when it calls another one
  master    what a master shows to nodes
  operator  what a person shows

The CA keeps no copy of the key.`,
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return pki.Roles, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			role, name := args[0], args[1]
			if !slices.Contains(pki.Roles, role) {
				return misused(cmd, "there is no role %q%s; the roles are %s", role, near(role, pki.Roles), strings.Join(pki.Roles, ", "))
			}
			if err := pki.CheckName("name", name); err != nil {
				return misused(cmd, "%v", err)
			}
			most := int(pki.MaxLeafLife / (24 * time.Hour))
			if days < 1 || days > most {
				return misused(cmd, "--days %d is not from 1 to %d", days, most)
			}
			if len(hosts) > 0 && role != pki.RoleFront {
				return misused(cmd, "--host is for role front only: nobody connects to a %s", role)
			}
			if out == "" {
				out = role + "-" + name
			}
			return c.issue(role, name, hosts, time.Duration(days)*24*time.Hour, out, replace)
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&hosts, "host", nil, "DNS name or address in the node's urls; may be given again (role front)")
	f.StringVar(&out, "out", "", "folder to write to (default ROLE-NAME here)")
	f.IntVar(&days, "days", int(pki.MaxLeafLife/(24*time.Hour)), "days until it expires")
	f.BoolVar(&replace, "replace", false, "overwrite the key and certificate that are in the folder")
	return cmd
}

func (c *caCommand) issue(role, name string, hosts []string, life time.Duration, out string, replace bool) error {
	ca, err := c.open()
	if err != nil {
		return err
	}
	if err := pki.CheckDelivery(out, replace); err != nil {
		return err
	}
	leaf, err := ca.Issue(role, name, hosts, life)
	if err != nil {
		return err
	}
	if err := ca.Deliver(leaf, out, replace); err != nil {
		return fmt.Errorf("certificate %s was issued but not delivered, revoke it (gantry ca revoke %s) and try again: %w", leaf.Serial, leaf.Serial, err)
	}
	cert, err := pki.ParseCertPEM(leaf.CertPEM)
	if err != nil {
		return err
	}
	c.tell("issued %s, valid until %s", leaf.ID, day(leaf.NotAfter))
	c.tell("  serial  %s", leaf.Serial)
	if role == pki.RoleFront {
		c.tell("  pin     %s", pki.Pin(cert))
	}
	c.tell("  folder  %s with cert.pem, key.pem, ca.pem, crl.pem", out)
	return c.print(map[string]any{"id": leaf.ID.String(), "serial": leaf.Serial, "pin": pki.Pin(cert), "not_after": leaf.NotAfter.UTC(), "dir": out})
}

// issued is a certificate in gantry ca list --json.
type issued struct {
	Serial   string     `json:"serial"`
	Role     string     `json:"role"`
	Name     string     `json:"name"`
	Issued   time.Time  `json:"issued"`
	NotAfter time.Time  `json:"not_after"`
	Revoked  *time.Time `json:"revoked,omitzero"`
	State    string     `json:"state"` // valid, expired or revoked
}

func (c *caCommand) listCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the certificates that were issued, oldest first", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			ca, err := c.open()
			if err != nil {
				return err
			}
			entries, err := ca.List()
			if err != nil {
				return err
			}
			all := []issued{}
			for _, e := range entries {
				all = append(all, c.state(e))
			}
			if c.env.json {
				return c.print(map[string]any{"cluster": ca.Cluster(), "certificates": all})
			}
			var rows [][]string
			for _, l := range all {
				rows = append(rows, []string{l.Role, l.Name, l.State, day(l.Issued), day(l.NotAfter), l.Serial})
			}
			return progress.Table(c.env.Stdout, []string{"role", "name", "state", "issued", "expires", "serial"}, rows)
		},
	}
}

func (c *caCommand) state(e pki.Entry) issued {
	l := issued{Serial: e.Serial, Role: e.Role, Name: e.Name, Issued: e.Issued.UTC(), NotAfter: e.NotAfter.UTC(), State: "valid"}
	switch {
	case !e.Revoked.IsZero():
		l.State, l.Revoked = "revoked", &e.Revoked
	case c.env.Now().After(e.NotAfter):
		l.State = "expired"
	}
	return l
}

func (c *caCommand) revokeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "revoke SERIAL|ROLE/NAME", Short: "Revoke a certificate, or all of one party", Args: wantArgs(1),
		Example: "  gantry ca revoke operator/ann\n  gantry ca crl --push",
		RunE: func(cmd *cobra.Command, args []string) error {
			ca, err := c.open()
			if err != nil {
				return err
			}
			entries, err := ca.List()
			if err != nil {
				return err
			}
			serials := c.match(entries, args[0])
			if len(serials) == 0 {
				return notFound("no valid certificate has the serial or ROLE/NAME %q; gantry ca list shows them", args[0])
			}
			var crl *pki.CRL
			for _, serial := range serials {
				if crl, err = ca.Revoke(serial); err != nil {
					return err
				}
				c.tell("revoked %s", serial)
			}
			c.tell("revocation list %s names it; nodes do not know yet: gantry ca crl --push", crl.Number)
			return c.print(map[string]any{"revoked": serials, "number": crl.Number})
		},
	}
}

// match finds what an argument of revoke means: one serial, revoked or not, or
// every certificate of a party that still opens doors.
func (c *caCommand) match(entries []pki.Entry, arg string) (serials []string) {
	for _, e := range entries {
		if e.Serial == strings.ToLower(arg) || e.Role+"/"+e.Name == arg && c.state(e).State == "valid" {
			serials = append(serials, e.Serial)
		}
	}
	return serials
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }
