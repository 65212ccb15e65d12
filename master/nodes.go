package master

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"slices"
	"sync"
	"time"

	"gantry/api"
	"gantry/client"
	"gantry/config"
	"gantry/feedback"
	"gantry/internal/serve"
	"gantry/pki"
)

const (
	// askNodes is how often every node is asked how it is.
	askNodes = 30 * time.Second
	// askWindow is how many are asked at a time: a dead one holds its place for
	// askWait.
	askWindow = 16
	askWait   = 10 * time.Second
)

// nodes is what the master knows of each node of its cluster file.
type nodes struct {
	cluster *config.Cluster
	askers  map[string]*client.Client // with connections of their own: each asks who answers now

	mu   sync.Mutex
	seen map[string]*nodeSeen // guarded by mu
}

// nodeSeen is the last word of one node.
type nodeSeen struct {
	outcome api.Outcome
	why     string
	at      time.Time // of the last answer
	status  *api.Status
	cert    *x509.Certificate // that its front showed last, accepted or not
}

func (n *nodes) init(s *Server) {
	n.cluster, n.askers, n.seen = s.gate.Cluster, map[string]*client.Client{}, map[string]*nodeSeen{}
	for _, where := range n.cluster.Nodes {
		n.seen[where.Name] = &nodeSeen{outcome: api.Unknown, why: "not asked yet"}
		c := client.TLS(s.gate.Identity, where)
		verify := c.VerifyConnection
		c.VerifyConnection = func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) > 0 {
				n.mu.Lock()
				n.seen[where.Name].cert = state.PeerCertificates[0]
				n.mu.Unlock()
			}
			return verify(state)
		}
		n.askers[where.Name] = client.New(client.Config{Node: where, TLS: c, Log: s.log})
	}
}

func (n *nodes) close() {
	for _, c := range n.askers {
		c.Close()
	}
}

// watchNodes asks every node how it is, again and again, until the master stops.
func (s *Server) watchNodes() {
	tick := time.NewTicker(askNodes)
	defer tick.Stop()
	for {
		s.nodes.ask(s.work)
		select {
		case <-tick.C:
		case <-s.work.Done():
			return
		}
	}
}

func (n *nodes) ask(ctx context.Context) {
	var asking sync.WaitGroup
	window := make(chan struct{}, askWindow)
	for name, c := range n.askers {
		select {
		case window <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		asking.Go(func() {
			defer func() { <-window }()
			late, cancel := context.WithTimeout(ctx, askWait)
			defer cancel()
			status, err := c.Status(late)
			if ctx.Err() == nil {
				n.note(name, status, err)
			}
		})
	}
	asking.Wait()
	for _, c := range n.askers {
		c.Close() // the next question shakes hands again, and sees the certificate of then
	}
}

func (n *nodes) note(name string, status *api.Status, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	seen := n.seen[name]
	if err == nil {
		seen.outcome, seen.why, seen.status, seen.at = api.Done, "", status, time.Now()
		return
	}
	seen.outcome, seen.why = api.Unreachable, feedback.Printable(err.Error())
	if wire := serve.Wire(err); wire.Code != api.Internal.Name {
		seen.outcome = api.CodeOf(wire.Code).Outcome
	}
}

// list describes every node, in the order of the cluster file.
func (s *Server) list() []api.NodeState {
	n := &s.nodes
	n.mu.Lock()
	defer n.mu.Unlock()
	all := make([]api.NodeState, 0, len(n.cluster.Nodes))
	for _, where := range n.cluster.Nodes {
		seen := n.seen[where.Name]
		slots, used := s.jobs.Slots(where.Name)
		state := api.NodeState{
			Name: where.Name, URL: where.URL, Outcome: seen.outcome, Why: seen.why, Seen: seen.at.UTC(),
			Slots: slots, Running: used, Pins: api.NodePins{Pinned: append([]string{}, where.Pins...)},
		}
		if seen.at.IsZero() {
			state.Seen = time.Time{}
		}
		if seen.status != nil {
			state.Version, state.Tasks, state.CRL = seen.status.Version, seen.status.Tasks, &seen.status.CRL
		}
		if seen.cert != nil {
			state.Pins.Seen, state.Expires = pki.Pin(seen.cert), seen.cert.NotAfter.UTC()
			state.Pins.Match = 1 + slices.Index(where.Pins, state.Pins.Seen)
		}
		all = append(all, state)
	}
	return all
}

func (s *Server) serveNodes(w http.ResponseWriter, r *http.Request) error {
	if err := onlyQuery(r); err != nil {
		return err
	}
	return serve.JSON(w, http.StatusOK, api.NodeList{Nodes: s.list()})
}
