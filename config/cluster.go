package config

import (
	"fmt"
	"slices"
	"strings"
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
	t.finish()
	var names []string
	for i, n := range c.Nodes {
		if n.Name != "" && slices.Contains(names, n.Name) {
			t.at("node", i).problem("name", "each name once", "", "%q is the name of another node", n.Name)
		}
		names = append(names, n.Name)
	}
	if len(c.Nodes) == 0 {
		t.problem("node", "at least one [[node]]", "", "there are no nodes")
	}
	if len(d.problems) > 0 {
		return nil, d.problems
	}
	return c, nil
}

func readClusterNode(t *table) ClusterNode {
	n := ClusterNode{
		Name:    t.name("name", `name = "alpha"`),
		URL:     t.url("url", true),
		DataURL: t.url("data_url", false),
		Pins:    t.texts("pins", "sha256: and 64 lower-case hex digits", `pins = ["sha256:9f86…"]`, checkPin),
	}
	if n.DataURL == "" {
		n.DataURL = n.URL
	}
	if len(n.Pins) > maxPins {
		t.problem("pins", fmt.Sprintf("at most %d", maxPins), "", "there are %d", len(n.Pins))
	}
	t.finish()
	return n
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
