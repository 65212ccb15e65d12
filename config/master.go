package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Master is a master's configuration, complete with defaults and already
// checked, as Node is. Read only.
type Master struct {
	Name        string
	Socket      string // unix path of the FastCGI socket, at most MaxSocketPath bytes
	From        string // who makes it: SocketOwn, SocketFD0 or SocketSystemd
	LocalSocket string // unix path of the socket for callers on this machine; empty: none
	Dir         string // 0700, owned by the master
	Store       string // path of the database; by default StoreFile in Dir
	Cluster     string // path of cluster.toml
	Identity    Identity
	Front       Front // without DataListen: a master carries no bulk bytes
	Grants      []Grant
	Limits      MasterLimits
	Slots       []NodeSlots
	Named       []NamedLimit
	Retention   Retention

	doc *document
}

// StoreFile is the database's name in a master's directory.
const StoreFile = "master.db"

// MasterLimits bound what a master does. MasterDefaults has the values of one
// that configures none.
type MasterLimits struct {
	Slots       int           // jobs at a time on one node; 0: 3/2 of this machine's cores
	Queued      int           // unfinished jobs; more are refused
	Connections int           // FastCGI connections at once, and as many on the local socket
	Heartbeat   time.Duration // longest silence on a feed
	RetryFor    time.Duration // how long a node may be silent before an attempt ends unknown
	Drain       time.Duration // how long SIGTERM waits for requests and steps to end
	RetryAfter  time.Duration // the pause before a second attempt, MinRetryAfter to MaxRetryAfter
}

// Limits of the pause before a second attempt. Each further pause is twice as
// long, up to MaxRetryAfter.
const (
	MinRetryAfter = time.Second
	MaxRetryAfter = 10 * time.Minute
)

// NodeSlots says how many jobs run on one node at a time.
type NodeSlots struct {
	Name string // of the node
	Jobs int
}

// NamedLimit bounds the jobs that name it, on whatever node.
type NamedLimit struct {
	Name string
	Jobs int // at a time
}

// Retention says how long the history of ended jobs is kept. Their finals stay.
type Retention struct {
	Age  time.Duration
	Size int64 // bytes of the database
}

// MasterDefaults are the limits of a master that configures none.
func MasterDefaults() MasterLimits {
	return MasterLimits{
		Queued:      100_000,
		Connections: 2048, // 1,000 watchers and as many short requests
		Heartbeat:   10 * time.Second,
		RetryFor:    time.Hour,
		Drain:       30 * time.Second,
		RetryAfter:  10 * time.Second,
	}
}

// RetentionDefaults are what a master keeps that configures nothing.
func RetentionDefaults() Retention {
	return Retention{Age: 365 * 24 * time.Hour, Size: 10 << 30}
}

// MasterRights are what a grant of a master may name, as in package api.
var MasterRights = append(slices.Clone(Rights), "jobs", "jobs:cancel", "audit", "metrics")

// LocalWho begins the who of a grant to a user of the master's own machine.
const LocalWho = "local:"

// ParseMaster checks the text of a master's configuration. file is the name
// that errors say.
func ParseMaster(file string, data []byte) (*Master, error) {
	d, err := parse(file, data)
	if err != nil {
		return nil, err
	}
	t := d.table()
	m := &Master{doc: d}
	m.Name = t.name("name", `name = "hub"`)
	m.Socket = t.socket("socket", `socket = "/run/gantry-master/fcgi.sock"`)
	m.From = t.oneOf("socket_from", SocketOwn, []string{SocketOwn, SocketFD0, SocketSystemd}, nil)
	if _, there := t.m["local_socket"]; there {
		m.LocalSocket = t.socket("local_socket", `local_socket = "/run/gantry-master-local/local.sock"`)
	} else {
		t.value("local_socket")
	}
	m.Dir = t.dir("dir", `dir = "/var/lib/gantry-master"`)
	m.Store = t.optionalFile("store", `store = "/var/lib/gantry-master/master.db"`)
	if m.Store == "" {
		m.Store = filepath.Join(m.Dir, StoreFile)
	}
	m.Cluster = t.file("cluster", `cluster = "/etc/gantry-master/cluster.toml"`)
	m.Identity = readIdentity(t.sub("identity"))
	m.Front = readMasterFront(t.sub("front"))
	t.each("grant", func(g *table) { m.Grants = append(m.Grants, readMasterGrant(g)) })
	m.Limits = readMasterLimits(t.sub("limits"))
	t.each("node", func(n *table) { m.Slots = append(m.Slots, readSlots(n)) })
	t.each("limit", func(l *table) { m.Named = append(m.Named, readNamed(l)) })
	m.Retention = readRetention(t.sub("retention"))
	t.finish()
	m.checkNames(t)
	if m.LocalSocket != "" && m.LocalSocket == m.Socket {
		t.problem("local_socket", "a path of its own", "", "is the FastCGI socket: fronts and people do not share one")
	}
	if len(d.problems) > 0 {
		return nil, d.problems
	}
	return m, nil
}

func readMasterFront(t *table) Front {
	f := Front{
		Kind:        t.oneOf("kind", "", []string{FrontLighttpd, FrontNginx, FrontEmbedded}, nil),
		UIDs:        t.uids("uids"),
		TokenFile:   t.optionalFile("token_file", `token_file = "/etc/gantry-master/front.token"`),
		APIListen:   t.texts("api_listen", "HOST:PORT", `api_listen = ["[::]:8446"]`, checkListen),
		Padding:     t.count("padding", 0, 0, MaxPadding),
		Incremental: t.bool("incremental"),
	}
	t.finish()
	return f
}

func readMasterGrant(t *table) Grant {
	const allowed = whoAllowed + `, or local:UID`
	who, ok := t.text("who", allowed, `who = "spiffe://demo/operator/*"`)
	if ok {
		if err := checkMasterWho(who); err != nil {
			t.problem("who", allowed, `who = "local:1000"`, "%v", err)
		}
	}
	g := Grant{Who: who}
	rights := strings.Join(MasterRights, ", ")
	const example = `may = ["status", "export"]`
	g.May = t.texts("may", rights, example, func(s string) error { return checkRightOf(s, MasterRights) })
	if list, ok := t.m["may"].([]any); ok && len(list) == 0 || t.m["may"] == nil {
		t.problem("may", rights, example, "names no right")
	}
	g.Nodes = t.texts("nodes", `names of nodes, or "*" alone for all`, `nodes = ["alpha"]`, nil)
	g.Resources = t.texts("resources", `names of resources, or "*" alone for all`, `resources = ["disks"]`, nil)
	for _, list := range []struct {
		key   string
		names []string
	}{{"nodes", g.Nodes}, {"resources", g.Resources}} {
		for _, name := range list.names {
			switch {
			case name == "*" && len(list.names) > 1:
				t.problem(list.key, `"*" alone, or names`, list.key+` = ["*"]`, `"*" stands beside names`)
			case name != "*" && !validName(name):
				t.problem(list.key, nameAllowed, "", "%q is no name", name)
			}
		}
		if needs := slices.IndexFunc(g.May, NeedsResource); needs >= 0 && len(list.names) == 0 {
			t.problem(list.key, `names, or "*" alone`, list.key+` = ["*"]`, "is missing, and the right %q is about a resource of a node", g.May[needs])
		}
	}
	t.reserve("user", "tasks run as the responder's user until workers exist")
	t.finish("user")
	return g
}

// checkMasterWho accepts a client's id, or a user of this machine.
func checkMasterWho(s string) error {
	uid, ok := strings.CutPrefix(s, LocalWho)
	if !ok {
		return checkWho(s)
	}
	n, err := strconv.ParseUint(uid, 10, 32)
	switch {
	case err != nil || strconv.FormatUint(n, 10) != uid || n == 1<<32-1:
		return fmt.Errorf("%q is no uid; numbers only, as id -u prints them", uid)
	case n == overflowUID:
		return fmt.Errorf("65534 is nobody in particular: every user that this system cannot name has it")
	}
	return nil
}

func readMasterLimits(t *table) MasterLimits {
	d := MasterDefaults()
	l := MasterLimits{
		Queued:      t.count("queued", d.Queued, 1, maxQueued),
		Connections: t.count("connections", d.Connections, 1, maxCount),
		Heartbeat:   t.duration("heartbeat", d.Heartbeat, MaxHeartbeat),
		RetryFor:    t.duration("retry_for", d.RetryFor, maxDuration),
		Drain:       t.duration("drain", d.Drain, maxDuration),
		RetryAfter:  t.duration("retry_after", d.RetryAfter, MaxRetryAfter),
	}
	if l.RetryAfter < MinRetryAfter {
		t.problem("retry_after", "1s to 10m", `retry_after = "10s"`, "is %v: a node that is starting again needs a moment", l.RetryAfter)
	}
	if _, there := t.m["slots"]; there {
		l.Slots = t.count("slots", 4, 1, maxCount)
	} else {
		t.value("slots")
	}
	t.finish()
	return l
}

// maxQueued bounds the queue; ten times what the goals speak of.
const maxQueued = 1_000_000

func readSlots(t *table) NodeSlots {
	n := NodeSlots{Name: t.name("name", `name = "alpha"`), Jobs: t.required("slots", 4)}
	t.finish()
	return n
}

func readNamed(t *table) NamedLimit {
	n := NamedLimit{Name: t.name("name", `name = "uplink"`), Jobs: t.required("jobs", 2)}
	t.finish()
	return n
}

// required takes a number from 1 that must be there.
func (t *table) required(key string, example int) int {
	if _, there := t.m[key]; !there {
		t.problem(key, fmt.Sprintf("1 to %d", maxCount), fmt.Sprintf("%s = %d", key, example), "is missing")
	}
	return t.count(key, example, 1, maxCount)
}

func readRetention(t *table) Retention {
	d := RetentionDefaults()
	r := Retention{Age: t.duration("age", d.Age, maxDuration), Size: t.size("size", d.Size)}
	t.finish()
	return r
}

// checkNames sees to it that nodes and named limits stand there once.
func (m *Master) checkNames(t *table) {
	var nodes, limits []string
	for i, n := range m.Slots {
		if n.Name != "" && slices.Contains(nodes, n.Name) {
			t.at("node", i).problem("name", "each name once", "", "%q is the name of another node", n.Name)
		}
		nodes = append(nodes, n.Name)
	}
	for i, l := range m.Named {
		if l.Name != "" && slices.Contains(limits, l.Name) {
			t.at("limit", i).problem("name", "each name once", "", "%q is the name of another limit", l.Name)
		}
		limits = append(limits, l.Name)
	}
}

// Explain is Node.Explain.
func (m *Master) Explain(key string, err error) error { return m.doc.explain(key, err) }

// Limit looks a named limit up.
func (m *Master) Limit(name string) (NamedLimit, bool) {
	i := slices.IndexFunc(m.Named, func(l NamedLimit) bool { return l.Name == name })
	if i < 0 {
		return NamedLimit{}, false
	}
	return m.Named[i], true
}
