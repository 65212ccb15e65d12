package master

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"gantry/access"
	"gantry/api"
	"gantry/client"
	"gantry/config"
	"gantry/fastcgi"
	"gantry/internal/atomicfile"
	"gantry/internal/daemon"
	"gantry/internal/serve"
	"gantry/job"
	"gantry/queue"

	"golang.org/x/time/rate"
)

// ServerOptions of Run and NewServer. The zero value, with ConfigPath, works.
type ServerOptions struct {
	ConfigPath string       // of master.toml; Run only
	Log        *slog.Logger // nil discards
	Version    string       // shown by GET status; empty: from the build
}

// A Server is an open master: its store is locked, its jobs run, its API can be
// served. Its methods may be called from several goroutines.
type Server struct {
	// config
	cfg      *config.Master
	gate     *access.Gate
	store    *queue.Store
	jobs     jobs
	shell    *serve.Shell
	selftest http.Handler
	metrics  *metrics
	log      *slog.Logger
	version  string

	// state
	auditor  auditor
	failed   chan error // buffered: the first reason why the master cannot go on
	draining atomic.Bool
	feeds    context.Context // ends when feeds must
	stopFeed context.CancelFunc
	work     context.Context // of what is done in the background
	stopWork context.CancelFunc
	workers  sync.WaitGroup
	nodes    nodes

	mu       sync.Mutex
	clients  map[string]*client.Client // guarded by mu; by node
	crlRates map[string]*rate.Limiter  // guarded by mu; by caller
}

// followFor is how long a node may be silent before a job of it is called
// unknown. The job is not given up then: the node is asked again and again.
const followFor = time.Minute

// NewServer opens the identity, the store and the scheduler of a master, which
// takes up its unfinished jobs. Call Close.
func NewServer(ctx context.Context, cfg *config.Master, o ServerOptions) (_ *Server, err error) {
	s := &Server{
		cfg: cfg, log: o.Log, version: o.Version, failed: make(chan error, 1),
		clients: map[string]*client.Client{}, crlRates: map[string]*rate.Limiter{}, auditor: auditor{denied: map[string]*denied{}},
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.version == "" {
		s.version = Version()
	}
	s.feeds, s.stopFeed = context.WithCancel(context.Background())
	s.work, s.stopWork = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			s.stopFeed()
			s.stopWork()
			if s.store != nil {
				err = errors.Join(err, s.store.Close())
			}
		}
	}()
	if s.gate, err = access.OpenMaster(cfg, s.log); err != nil {
		return nil, err
	}
	s.nodes.init(s)
	s.metrics = newMetrics(s)
	if err := s.open(ctx); err != nil {
		return nil, err
	}
	if s.shell, err = s.newShell(); err != nil {
		return nil, errors.Join(err, s.jobs.Close())
	}
	s.workers.Go(s.watchNodes)
	s.workers.Go(s.sweepUntilStopped)
	return s, nil
}

// open opens the store and starts the scheduler.
func (s *Server) open(ctx context.Context) (err error) {
	for _, dir := range []string{s.cfg.Dir, filepath.Dir(s.cfg.Store)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return s.cfg.Explain("dir", fmt.Errorf("making the master's folder: %w", err))
		}
	}
	if err := atomicfile.RemoveTemp(filepath.Dir(s.cfg.Identity.CRL), filepath.Base(s.cfg.Identity.CRL)); err != nil {
		s.log.Warn("what a crash left beside the revocation list", "err", err)
	}
	if s.store, err = queue.Open(s.cfg.Store, queue.Options{OnBroken: s.broken}); err != nil {
		return s.cfg.Explain("store", err)
	}
	s.auditor.write = s.store.Audit
	o := Options{
		Store: s.store, DefaultSlots: s.cfg.Limits.Slots, Slots: map[string]int{}, Limits: map[string]int{},
		Node: s.node, Client: s.client, Lean: s.lean, RetryAfter: s.cfg.Limits.RetryAfter, MaxRetryAfter: config.MaxRetryAfter,
		OnBroken: s.broken, Permit: s.stillPermitted, OnEnd: func(j queue.Job) { s.metrics.done(j) }, Log: s.log,
	}
	for _, n := range s.cfg.Slots {
		o.Slots[n.Name] = n.Jobs
	}
	for _, l := range s.cfg.Named {
		o.Limits[l.Name] = l.Jobs
	}
	s.jobs, err = New(ctx, o)
	return err
}

// node is the client with which jobs ask a node.
func (s *Server) node(name string) (job.Node, error) {
	c, err := s.client(name)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (s *Server) client(name string) (*client.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.clients[name]; c != nil {
		return c, nil
	}
	where, ok := s.gate.Cluster.Node(name)
	if !ok {
		return nil, api.NotFound.Err("the master's cluster.toml does not name " + name)
	}
	c := client.New(client.Config{Node: where, TLS: client.TLS(s.gate.Identity, where), RetryFor: min(followFor, s.cfg.Limits.RetryFor), Log: s.log})
	s.clients[name] = c
	return c, nil
}

// lean is a client for one call to a node: it keeps no idle connection, and is
// the caller's.
func (s *Server) lean(name string) (*client.Client, error) {
	where, ok := s.gate.Cluster.Node(name)
	if !ok {
		return nil, api.NotFound.Err("the master's cluster.toml does not name " + name)
	}
	return client.New(client.Config{Node: where, TLS: client.TLS(s.gate.Identity, where), Log: s.log, Lean: true}), nil
}

// Handler serves the API. Requests must come from package fastcgi, or from the
// server that Local makes.
func (s *Server) Handler() http.Handler { return s.shell }

// broken is called when the store can no longer be written: what is on disk is
// unknown, so the master says so and stops.
func (s *Server) broken(err error) {
	s.log.Error("the master's store cannot be written; stopping", "err", err)
	select {
	case s.failed <- err:
	default:
	}
}

func (s *Server) health() error {
	if len(s.failed) > 0 {
		return api.IO.Err("the master's store cannot be written")
	}
	return nil
}

// ready says whether the master takes jobs.
func (s *Server) ready() error {
	if s.draining.Load() {
		return ErrReady
	}
	if err := s.health(); err != nil {
		return err
	}
	if s.gate.CRL.Remaining(time.Now()) <= 0 {
		return api.StaleCRL.Err("the master's revocation list is missing or stale: nobody is let in over the network")
	}
	return nil
}

// ErrReady is what ReadyPath says of a master that stops.
var ErrReady = api.Draining.Err("the master is stopping")

// Serve serves on the listeners until ctx ends or the store breaks, then drains
// and closes the master, both within the configured time. local may be nil.
func (s *Server) Serve(ctx context.Context, l, local net.Listener) error {
	srv := &fastcgi.Server{
		Handler: s.shell, Logger: s.log, AllowPeer: s.shell.AllowPeer,
		Single: func(name string) bool { return name == access.ParamToken },
		Limits: fastcgi.Limits{Conns: s.cfg.Limits.Connections, Requests: s.cfg.Limits.Connections},
	}
	served := make(chan error, 2)
	go func() { served <- srv.Serve(l) }()
	running := 1
	var localSrv *http.Server
	if local != nil {
		localSrv = s.shell.LocalServer(s.gate.Policy.Knows)
		running++
		go func() {
			served <- localSrv.Serve(serve.Local(local, s.cfg.Limits.Connections))
		}()
	}
	notify := daemon.Ready(s.log)
	defer notify.Stop()
	s.log.Info("master serves", "master", s.cfg.Name, "socket", l.Addr().String(), "version", s.version)
	var err error
	select {
	case <-ctx.Done():
	case err = <-s.failed:
		s.broken(err) // health goes on saying so; it may have been said twice already
		err = fmt.Errorf("the master's store cannot be written: %w", err)
	case err = <-served:
		running--
	}
	notify.Stopping()
	return errors.Join(err, s.stop(srv, localSrv, served, running))
}

// stop drains: feeds end at once, requests under way may end, jobs go on at
// their nodes.
func (s *Server) stop(srv *fastcgi.Server, local *http.Server, served <-chan error, running int) error {
	s.log.Info("master drains", "master", s.cfg.Name)
	begin := time.Now()
	s.Drain()
	deadline, cancel := context.WithTimeout(context.Background(), s.cfg.Limits.Drain)
	defer cancel()
	var down sync.WaitGroup
	if local != nil {
		down.Go(func() {
			if err := local.Shutdown(deadline); err != nil {
				s.log.Warn("local requests were cut", "err", err)
				local.Close()
			}
		})
	}
	if err := srv.Shutdown(deadline); err != nil {
		s.log.Warn("requests were cut", "err", err)
	}
	down.Wait()
	for range running {
		<-served
	}
	err := s.Close()
	s.log.Info("master stopped", "master", s.cfg.Name, "took", time.Since(begin))
	return err
}

// Drain refuses new jobs and ends feeds without a final.
func (s *Server) Drain() {
	s.draining.Store(true)
	s.stopFeed()
	s.stopWork()
}

// Close drains, waits for the scheduler, and closes the store.
func (s *Server) Close() error {
	s.Drain()
	s.workers.Wait()
	err := s.jobs.Close()
	s.mu.Lock()
	for _, c := range s.clients {
		c.Close()
	}
	s.mu.Unlock()
	s.nodes.close()
	return errors.Join(err, s.store.Close())
}

// sweepEvery is how often the history is shortened.
const sweepEvery = 10 * time.Minute

func (s *Server) sweepUntilStopped() {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		swept, err := s.store.Sweep(s.work, queue.Retention{Age: s.cfg.Retention.Age, Bytes: s.cfg.Retention.Size})
		switch {
		case err != nil && s.work.Err() == nil:
			s.log.Warn("shortening the history", "err", err)
		case swept.Feeds > 0:
			s.log.Info("history shortened", "feeds", swept.Feeds)
		}
		select {
		case <-tick.C:
		case <-s.work.Done():
			return
		}
	}
}

func (s *Server) serveStatus(w http.ResponseWriter, r *http.Request) error {
	if err := onlyQuery(r); err != nil {
		return err
	}
	stats, err := s.store.Stats(r.Context())
	if err != nil {
		return err
	}
	caller, now := serve.Caller(r.Context()), time.Now()
	status := api.MasterStatus{
		Master: s.cfg.Name, Cluster: s.gate.Identity.ID.Cluster, Version: s.version, Time: now.UTC().Truncate(time.Millisecond),
		Isolated: !slices.Contains(s.cfg.Front.UIDs, uint32(os.Getuid())), Draining: s.draining.Load(), Ready: s.ready() == nil,
		Jobs: map[api.JobState]int{}, Feeds: int(s.metrics.open.Load()), Nodes: len(s.gate.Cluster.Nodes),
		CRL: s.crlInfo(), Caller: caller.String(), May: s.gate.Policy.MasterRights(caller),
	}
	for _, state := range api.JobStates {
		status.Jobs[state] = stats.States[state]
	}
	if !status.Isolated {
		status.Warnings = append(status.Warnings, "not isolated: master and front share a user")
	}
	for _, warning := range []string{s.gate.CRL.Warn(now), s.gate.Identity.Warn(now)} {
		if warning != "" {
			status.Warnings = append(status.Warnings, warning)
		}
	}
	return serve.JSON(w, http.StatusOK, status)
}

func (s *Server) crlInfo() api.CRL {
	c := s.gate.CRL.Current()
	if c == nil {
		return api.CRL{Stale: true}
	}
	return api.CRL{Number: c.Number.Int64(), Updated: c.ThisUpdate.UTC(), Expires: c.NextUpdate.UTC(), Stale: s.gate.CRL.Remaining(time.Now()) <= 0}
}

// crlRate: as at a node, each caller has a limit of his own.
func (s *Server) crlRate(caller string) *rate.Limiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.crlRates[caller]
	if !ok {
		l = rate.NewLimiter(1, 10)
		s.crlRates[caller] = l
	}
	return l
}

func (s *Server) serveCRL(w http.ResponseWriter, r *http.Request) error {
	caller := serve.Caller(r.Context())
	if !s.crlRate(caller.String()).Allow() {
		return api.TooMany.Err("too many revocation lists in a short time")
	}
	data, err := serve.ReadBody(w, r, api.MaxCRL)
	if err != nil {
		return err
	}
	if err := s.allow(r.Context(), caller, api.RouteCRL, fmt.Sprintf("%d bytes", len(data)), "judged by its signature and number"); err != nil {
		return err
	}
	crl, err := s.gate.CRL.Put(data, time.Now())
	if err != nil {
		return err
	}
	s.log.Info("revocation list replaced", "number", crl.Number.String(), "expires", crl.NextUpdate.UTC())
	return serve.JSON(w, http.StatusOK, s.crlInfo())
}

// Version is the version that this program was built from.
func Version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
