package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"gantry/access"
	"gantry/api"
	"gantry/client"
	"gantry/config"
	"gantry/feedback"
	"gantry/internal/atomicfile"
	"gantry/internal/serve"
	"gantry/transfer"

	"golang.org/x/time/rate"
)

// Options of Run and New. The zero value, with ConfigPath, works.
type Options struct {
	ConfigPath string       // of node.toml; Run only
	Log        *slog.Logger // nil discards
	Version    string       // shown by GET status; empty: from the build
}

// A Node is an open responder: its folder is locked, its tasks run. Its methods
// may be called from several goroutines.
type Node struct {
	// config
	cfg      *config.Node
	gate     *access.Gate
	version  string
	log      *slog.Logger
	shell    *serve.Shell
	selftest http.Handler

	// state
	limit      *transfer.Limit            // of the node
	peerLimits map[string]*transfer.Limit // by node

	folder *folder
	cache  *transfer.Cache // nil: the folder for it cannot be made
	budget *feedback.Budget
	failed chan error // buffered: the first reason why the node cannot go on
	// reaching is held by each question to a neighbour that somebody asked for.
	reaching chan struct{}

	work     context.Context // ends with errDraining: tasks stop at a safe point
	stopWork context.CancelCauseFunc
	feeds    context.Context // ends when feeds must
	stopFeed context.CancelFunc
	runners  sync.WaitGroup // tasks and what is done in the background

	checking sync.Mutex // held while a resource is tried

	mu       sync.Mutex
	tasks    map[string]*task          // guarded by mu
	targets  map[string]transfer.Claim // guarded by mu; by task: what it writes
	running  int                       // guarded by mu; tasks accepted and not ended
	floor    time.Time                 // guarded by mu
	draining bool                      // guarded by mu
	clients  map[string]*client.Client // guarded by mu; by node
	crlRates map[string]*rate.Limiter  // guarded by mu; by caller: as many as the CA has named
}

// errDraining is the cause with which tasks are stopped so that the next start
// takes them up again.
var errDraining = errors.New("the node is stopping")

// New opens the folder, the identity and the revocation list of a node and
// takes up its unfinished tasks. Call Close.
func New(cfg *config.Node, o Options) (*Node, error) {
	n := &Node{
		cfg: cfg, log: o.Log, version: o.Version,
		budget: feedback.NewBudget(cfg.Limits.JournalPerNode),
		failed: make(chan error, 1), reaching: make(chan struct{}, maxReach),
		tasks: map[string]*task{}, targets: map[string]transfer.Claim{}, clients: map[string]*client.Client{}, crlRates: map[string]*rate.Limiter{},
	}
	n.limit, n.peerLimits = transfer.NewLimit(cfg.Limits.Bandwidth), map[string]*transfer.Limit{}
	for _, p := range cfg.Peers {
		n.peerLimits[p.Name] = transfer.NewLimit(p.Bandwidth)
	}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	if n.version == "" {
		n.version = Version()
	}
	n.work, n.stopWork = context.WithCancelCause(context.Background())
	n.feeds, n.stopFeed = context.WithCancel(context.Background())
	if err := n.open(); err != nil {
		n.stopWork(nil)
		n.stopFeed()
		return nil, err
	}
	if err := n.load(); err != nil {
		return nil, errors.Join(err, n.Close(context.Background()))
	}
	n.runners.Go(n.sweepUntilStopped)
	return n, nil
}

// open reads everything that the configuration names.
func (n *Node) open() (err error) {
	if n.gate, err = access.Open(n.cfg, n.log); err != nil {
		return err
	}
	if n.folder, n.floor, err = openFolder(n.cfg.Dir); err != nil {
		return err
	}
	// Only with the folder's lock: nobody else is replacing the list.
	if err := atomicfile.RemoveTemp(filepath.Dir(n.cfg.Identity.CRL), filepath.Base(n.cfg.Identity.CRL)); err != nil {
		n.log.Warn("what a crash left beside the revocation list", "err", err) // its folder may be another user's
	}
	if n.shell, err = n.newShell(); err != nil {
		return errors.Join(err, n.folder.close())
	}
	n.openCache()
	return nil
}

// Handler serves the node API. Requests must come from package fastcgi.
func (n *Node) Handler() http.Handler { return n.shell }

// broken is called when a journal or another record of the node's own could
// not be written: what is on disk is unknown, so the node says so and stops.
func (n *Node) broken(err error) {
	n.log.Error("the node's own records cannot be written; stopping", "err", err)
	select {
	case n.failed <- err:
	default:
	}
}

// health is what the probe asks.
func (n *Node) health() error {
	if len(n.failed) > 0 {
		return api.IO.Err("the node's own records cannot be written")
	}
	return nil
}

// Drain refuses new tasks, ends feeds without a final, and asks running tasks
// to stop at a safe point. It does not wait.
func (n *Node) Drain() {
	n.mu.Lock()
	n.draining = true
	n.mu.Unlock()
	n.stopFeed()
	n.stopWork(errDraining)
}

func (n *Node) isDraining() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.draining
}

// Close drains, waits for tasks to stop, and closes the folder. When ctx ends
// first it returns an error and the folder stays locked: a task may still be
// writing, and only the end of the process is sure to stop it.
func (n *Node) Close(ctx context.Context) error {
	n.Drain()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		n.runners.Wait()
	}()
	select {
	case <-stopped:
	case <-ctx.Done():
		return fmt.Errorf("waiting for tasks to stop: %w", context.Cause(ctx))
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	var errs []error
	for _, t := range n.tasks {
		t.mu.Lock()
		if t.feed != nil {
			errs = append(errs, t.feed.Close())
			t.feed = nil
		}
		t.mu.Unlock()
	}
	for _, c := range n.clients {
		c.Close()
	}
	return errors.Join(append(errs, n.cache.Close(), n.folder.close())...)
}

// resource finds a configured resource.
func (n *Node) resource(name string) (config.Resource, error) {
	i := slices.IndexFunc(n.cfg.Resources, func(r config.Resource) bool { return r.Name == name })
	if i < 0 {
		return config.Resource{}, api.NotFound.Err(fmt.Sprintf("this node has no resource %.64q; gantry list shows those that it has", name))
	}
	return n.cfg.Resources[i], nil
}

// root opens a resource's folder afresh, so that a file system that was mounted
// meanwhile is seen.
func root(r config.Resource) (*os.Root, error) {
	if !rooted(r) {
		return nil, api.BadRequest.Err("resource " + r.Name + " is a " + r.Kind + " and has no files")
	}
	opened, err := os.OpenRoot(r.Path)
	if err != nil {
		return nil, fmt.Errorf("opening resource %s: %w", r.Name, err)
	}
	return opened, nil
}

// peer is the client for another node of the cluster file.
func (n *Node) peer(name string) (*client.Client, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c := n.clients[name]; c != nil {
		return c, nil
	}
	where, ok := n.neighbour(name)
	if !ok {
		return nil, api.NotFound.Err("args.source.node: this node's cluster.toml does not name it")
	}
	c := client.New(client.Config{Node: where, TLS: client.TLS(n.gate.Identity, where), Log: n.log})
	n.clients[name] = c
	return c, nil
}

// neighbour finds a node in this node's own cluster file.
func (n *Node) neighbour(name string) (config.ClusterNode, bool) {
	if n.gate.Cluster == nil {
		return config.ClusterNode{}, false
	}
	return n.gate.Cluster.Node(name)
}

// Version is the version that this program was built from.
func Version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
