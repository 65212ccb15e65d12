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
	Dir      string // tasks, journals and piece maps; 0700, owned by the responder
	Cluster  string // path of cluster.toml; empty: this node dials no other one
	Identity Identity
	Front    Front

	Resources []Resource
	Grants    []Grant
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

// Kinds of front.
const (
	FrontLighttpd = "lighttpd"
	FrontNginx    = "nginx"
	FrontEmbedded = "embedded"
)

// Resource is something that the administrator exposes under a name.
type Resource struct {
	Name     string
	Kind     string      // KindFiles
	Path     string      // absolute directory
	Mode     os.FileMode // permission bits of files that imports create
	Send     string      // SendStream or SendFront
	Writable bool        // imports are refused where false
}

// KindFiles is a directory of files, the only kind so far.
const KindFiles = "files"

// Ways in which a resource's bytes leave the node.
const (
	SendStream = "stream" // by the responder, over FastCGI
	SendFront  = "front"  // by the front itself, which must be able to read them
)

// Grant allows callers to do things to resources.
type Grant struct {
	Who       string   // SPIFFE id; its last path element may be "*"
	May       []string // of Rights
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
}

// Cluster is the list of nodes which command line, nodes and masters share.
// Read only.
type Cluster struct {
	Name  string
	Nodes []ClusterNode
}

// ClusterNode is where a node is reached.
type ClusterNode struct {
	Name    string
	URL     string   // https://host[:port], control traffic
	DataURL string   // https://host[:port], bulk bytes; URL where not configured
	Pins    []string // "sha256:" + 64 hex digits of the front's public key; empty: any key with the right id
}

// Node looks a node up by name.
func (c *Cluster) Node(name string) (ClusterNode, bool) {
	i := slices.IndexFunc(c.Nodes, func(n ClusterNode) bool { return n.Name == name })
	if i < 0 {
		return ClusterNode{}, false
	}
	return c.Nodes[i], true
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
func (n *Node) Explain(key string, err error) error {
	if err == nil || n.doc == nil {
		return err
	}
	return &Error{File: n.doc.file, Line: n.doc.line(key), Key: key, Problem: err.Error(), err: err}
}
