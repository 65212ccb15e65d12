package config

import (
	"fmt"
	"slices"
	"strings"

	"gantry/nodeset"
)

// ParseCluster checks the text of a cluster's list of nodes. file is the name
// that errors say.
func ParseCluster(file string, data []byte) (*Cluster, error) {
	d, err := parse(file, data)
	if err != nil {
		return nil, err
	}
	t := d.table()
	c := &Cluster{Name: t.name("name", `name = "demo"`)}
	t.each("node", func(n *table) { c.Nodes = append(c.Nodes, readClusterNode(n)) })
	var groups []*table
	t.each("group", func(g *table) { groups = append(groups, g) })
	t.each("master", func(m *table) { c.Masters = append(c.Masters, readClusterMaster(m)) })
	t.finish()
	var names []string
	for i, n := range c.Nodes {
		if n.Name != "" && slices.Contains(names, n.Name) {
			t.at("node", i).problem("name", "each name once", "", "%q is the name of another node", n.Name)
		}
		names = append(names, n.Name)
	}
	var masters []string
	for i, m := range c.Masters {
		if m.Name != "" && slices.Contains(masters, m.Name) {
			t.at("master", i).problem("name", "each name once", "", "%q is the name of another master", m.Name)
		}
		masters = append(masters, m.Name)
	}
	if len(c.Nodes) == 0 {
		t.problem("node", "at least one [[node]]", "", "there are no nodes")
	}
	if len(c.Nodes) > nodeset.MaxNodes {
		t.problem("node", fmt.Sprintf("at most %d", nodeset.MaxNodes), "", "there are %d", len(c.Nodes))
	}
	for _, g := range groups {
		c.readGroup(g)
	}
	if len(d.problems) > 0 {
		return nil, d.problems
	}
	return c, nil
}

// readGroup takes a group. Its set may name groups above it: so there are no
// circles.
func (c *Cluster) readGroup(t *table) {
	const allowed = "a set of nodes"
	const example = `nodes = "n[1-20],!n7"`
	g := Group{Name: t.name("name", `name = "mail"`)}
	text, ok := t.text("nodes", allowed, example)
	t.finish()
	if slices.ContainsFunc(c.Groups, func(other Group) bool { return other.Name == g.Name }) {
		t.problem("name", "each name once", "", "%q is the name of another group", g.Name)
		return
	}
	if !ok {
		return
	}
	nodes, err := c.Select(text)
	if err != nil {
		t.problem("nodes", allowed, example, "%v", err)
		return
	}
	g.Nodes = nodes
	c.Groups = append(c.Groups, g)
}

// Select returns the nodes of a set, such as "n[1-20],@mail,!n7"; package
// nodeset says how sets are written. The error is a *nodeset.Error.
func (c *Cluster) Select(set string) ([]string, error) {
	known := nodeset.Known{Groups: map[string][]string{}}
	for _, n := range c.Nodes {
		known.Nodes = append(known.Nodes, n.Name)
	}
	for _, g := range c.Groups {
		known.Groups[g.Name] = g.Nodes
	}
	return nodeset.Parse(set, known)
}

func readClusterNode(t *table) ClusterNode {
	n := ClusterNode{
		Name:    t.name("name", `name = "alpha"`),
		URL:     t.url("url", true),
		DataURL: t.url("data_url", false),
	}
	n.readPins(t)
	if n.DataURL == "" {
		n.DataURL = n.URL
	}
	const allowed = `ca or pins`
	trust := t.oneOf("trust", "ca", []string{"ca", "pins"}, nil)
	n.PinOnly = trust == "pins"
	if n.PinOnly && len(n.Pins) == 0 {
		t.problem("trust", allowed, `pins.current = "sha256:9f86…"`, "pins alone are trusted, and there are none")
	}
	t.finish()
	return n
}

const (
	pinAllowed = "sha256: and 64 lower-case hex digits"
	pinExample = `pins.current = "sha256:9f86…"`
)

// readPins takes pins: a table with roles, or a list.
func (n *ClusterNode) readPins(t *table) {
	if _, list := t.m["pins"].([]any); list {
		n.Pins = t.texts("pins", pinAllowed, `pins = ["sha256:9f86…"]`, checkPin)
		if len(n.Pins) > maxPins {
			t.problem("pins", fmt.Sprintf("at most %d", maxPins), "", "there are %d", len(n.Pins))
		}
		return
	}
	p := t.sub("pins")
	for _, role := range []struct {
		key string
		pin *string
	}{{PinCurrent, &n.PinSet.Current}, {PinNext, &n.PinSet.Next}, {PinEmergency, &n.PinSet.Emergency}} {
		pin := p.optional(role.key, "", pinAllowed, pinExample)
		switch {
		case pin == "":
		case checkPin(pin) != nil:
			p.problem(role.key, pinAllowed, pinExample, "%v", checkPin(pin))
		case slices.Contains(n.Pins, pin):
			p.problem(role.key, "each pin once", "", "%q stands there twice", pin)
		default:
			*role.pin = pin
			n.Pins = append(n.Pins, pin)
		}
	}
	if n.PinSet.Current == "" && len(n.Pins) > 0 {
		p.problem(PinCurrent, pinAllowed, pinExample, "is missing, and the others would lock the node out")
	}
	p.finish()
}

// PinRole says which of the node's pins a key has: PinCurrent, PinNext,
// PinEmergency, PinListed, or "" for none of them.
func (n *ClusterNode) PinRole(pin string) string {
	switch {
	case pin == "" || !slices.Contains(n.Pins, pin):
		return ""
	case pin == n.PinSet.Current:
		return PinCurrent
	case pin == n.PinSet.Next:
		return PinNext
	case pin == n.PinSet.Emergency:
		return PinEmergency
	}
	return PinListed
}

func readClusterMaster(t *table) ClusterNode {
	m := ClusterNode{Name: t.name("name", `name = "hub"`), URL: t.url("url", true)}
	m.readPins(t)
	t.finish()
	return m
}

// url takes where a node is reached, without a final slash.
func (t *table) url(key string, required bool) string {
	const allowed = "https://HOST or https://HOST:PORT"
	example := key + ` = "https://alpha.example.org:8443"`
	var s string
	if required {
		s, _ = t.text(key, allowed, example)
	} else {
		s = t.optional(key, "", allowed, example)
	}
	if s == "" {
		return ""
	}
	if err := checkURL(s); err != nil {
		t.problem(key, allowed, example, "%v", err)
	}
	return strings.TrimSuffix(s, "/")
}
