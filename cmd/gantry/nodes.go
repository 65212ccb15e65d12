package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"gantry/api"
	"gantry/client"
	"gantry/config"
	"gantry/nodeset"
	"gantry/progress"

	"github.com/spf13/cobra"
)

// statusTimeout bounds how long one node is waited for: the table is for
// somebody who looks at it.
const statusTimeout = 15 * time.Second

// certificateSoon is when a certificate's end is worth a remark: a front's must
// be renewed by hand.
const certificateSoon = 14 * 24 * time.Hour

// nodeStatus is a line of gantry nodes --json.
type nodeStatus struct {
	Node    string      `json:"node"`
	Outcome api.Outcome `json:"outcome"`
	Code    string      `json:"code,omitzero"` // of an outcome that is not done
	Error   string      `json:"error,omitzero"`
	Seconds float64     `json:"seconds"`
	Status  *api.Status `json:"status,omitzero"`

	Expires time.Time `json:"certificate_expires,omitzero"` // of the front's certificate
	Pin     string    `json:"pin,omitzero"`                 // of the key that the front showed
	PinRole string    `json:"pin_role,omitzero"`            // current, next, emergency or listed; absent: not pinned
	CRLAge  int64     `json:"crl_age,omitzero"`             // whole seconds since the node's list was made
}

func newNodesCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "nodes [NODES]", Short: "Ask every node how it is",
		Long: "Ask every node how it is: whether it answers, its version, which key its front shows, how long its certificate and\n" +
			"its list of revoked certificates are good. NODES is a set, such as n[1-20],@mail.",
		Args: wantArgs(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := e.operator()
			if err != nil {
				return err
			}
			defer o.close()
			nodes := nodeNames(o.cluster)
			if len(args) == 1 {
				if nodes, err = selectNodes(cmd, o.cluster, args[0], ""); err != nil {
					return err
				}
			}
			return e.showNodes(o.cluster, askNodes(cmd.Context(), e, o, nodes))
		},
	}
}

func askNodes(ctx context.Context, e *env, o *operator, nodes []string) []nodeStatus {
	fan := client.Fan{Nodes: nodes, Client: o.lean, Timeout: statusTimeout}
	var all []nodeStatus
	for _, a := range client.Call(ctx, fan, func(ctx context.Context, c *client.Client) (*api.Status, error) { return c.Status(ctx) }).All() {
		s := nodeStatus{
			Node: a.Node, Outcome: a.Outcome(), Seconds: a.Took.Seconds(), Status: a.Value,
			Expires: a.Peer.Expires, Pin: a.Peer.Pin, PinRole: a.Peer.Role,
		}
		if a.Err != nil {
			s.Code, s.Error = a.Err.Code, a.Err.Message
		} else if crl := a.Value.CRL; crl.Number > 0 {
			s.CRLAge = int64(e.Now().Sub(crl.Updated).Seconds())
		}
		all = append(all, s)
	}
	return all
}

func (e *env) showNodes(cluster *config.Cluster, all []nodeStatus) error {
	var rows [][]string
	bad := 0
	for _, s := range all {
		if s.Outcome != api.Done {
			bad++
		}
		if e.json {
			if err := e.printJSON(s); err != nil {
				return err
			}
			continue
		}
		rows = append(rows, nodeRow(e, s))
	}
	if !e.json {
		if err := progress.Table(e.Stdout, []string{"node", "state", "version", "tasks", "certificate", "list of revoked", "pin", "remarks"}, rows); err != nil {
			return err
		}
		for _, line := range rotation(cluster, all) {
			if _, err := fmt.Fprintln(e.Stdout, line); err != nil {
				return err
			}
		}
	}
	if bad > 0 {
		return &coded{api.ExitFailed, fmt.Errorf("%d of %d nodes did not answer as they should", bad, len(all))}
	}
	return nil
}

// rotation says how far the nodes are on their way to the next key, and which
// ones show a key that is pinned for emergencies, or none that is pinned.
func rotation(cluster *config.Cluster, all []nodeStatus) []string {
	announced, seen := 0, map[string][]string{}
	for _, s := range all {
		node, _ := cluster.Node(s.Node)
		role := s.PinRole
		if s.Pin != "" && role == "" && len(node.Pins) > 0 {
			role = "other"
		}
		if node.PinSet.Next != "" {
			announced++
			if role == "" {
				role = "unseen"
			}
			seen[role] = append(seen[role], s.Node)
		} else if role == config.PinEmergency || role == "other" {
			seen[role] = append(seen[role], s.Node)
		}
	}
	var lines []string
	if announced > 0 {
		line := fmt.Sprintf("next pin seen on %d of %d", len(seen[config.PinNext]), announced)
		if n := seen[config.PinCurrent]; len(n) > 0 {
			line += "; still the current one: " + nodeset.Fold(n)
		}
		if n := seen["unseen"]; len(n) > 0 {
			line += "; no key seen: " + nodeset.Fold(n)
		}
		lines = append(lines, line)
	}
	if n := seen[config.PinEmergency]; len(n) > 0 {
		lines = append(lines, "emergency pin seen on "+nodeset.Fold(n))
	}
	if n := seen["other"]; len(n) > 0 {
		lines = append(lines, "a key that is not pinned on "+nodeset.Fold(n))
	}
	return lines
}

func nodeRow(e *env, s nodeStatus) []string {
	pin := s.PinRole
	if s.Pin != "" && pin == "" {
		pin = "none" // there is none, or it is another one: then the state says so
	}
	if s.Status == nil {
		return []string{s.Node, string(s.Outcome), "", "", e.days(s.Expires), "", pin, strings.TrimPrefix(s.Error, s.Node+": ")}
	}
	st := s.Status
	state := "ok"
	if st.Draining {
		state = "draining"
	}
	crl := fmt.Sprintf("%d, stale", st.CRL.Number)
	if !st.CRL.Stale {
		crl = fmt.Sprintf("%d, %d days old, %d left", st.CRL.Number, s.CRLAge/(24*3600), int(st.CRL.Expires.Sub(e.Now()).Hours()/24))
	}
	var remarks []string
	if !st.Isolated {
		remarks = append(remarks, "not isolated")
	}
	remarks = append(remarks, st.Warnings...)
	if left := s.Expires.Sub(e.Now()); !s.Expires.IsZero() && left < certificateSoon {
		remarks = append(remarks, "renew its front's certificate")
	}
	if skew := st.Time.Sub(e.Now()).Abs(); skew > time.Minute {
		remarks = append(remarks, "its clock is off by "+progress.Duration(skew))
	}
	return []string{s.Node, state, st.Version, fmt.Sprintf("%d of %d", st.Tasks, st.MaxTasks), e.days(s.Expires), crl, pin, strings.Join(remarks, "; ")}
}

func (e *env) days(end time.Time) string {
	if end.IsZero() {
		return ""
	}
	return fmt.Sprintf("%d days left", int(end.Sub(e.Now()).Hours()/24))
}
