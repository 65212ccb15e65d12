package config

import (
	"os"
	"slices"
	"time"
)

// Node is one node's configuration, complete with defaults and already
// checked: every path is absolute and clean, every limit above zero. Read only.
type Node struct {
	Name     string
	Socket   string // unix path of the FastCGI socket, at most MaxSocketPath bytes
	From     string // who makes it: SocketOwn, SocketFD0 or SocketSystemd
	Dir      string // tasks, journals and piece maps; 0700, owned by the responder
	Cluster  string // path of cluster.toml; empty: this node dials no other one
	Identity Identity
	Front    Front

	Resources []Resource
	Grants    []Grant
	Peers     []Peer
	Limits    Limits

	doc *document // where each key stands, for Explain
}

// Identity names the files of the node's own client identity.
type Identity struct {
	CA, Cert, Key, CRL string
}

// Front says what stands before the responder and how it is recognised.
type Front struct {
	Kind        string   // FrontLighttpd, FrontNginx or FrontEmbedded
	UIDs        []uint32 // who may speak to the socket; never 65534
	TokenFile   string   // empty: no token is asked for
	APIListen   []string // host:port, for the front's configuration
	DataListen  []string // host:port for bulk bytes; empty: APIListen serves them too
	Padding     int      // spaces before each feed line's newline, bytes
	Incremental bool     // send the header "Incremental: ?1"
}

// Who makes the FastCGI socket.
const (
	SocketOwn     = "self"
	SocketFD0     = "fd:0"    // the parent, which passes it as descriptor 0: spawn-fcgi (FastCGI specification, section 2.2)
	SocketSystemd = "systemd" // systemd, for socket activation: sd_listen_fds(3)
)

// Kinds of front.
const (
	FrontLighttpd = "lighttpd"
	FrontNginx    = "nginx"
	FrontEmbedded = "embedded"
)

// Resource is something that the administrator exposes under a name.
type Resource struct {
	Name     string
	Kind     string      // KindFiles, KindTree, KindDevice or KindCommand
	Path     string      // absolute: a directory or a block device; "" for a command
	Mode     os.FileMode // permission bits of files that imports create
	Send     string      // SendStream or SendFront
	Writable bool        // imports are refused where false
	Direct   string      // DirectAuto or DirectOff
	Freeze   *Freeze     // nil: exports read what lies there
	Tree     *Tree       // what belongs to a tree; nil for other kinds
	Live     bool        // of a device: exported while others write to it
	Command  *Command    // of a command
}

// Kinds of resources.
const (
	KindFiles   = "files"   // a directory of files
	KindDevice  = "device"  // a block device, written in place
	KindCommand = "command" // a program's output or input
)

// Ways in which a resource's bytes leave the node.
const (
	SendStream = "stream" // by the responder, over FastCGI
	SendFront  = "front"  // by the front itself, which must be able to read them
)

// Whether imports write past the page cache.
const (
	DirectAuto = "auto" // where the file system can
	DirectOff  = "off"  // never: for disks that are faster through it
)

// Grant allows callers to do things to resources.
type Grant struct {
	Who       string   // SPIFFE id; its last path element may be "*"
	May       []string // of Rights
	Nodes     []string // of a master's grant: names; "*": all
	Resources []string // names; "*": all; empty: only rights that need no resource
}

// Limits bound what a node does for its callers. Defaults has the values of a
// node that configures none.
type Limits struct {
	Tasks          int           // tasks running at once
	Connections    int           // FastCGI connections at once
	JournalPerTask int64         // bytes
	JournalPerNode int64         // bytes
	RunFor         time.Duration // a task's run_for when the request names none
	StallAfter     time.Duration // a task's stall_after when the request names none
	KeepFinal      time.Duration // how long the outcome of an ended task is kept
	Heartbeat      time.Duration // longest silence on a feed
	RetryFor       time.Duration // how long an import goes on after connection errors
	Drain          time.Duration // how long SIGTERM waits for requests to end
	Bandwidth      int64         // content bytes per second of all tasks together; 0: no limit
	IOPriority     string        // IONormal, IOBestEffort or IOIdle
}

// Classes of disk priority, ioprio_set(2).
const (
	IONormal     = "normal"      // what the responder was started with
	IOBestEffort = "best-effort" // the lowest level of the class of everybody else
	IOIdle       = "idle"        // only while nobody else wants the disk
)

// Peer is what this node has to say about another one.
type Peer struct {
	Name      string // of the node, as in cluster.toml
	Bandwidth int64  // content bytes per second to and from it; 0: no limit
}

// Cluster is the list of nodes which command line, nodes and masters share.
// Read only.
type Cluster struct {
	Name    string
	Nodes   []ClusterNode
	Groups  []Group
	Masters []ClusterNode // without DataURL: a master carries no bulk bytes
}

// Group is a set of nodes with a name: @NAME.
type Group struct {
	Name  string
	Nodes []string // names, in the order in which the set names them
}

// ClusterNode is where a node is reached.
type ClusterNode struct {
	Name    string
	URL     string   // https://host[:port], control traffic
	DataURL string   // https://host[:port], bulk bytes; URL where not configured
	Pins    []string // "sha256:" + 64 hex digits of the front's public key, all that are accepted; empty: any key with the right id
	PinSet  PinSet   // those of Pins that have a role
	PinOnly bool     // the pins alone say who it is: it is not of our CA
}

// PinSet names a node's pins, so that a key can be changed without a moment in
// which it is refused: the next one is announced before it is used. Each may be
// "".
type PinSet struct {
	Current, Next, Emergency string
}

// Roles of a pin, as PinRole returns them.
const (
	PinCurrent   = "current"
	PinNext      = "next"
	PinEmergency = "emergency"
	PinListed    = "listed" // accepted, without a role
)

// Node looks a node up by name.
func (c *Cluster) Node(name string) (ClusterNode, bool) {
	i := slices.IndexFunc(c.Nodes, func(n ClusterNode) bool { return n.Name == name })
	if i < 0 {
		return ClusterNode{}, false
	}
	return c.Nodes[i], true
}

// Master looks a master up by name.
func (c *Cluster) Master(name string) (ClusterNode, bool) {
	i := slices.IndexFunc(c.Masters, func(n ClusterNode) bool { return n.Name == name })
	if i < 0 {
		return ClusterNode{}, false
	}
	return c.Masters[i], true
}

// Resource looks a resource up by name.
func (n *Node) Resource(name string) (Resource, bool) {
	i := slices.IndexFunc(n.Resources, func(r Resource) bool { return r.Name == name })
	if i < 0 {
		return Resource{}, false
	}
	return n.Resources[i], true
}

// Explain adds to an error about a key's value, found after loading (a key
// file that others can read, a CA that is empty), where the key stands. key is
// written as in errors: "identity.key", "grant[0].who".
func (n *Node) Explain(key string, err error) error { return n.doc.explain(key, err) }

func (d *document) explain(key string, err error) error {
	if err == nil || d == nil {
		return err
	}
	return &Error{File: d.file, Line: d.line(key), Key: key, Problem: err.Error(), err: err}
}
