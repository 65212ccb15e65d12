package main

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"gantry/pki"

	"github.com/spf13/cobra"
)

const (
	// pushTogether is how many nodes get a list at the same time.
	pushTogether = 16
	// pushTimeout is how long one node may take: it answers within seconds.
	pushTimeout = 30 * time.Second
)

func (c *caCommand) crlCommand() *cobra.Command {
	var push bool
	cmd := &cobra.Command{
		Use: "crl", Short: "Renew the revocation list, and send it to the nodes", Args: noArgs,
		Long: `Signs the revocation list again, with a higher number and a fresh life of 30
days. A node whose list has expired refuses everybody until it gets a new one:
run gantry ca crl --push at least every three weeks, and after each revoke.`,
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
	cmd.Flags().BoolVar(&push, "push", false, "send it to every node of cluster.toml in --home")
	return cmd
}

// delivery is what became of a list at one node.
type delivery struct {
	Node      string `json:"node"`
	Delivered bool   `json:"delivered"`
	Error     string `json:"error,omitzero"`
}

// push sends the list to all nodes. One that is silent does not stop the
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
	all := make([]delivery, len(o.cluster.Nodes))
	slots := make(chan struct{}, pushTogether)
	var group sync.WaitGroup
	for i, node := range o.cluster.Nodes {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			all[i] = deliver(ctx, o, node.Name, crl)
		})
	}
	group.Wait()
	failed := 0
	for _, d := range all {
		if d.Delivered {
			c.tell("%s: delivered", d.Node)
			continue
		}
		failed++
		c.tell("%s: not delivered: %s", d.Node, d.Error)
	}
	if err := c.print(map[string]any{"number": crl.Number, "not_after": crl.NextUpdate.UTC(), "nodes": all}); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d nodes did not take the list; when they are back: gantry ca crl --push", failed, len(all))
	}
	return nil
}

func deliver(ctx context.Context, o *operator, node string, crl *pki.CRL) delivery {
	ctx, cancel := context.WithTimeout(ctx, pushTimeout)
	defer cancel()
	c, err := o.client(node)
	if err == nil {
		err = c.PutCRL(ctx, crl.DER)
	}
	if err != nil {
		return delivery{Node: node, Error: err.Error()}
	}
	return delivery{Node: node, Delivered: true}
}
