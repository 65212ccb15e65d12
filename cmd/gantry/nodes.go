package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"gantry/api"
	"gantry/client"
	"gantry/feedback"
	"gantry/progress"

	"github.com/spf13/cobra"
)

// nodesAtOnce bounds how many nodes are asked together.
const nodesAtOnce = 32

// statusTimeout bounds how long one node is waited for: the table is for
// somebody who looks at it.
const statusTimeout = 15 * time.Second

// nodeStatus is a line of gantry nodes --json.
type nodeStatus struct {
	Node    string      `json:"node"`
	Outcome api.Outcome `json:"outcome"`
	Error   string      `json:"error,omitzero"`
	Status  *api.Status `json:"status,omitzero"`
}

func newNodesCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "nodes", Short: "Ask every node how it is", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o, err := e.operator()
			if err != nil {
				return err
			}
			defer o.close()
			all := askNodes(cmd.Context(), o)
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
				if err := progress.Table(e.Stdout, []string{"node", "state", "version", "tasks", "list of revoked", "remarks"}, rows); err != nil {
					return err
				}
			}
			if bad > 0 {
				return &coded{api.ExitFailed, fmt.Errorf("%d of %d nodes did not answer as they should", bad, len(all))}
			}
			return nil
		},
	}
}

func askNodes(ctx context.Context, o *operator) []nodeStatus {
	all := make([]nodeStatus, len(o.cluster.Nodes))
	slots := make(chan struct{}, nodesAtOnce)
	var wg sync.WaitGroup
	for i, n := range o.cluster.Nodes {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			all[i] = askNode(ctx, o, n.Name)
		})
	}
	wg.Wait()
	return all
}

func askNode(ctx context.Context, o *operator, name string) nodeStatus {
	ctx, cancel := context.WithTimeoutCause(ctx, statusTimeout, fmt.Errorf("no answer within %v", statusTimeout))
	defer cancel()
	c, err := o.client(name)
	var s *api.Status
	if err == nil {
		s, err = c.Status(ctx)
	}
	if err == nil {
		return nodeStatus{Node: name, Outcome: api.Done, Status: s}
	}
	outcome := client.AnswerTo(err).Unsent
	if w, ok := errors.AsType[*feedback.Error](err); ok {
		outcome = api.CodeOf(w.Code).Outcome
	}
	return nodeStatus{Node: name, Outcome: outcome, Error: err.Error()}
}

func nodeRow(e *env, s nodeStatus) []string {
	if s.Status == nil {
		return []string{s.Node, string(s.Outcome), "", "", "", s.Error}
	}
	st := s.Status
	state := "ok"
	if st.Draining {
		state = "draining"
	}
	crl := fmt.Sprintf("%d, stale", st.CRL.Number)
	if !st.CRL.Stale {
		crl = fmt.Sprintf("%d, %d days left", st.CRL.Number, int(st.CRL.Expires.Sub(e.Now()).Hours()/24))
	}
	remarks := ""
	if !st.Isolated {
		remarks = "not isolated"
	}
	for _, w := range st.Warnings {
		if remarks != "" {
			remarks += "; "
		}
		remarks += w
	}
	if skew := st.Time.Sub(e.Now()).Abs(); skew > time.Minute {
		remarks += fmt.Sprintf("; its clock is off by %s", progress.Duration(skew))
	}
	return []string{s.Node, state, st.Version, fmt.Sprintf("%d of %d", st.Tasks, st.MaxTasks), crl, remarks}
}
