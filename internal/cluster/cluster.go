package cluster

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"gantry/client"
	"gantry/config"
	"gantry/front"
	"gantry/pki"
)

// Name is the cluster's name, and Resource that of each node's one resource.
const (
	Name     = "demo"
	Resource = "disks"
)

// Options of New. The zero value plus Program and Front works.
type Options struct {
	// Program is the gantry executable; it is copied into the folder, where
	// every uid may run it, and runs as keepers, responders and embedded fronts.
	Program string
	// Front stands before every node.
	Front front.Kind
	// Dir is the cluster's folder: absent or empty. "": a temporary one, which
	// Close removes.
	Dir string
	// Nodes are the nodes' names; nil: alpha and beta.
	Nodes []string
	// Send is "stream" (the responder sends; the default) or "front".
	Send string
	// From says who makes the FastCGI socket: config.SocketOwn (default), or
	// spawn-fcgi or systemd-socket-activate, which must be installed.
	From string
	// Direct is "auto" (the default) or "off": imports write through the page cache.
	Direct string
	// Proxied puts a Proxy before each node's bulk port, as the other nodes
	// see it. The operator's own bulk requests go past it.
	Proxied bool
	// Dirs are further folders of every node, the responder's own, beside that
	// of Resource: DIR/NODE/NAME.
	Dirs []string
	// Extra is text that is added to a node's configuration, such as further
	// [[resource]] tables; dir is the node's folder. The operator may do
	// everything with every resource.
	Extra func(node, dir string) string
	// Master is the name of a master, behind a front of its own; "": none.
	Master string
	// MasterExtra is text that is added to the master's configuration.
	MasterExtra string
	// Env is the environment of every process, PATH=… first of all.
	Env []string
}

// A Cluster is a set of nodes on this machine. Its methods may be called from
// several goroutines.
type Cluster struct {
	// config
	dir     string
	temp    bool
	sockets string // folder of the sockets when dir is too long, else ""
	program string
	env     []string
	users   users
	nodes   []*member
	master  *member // nil: none
	// What the operator has in Home, read while it was still ours to read.
	operator *pki.Identity
	list     *config.Cluster
	proxies  map[string]*Proxy
	ports    []*Port

	keepers [2]*keeperProcess // fronts first: they are stopped first

	mu      sync.Mutex
	state   map[string]event // guarded by mu; newest event of each program
	changed chan struct{}    // guarded by mu; closed and replaced at each event
}

// A member is one node, or the master, as the cluster made it.
type member struct {
	name, dir           string
	api, data           string // host:port; a master has no data
	responder, frontend program
}

// members are the nodes and the master.
func (c *Cluster) members() []*member {
	if c.master == nil {
		return c.nodes
	}
	return append(slices.Clone(c.nodes), c.master)
}

// keeperProcess is our end of a keeper.
type keeperProcess struct {
	cmd    *exec.Cmd
	orders io.WriteCloser
	stderr *strings.Builder
	read   sync.WaitGroup
}

// New makes the folder, the authority, every node's identity and
// configuration, and starts the keepers; no server runs yet. Call Close, also
// after Start failed.
func New(o Options) (c *Cluster, err error) {
	c = &Cluster{users: whoRuns(), env: o.Env, state: map[string]event{}, changed: make(chan struct{}), proxies: map[string]*Proxy{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
			c = nil
		}
	}()
	if o.Nodes == nil {
		o.Nodes = []string{"alpha", "beta"}
	}
	if o.Send == "" {
		o.Send = "stream"
	}
	if o.From == "" {
		o.From = config.SocketOwn
	}
	if o.Direct == "" {
		o.Direct = config.DirectAuto
	}
	if err := c.makeDir(o); err != nil {
		return c, err
	}
	if err := c.build(o); err != nil {
		return c, fmt.Errorf("making the cluster in %s: %w", c.dir, err)
	}
	for i, uid := range []int{c.users.front, c.users.responder} {
		if c.keepers[i], err = c.startKeeper(uid); err != nil {
			return c, err
		}
	}
	return c, nil
}

// Dir is the cluster's folder.
func (c *Cluster) Dir() string { return c.dir }

// Home is the operator's folder: identity and cluster.toml.
func (c *Cluster) Home() string { return filepath.Join(c.dir, "home") }

// State is the operator's folder for jobs, as $XDG_STATE_HOME.
func (c *Cluster) State() string { return filepath.Join(c.dir, "home", "state") }

// CA is the authority's folder.
func (c *Cluster) CA() string { return filepath.Join(c.dir, "ca") }

// Program is the cluster's copy of the executable, which every uid may run.
func (c *Cluster) Program() string { return c.program }

// Path is where a file of a node's resource lies.
func (c *Cluster) Path(node, name string) string {
	return filepath.Join(c.dir, node, Resource, filepath.FromSlash(name))
}

// NodeDir is a node's folder.
func (c *Cluster) NodeDir(node string) string { return filepath.Join(c.dir, node) }

// OperatorAttr makes a child run as the operator.
func (c *Cluster) OperatorAttr() *syscall.SysProcAttr { return Attr(c.users.operator) }

// Proxy is the proxy before a node's bulk port; nil unless Options.Proxied.
func (c *Cluster) Proxy(node string) *Proxy { return c.proxies[node] }

// Start starts every server and returns when every node, and the master,
// answers the operator.
func (c *Cluster) Start(ctx context.Context) error {
	for _, m := range c.members() {
		if err := c.keepers[1].order(order{Start: &m.responder}); err != nil {
			return err
		}
		if err := c.keepers[0].order(order{Start: &m.frontend}); err != nil {
			return err
		}
	}
	return c.Ready(ctx)
}

// Client returns a client with the operator's identity; nil for an unknown
// node. Close it.
func (c *Cluster) Client(node string) *client.Client {
	n, ok := c.list.Node(node)
	if !ok {
		return nil
	}
	return client.New(client.Config{Node: n, TLS: client.TLS(c.operator, n)})
}

// A Process is what is known of one server.
type Process struct {
	PID    int // 0: not running
	Starts int // how often it was started
	Ended  string
}

// Process looks a server up: NODE/node is a node's responder, MASTER/master the
// master, and NODE/front or MASTER/front the front before it.
func (c *Cluster) Process(name string) Process {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.state[name]
	p := Process{PID: e.PID, Starts: e.Starts, Ended: e.Ended}
	if e.Ended != "" || e.Error != "" {
		p.PID = 0
	}
	return p
}

// Programs lists the names of all servers.
func (c *Cluster) Programs() []string {
	var names []string
	for _, m := range c.members() {
		names = append(names, m.responder.Name, m.frontend.Name)
	}
	return names
}

// Kill sends SIGKILL to a server that runs; its keeper starts it again. Who may
// not do that himself, because root was given up, has the keeper do it.
func (c *Cluster) Kill(name string) error {
	p := c.Process(name)
	if p.PID == 0 {
		return fmt.Errorf("killing %s: it is not running", name)
	}
	err := syscall.Kill(p.PID, syscall.SIGKILL)
	if errors.Is(err, syscall.EPERM) {
		err = c.keeperOf(name).order(order{Kill: name})
	}
	if err != nil {
		return fmt.Errorf("killing %s, process %d: %w", name, p.PID, err)
	}
	return nil
}

// keeperOf is the keeper that runs a program.
func (c *Cluster) keeperOf(name string) *keeperProcess {
	if strings.HasSuffix(name, "/front") {
		return c.keepers[0]
	}
	return c.keepers[1]
}

// Once adds env to the environment of a server's next start, and of no later
// one.
func (c *Cluster) Once(name string, env ...string) error {
	return c.keeperOf(name).order(order{Once: &once{name, env}})
}

// Await waits until cond holds for a server.
func (c *Cluster) Await(ctx context.Context, name string, cond func(Process) bool) error {
	for {
		c.mu.Lock()
		changed := c.changed
		c.mu.Unlock()
		if cond(c.Process(name)) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", name, ctx.Err())
		}
	}
}

// Log is the path of a server's output.
func (c *Cluster) Log(name string) string {
	return filepath.Join(c.dir, "log", strings.ReplaceAll(name, "/", "-")+".log")
}

// Close ends fronts, responders and proxies, in this order, and removes a
// temporary folder.
func (c *Cluster) Close() error {
	var all error
	for i, k := range c.keepers {
		if k == nil {
			continue
		}
		if c.temp {
			all = errors.Join(all, k.order(order{Empty: c.owned(i == 0)}))
		}
		all = errors.Join(all, k.close())
	}
	for _, p := range c.proxies {
		all = errors.Join(all, p.Close())
	}
	for _, p := range c.ports {
		all = errors.Join(all, p.Close())
	}
	if c.sockets != "" {
		all = errors.Join(all, os.RemoveAll(c.sockets))
	}
	if c.temp {
		all = errors.Join(all, os.RemoveAll(c.dir))
	}
	return all
}

// owned lists the folders that belong to the front's keeper or to the
// responder's: only they can empty them once root was given up.
func (c *Cluster) owned(front bool) []string {
	var dirs []string
	for _, m := range c.members() {
		if front {
			dirs = append(dirs, filepath.Join(m.dir, "front"))
			continue
		}
		dirs = append(dirs, filepath.Dir(m.config()), c.socketDir(m.name))
		if m != c.master {
			dirs = append(dirs, filepath.Join(m.dir, Resource))
		}
	}
	return dirs
}

// startKeeper starts a keeper under uid.
func (c *Cluster) startKeeper(uid int) (*keeperProcess, error) {
	k := &keeperProcess{cmd: exec.Command(c.program, "__keep"), stderr: &strings.Builder{}}
	k.cmd.Dir, k.cmd.Env, k.cmd.SysProcAttr = c.dir, c.env, Attr(uid)
	k.cmd.Stderr = k.stderr
	var err error
	if k.orders, err = k.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("starting keeper: %w", err)
	}
	events, err := k.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("starting keeper: %w", err)
	}
	if err := k.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting keeper: %w", err)
	}
	k.read.Go(func() { c.watch(events) })
	return k, nil
}

// watch keeps the newest event of each program until the keeper ends.
func (c *Cluster) watch(events io.Reader) {
	lines := bufio.NewScanner(events)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			continue
		}
		c.mu.Lock()
		c.state[e.Name] = e
		close(c.changed)
		c.changed = make(chan struct{})
		c.mu.Unlock()
	}
}

func (k *keeperProcess) order(o order) error {
	if err := json.NewEncoder(k.orders).Encode(o); err != nil {
		return fmt.Errorf("telling the keeper: %w", err)
	}
	return nil
}

// close ends the keeper, which ends its programs first.
func (k *keeperProcess) close() error {
	k.orders.Close()
	k.read.Wait() // Wait closes the pipe, so all must be read before
	if err := k.cmd.Wait(); err != nil {
		return fmt.Errorf("ending keeper: %w: %s", err, strings.TrimSpace(k.stderr.String()))
	}
	return nil
}
