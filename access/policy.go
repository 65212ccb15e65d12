package access

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"golang.org/x/time/rate"

	"gantry/api"
	"gantry/config"
	"gantry/pki"
)

// Any is the resource "any of them", for rights that are not about one and for
// lists of what a caller may see. No resource has this name.
const Any = ""

// Bounds of the log of refusals: a caller must not be able to fill a disk or
// the memory by asking for what he may not have.
const (
	maxRefusals  = 4096 // remembered as logged
	refusalRate  = 1    // log lines a second, in the long run
	refusalBurst = 20
)

// Policy is the grants of a node. Safe for concurrent use.
type Policy struct {
	grants []grant
	log    *slog.Logger
	limit  *rate.Limiter

	mu     sync.Mutex
	logged map[refusal]struct{} // guarded by mu
}

type grant struct {
	who       string // an id, or its part before the final *
	wildcard  bool
	may       []api.Right
	nodes     []string // of a master's grant
	resources []string
}

type refusal struct {
	who      string
	right    api.Right
	node     string
	resource string
}

// NewPolicy compiles grants that package config has checked. log may be nil.
func NewPolicy(grants []config.Grant, log *slog.Logger) *Policy {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	p := &Policy{log: log, limit: rate.NewLimiter(refusalRate, refusalBurst), logged: map[refusal]struct{}{}}
	for _, c := range grants {
		g := grant{nodes: slices.Clone(c.Nodes), resources: slices.Clone(c.Resources)}
		// The final element alone can be *, so that the prefix ends in "/".
		g.who, g.wildcard = strings.CutSuffix(c.Who, "/*")
		if g.wildcard {
			g.who += "/"
		}
		for _, may := range c.May {
			g.may = append(g.may, api.Right(may))
		}
		p.grants = append(p.grants, g)
	}
	return p
}

func (g *grant) matches(c Caller) bool {
	id := c.ID
	switch {
	case c.Local != nil:
		return g.who == c.String()
	case id == (pki.ID{}):
		return false
	}
	if g.wildcard {
		// A name has no slash (pki.CheckName): the prefix is all the rest.
		return strings.HasPrefix(id.String(), g.who)
	}
	return id.String() == g.who
}

func (g *grant) covers(right api.Right, node, resource string) bool {
	if !slices.Contains(g.may, right) {
		return false
	}
	return !config.NeedsResource(string(right)) || names(g.nodes, node) && names(g.resources, resource)
}

func names(list []string, name string) bool {
	return name == Any || slices.Contains(list, name) || slices.Contains(list, "*")
}

// Allows returns nil if a grant gives the caller the right on the resource
// (Any: on at least one), and the wire error api.Forbidden otherwise. Routes
// that need no right (api.NoRight) are open to every verified caller. The first
// refusal of its kind is logged.
func (p *Policy) Allows(c Caller, right api.Right, resource string) error {
	return p.AllowsAt(c, right, Any, resource)
}

// AllowsAt is Allows at a master, whose grants name nodes too. The program's own
// user may do everything.
func (p *Policy) AllowsAt(c Caller, right api.Right, node, resource string) error {
	if right == api.NoRight && c.Known() || c.Local != nil && c.Local.Self {
		return nil
	}
	for i := range p.grants {
		if g := &p.grants[i]; g.matches(c) && g.covers(right, node, resource) {
			return nil
		}
	}
	return p.refuse(c, right, node, resource)
}

// Knows says whether any grant is the caller's: who has none is not let in on a
// local socket.
func (p *Policy) Knows(c Caller) bool {
	return c.Local != nil && c.Local.Self || slices.ContainsFunc(p.grants, func(g grant) bool { return g.matches(c) })
}

// MasterRights is Rights with the nodes of each grant.
func (p *Policy) MasterRights(c Caller) []api.MasterGrant {
	rights := []api.MasterGrant{}
	if c.Local != nil && c.Local.Self {
		return append(rights, api.MasterGrant{May: slices.Clone(api.MasterRights), Nodes: []string{"*"}, Resources: []string{"*"}})
	}
	for _, g := range p.grants {
		if g.matches(c) {
			rights = append(rights, api.MasterGrant{May: slices.Clone(g.may), Nodes: append([]string{}, g.nodes...), Resources: append([]string{}, g.resources...)})
		}
	}
	return rights
}

// Rights lists what the caller's grants give, one entry per grant, in the
// order of the configuration.
func (p *Policy) Rights(c Caller) []api.Grant {
	rights := []api.Grant{}
	for _, g := range p.grants {
		if g.matches(c) {
			rights = append(rights, api.Grant{May: slices.Clone(g.may), Resources: append([]string{}, g.resources...)})
		}
	}
	return rights
}

// RightsOn lists what the caller may do with one resource, in the order of
// api.Rights; empty for a resource that he must not even see.
func (p *Policy) RightsOn(c Caller, resource string) []api.Right {
	rights := []api.Right{}
	for _, right := range api.Rights {
		if !config.NeedsResource(string(right)) {
			continue
		}
		if slices.ContainsFunc(p.grants, func(g grant) bool { return g.matches(c) && g.covers(right, Any, resource) }) {
			rights = append(rights, right)
		}
	}
	return rights
}

func (p *Policy) refuse(c Caller, right api.Right, node, resource string) error {
	node, resource = shorten(node), shorten(resource)
	what := fmt.Sprintf("no grant gives %s the right %q", c, right)
	if resource != Any && config.NeedsResource(string(right)) {
		what += fmt.Sprintf(" on %q", resource)
	}
	if node != Any && config.NeedsResource(string(right)) {
		what += fmt.Sprintf(" at %q", node)
	}
	if p.first(refusal{c.String(), right, node, resource}) {
		about := []any{"caller", c.String(), "right", string(right), "resource", resource}
		if node != Any {
			about = append(about, "node", node)
		}
		p.log.Warn("refused", append(about, "rule", "no grant")...)
	}
	return api.Forbidden.Err(what)
}

// first says whether a refusal is to be logged: it was not before, and not too
// many were. One that the rate held back is logged when it comes again.
func (p *Policy) first(r refusal) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, seen := p.logged[r]; seen || !p.limit.Allow() {
		return false
	}
	if len(p.logged) >= maxRefusals {
		clear(p.logged)
	}
	p.logged[r] = struct{}{}
	return true
}

// shorten bounds a name that came from a request.
func shorten(name string) string {
	if len(name) > api.MaxName {
		return name[:api.MaxName] + "…"
	}
	return name
}
