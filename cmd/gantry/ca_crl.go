package main

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"time"

	"gantry/client"
	"gantry/config"
	"gantry/pki"

	"github.com/spf13/cobra"
)

// pushTimeout is how long one node or master may take: it answers within seconds.
const pushTimeout = 30 * time.Second

func (c *caCommand) crlCommand() *cobra.Command {
	var push bool
	cmd := &cobra.Command{
		Use: "crl", Short: "Renew the revocation list, and send it to nodes and masters", Args: noArgs,
		Long: `Signs the revocation list again, with a higher number and a fresh life of 30
days. A node or master whose list has expired refuses everybody until it gets a
new one: run gantry ca crl --push at least every three weeks, and after each revoke.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ca, err := c.open()
			if err != nil {
				return err
			}
			crl, err := ca.RenewCRL()
			if err != nil {
				return err
			}
			c.tell("revocation list %s, %d revoked, valid until %s", crl.Number, crl.Len(), day(crl.NextUpdate))
			if !push {
				c.tell("it is %s; send it to the nodes: gantry ca crl --push", filepath.Join(c.dir, pki.CRLFile))
				return c.print(map[string]any{"number": crl.Number, "revoked": crl.Len(), "not_after": crl.NextUpdate.UTC()})
			}
			return c.push(cmd.Context(), crl)
		},
	}
	cmd.Flags().BoolVar(&push, "push", false, "send it to every node and master of cluster.toml in --home")
	return cmd
}

// delivery is what became of a list at one node or master.
type delivery struct {
	Node      string `json:"node,omitzero"`
	Master    string `json:"master,omitzero"`
	Delivered bool   `json:"delivered"`
	Error     string `json:"error,omitzero"`
}

// push sends the list to all nodes and masters. One that is silent does not stop the
// others; all are named, and any that did not take it makes the command fail.
func (c *caCommand) push(ctx context.Context, crl *pki.CRL) error {
	o, err := c.env.operator()
	if err != nil {
		return err
	}
	defer o.close()
	if o.identity.CRL != nil {
		// This machine's own copy, by which it knows revoked fronts.
		if _, err := o.identity.CRL.Put(crl.PEM, c.env.Now()); err != nil {
			return err
		}
	}
	fan := client.Fan{Client: o.lean, Timeout: pushTimeout, Changes: true}
	for _, n := range o.cluster.Nodes {
		fan.Nodes = append(fan.Nodes, n.Name)
	}
	put := client.Call(ctx, fan, func(ctx context.Context, c *client.Client) (struct{}, error) {
		return struct{}{}, c.PutCRL(ctx, crl.DER)
	})
	var masters []delivery
	for _, m := range o.cluster.Masters {
		masters = append(masters, told(delivery{Master: m.Name}, toMaster(ctx, o, m, crl)))
	}
	var all []delivery
	for _, a := range put.All() {
		var err error
		if a.Err != nil {
			err = a.Err
		}
		all = append(all, told(delivery{Node: a.Node}, err))
	}
	all = append(all, masters...)
	failed := 0
	for _, d := range all {
		if d.Delivered {
			c.tell("%s: delivered", cmp.Or(d.Node, d.Master))
			continue
		}
		failed++
		c.tell("%s: not delivered: %s", cmp.Or(d.Node, d.Master), d.Error)
	}
	if err := c.print(map[string]any{"number": crl.Number, "not_after": crl.NextUpdate.UTC(), "nodes": all}); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d nodes and masters did not take the list; when they are back: gantry ca crl --push", failed, len(all))
	}
	return nil
}

// toMaster sends the list to a master: there are few, so one after the other.
func toMaster(ctx context.Context, o *operator, where config.ClusterNode, crl *pki.CRL) error {
	ctx, cancel := context.WithTimeout(ctx, pushTimeout)
	defer cancel()
	m := o.master(where)
	defer m.Close()
	return m.PutCRL(ctx, crl.DER)
}

// told completes what is said of a delivery.
func told(d delivery, err error) delivery {
	if d.Delivered = err == nil; err != nil {
		d.Error = err.Error()
	}
	return d
}
