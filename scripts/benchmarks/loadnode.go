package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"gantry/access"
	"gantry/api"
	"gantry/config"
	"gantry/fastcgi"
	"gantry/feedback"
	"gantry/internal/daemon"
	"gantry/internal/serve"

	"github.com/gorilla/mux"
)

// What the tasks of the node under load say.
const (
	loadItems = 3
	// loadTick makes ten progress records a second of three items.
	loadTick = loadItems * time.Second / 10
	// stampEvery is how old the time in a progress record can be when it is
	// written; older if this process has to wait for a core.
	stampEvery = 10 * time.Millisecond
	// A task logs every five seconds; the loud one every 120 ms, long lines, so
	// that whoever reads it slowly is soon behind.
	logTicks, loudTicks = 500, 12
	loudText            = 2 << 10
	loudPath            = "loud"
)

// A loadNode is a node whose tasks do nothing but speak. All else is what a node
// has: the FastCGI responder, the check of identities, feeds with journals on
// disk and their streams.
type loadNode struct {
	cfg   *config.Node
	gate  *access.Gate
	dirID string
	lines atomic.Int64 // written to feeds

	mu    sync.Mutex
	tasks map[string]*loadTask // guarded by mu
	ended bool                 // guarded by mu; further tasks are silent
}

type loadTask struct {
	feed  *feedback.Feed
	items [loadItems]*feedback.Item
	loud  bool
	logs  int // the ticker's
}

// runLoadNode serves until SIGTERM. SIGUSR1 ends every task with a result.
func runLoadNode(configPath string) error {
	cfg, err := config.LoadNode(configPath)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	n := &loadNode{cfg: cfg, dirID: api.NewID(), tasks: map[string]*loadTask{}}
	if n.gate, err = access.Open(cfg, log); err != nil {
		return err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return err
	}
	handlers := map[string]serve.Handler{
		api.RouteStatus: n.serveStatus, api.RouteStart: n.serveStart, api.RouteFeed: n.serveFeed, api.RouteAck: n.serveAck,
	}
	shell, err := serve.New(serve.Config{
		Prefix:   api.Prefix,
		Routes:   slices.DeleteFunc(slices.Clone(api.Routes), func(r api.Route) bool { return handlers[r.Name] == nil }),
		Handlers: handlers, Verifier: n.gate.Verifier, Front: serve.Front{UIDs: cfg.Front.UIDs},
		Authorize: func(access.Caller, api.Route, map[string]string) error { return nil },
		DirID:     n.dirID, Log: log,
	})
	if err != nil {
		return err
	}
	l, err := daemon.Listen("benchmarks", cfg.Socket, cfg.From)
	if err != nil {
		return err
	}
	srv := &fastcgi.Server{
		Handler: shell, Logger: log, AllowPeer: shell.AllowPeer,
		Limits: fastcgi.Limits{Conns: cfg.Limits.Connections, Requests: cfg.Limits.Connections},
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var work sync.WaitGroup
	work.Go(func() { n.speak(ctx) })
	work.Go(func() {
		<-ctx.Done()
		late, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = srv.Shutdown(late)
	})
	err = srv.Serve(l)
	stop()
	work.Wait()
	if errors.Is(err, fastcgi.ErrServerClosed) {
		return nil
	}
	return err
}

// speak moves all items, and logs, until ctx ends; each second it prints how
// many lines were written.
func (n *loadNode) speak(ctx context.Context) {
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGUSR1)
	defer signal.Stop(end)
	tick := time.NewTicker(stampEvery)
	defer tick.Stop()
	pad := strings.Repeat(".", loudText)
	var all []*loadTask
	for k := 0; ; k++ {
		select {
		case <-tick.C:
		case <-end:
			n.finish()
			all = nil
			continue
		case <-ctx.Done():
			return
		}
		if k%10 == 0 {
			n.mu.Lock()
			for _, t := range n.tasks {
				if t.items[0] == nil && !n.ended {
					for i := range t.items {
						t.items[i] = t.feed.Item("item"+strconv.Itoa(i), "read", "bytes", -1)
					}
					all = append(all, t)
				}
			}
			n.mu.Unlock()
		}
		now := time.Now().UnixMicro()
		for i, t := range all {
			for _, it := range t.items {
				it.Set(now)
			}
			switch {
			case t.loud && k%loudTicks == 0:
				t.log(pad)
			case !t.loud && (k+i)%logTicks == 0:
				t.log("")
			}
		}
		if k%100 == 0 {
			fmt.Println("lines", time.Now().UnixMilli(), n.lines.Load())
		}
	}
}

func (t *loadTask) log(pad string) {
	t.logs++
	t.feed.Log("info", "", fmt.Sprintf("%d %d %s", t.logs, time.Now().UnixMicro(), pad))
}

// finish ends every task; those that take their place say nothing.
func (n *loadNode) finish() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ended {
		return
	}
	n.ended = true
	var work sync.WaitGroup
	for _, t := range n.tasks {
		for _, it := range t.items {
			if it != nil {
				it.End()
			}
		}
		work.Go(func() { _ = t.feed.Finish(map[string]int{"logs": t.logs}, nil) })
	}
	work.Wait()
}

func (n *loadNode) serveStatus(w http.ResponseWriter, r *http.Request) error {
	return serve.JSON(w, http.StatusOK, api.Status{Node: n.cfg.Name, Cluster: n.gate.Identity.ID.Cluster, DirID: n.dirID, Time: time.Now().UTC()})
}

func (n *loadNode) serveStart(w http.ResponseWriter, r *http.Request) error {
	var req api.TaskRequest
	if err := serve.ReadJSON(w, r, &req); err != nil {
		return err
	}
	var args api.DigestArgs
	if err := api.DecodeBytes(req.Args, &args); err != nil {
		return api.BadRequest.Err(err.Error())
	}
	n.mu.Lock()
	t := n.tasks[req.ID]
	n.mu.Unlock()
	if t == nil {
		feed, err := feedback.Create(filepath.Join(n.cfg.Dir, req.ID), feedback.Options{ID: req.ID, Tick: loadTick})
		if err != nil {
			return err
		}
		if err := feed.State("running", nil); err != nil {
			return err
		}
		t = &loadTask{feed: feed, loud: args.Path == loudPath}
		n.mu.Lock()
		n.tasks[req.ID] = t
		n.mu.Unlock()
	}
	return n.stream(w, r, req.ID, t, 0)
}

func (n *loadNode) serveFeed(w http.ResponseWriter, r *http.Request) error {
	t, err := n.find(r)
	if err != nil {
		return err
	}
	after, _ := strconv.ParseInt(r.URL.Query().Get("after"), 10, 64)
	return n.stream(w, r, mux.Vars(r)["id"], t, after)
}

func (n *loadNode) serveAck(w http.ResponseWriter, r *http.Request) error {
	var ack api.Ack
	if err := serve.ReadJSON(w, r, &ack); err != nil {
		return err
	}
	t, err := n.find(r)
	if err != nil {
		return err
	}
	if err := t.feed.Ack(ack.Seq); err != nil {
		return err
	}
	return serve.JSON(w, http.StatusOK, ack)
}

func (n *loadNode) find(r *http.Request) (*loadTask, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if t := n.tasks[mux.Vars(r)["id"]]; t != nil {
		return t, nil
	}
	return nil, api.UnknownTask.Err("there is no such task here")
}

func (n *loadNode) stream(w http.ResponseWriter, r *http.Request, id string, t *loadTask, after int64) error {
	hello := feedback.Hello{ID: id, Op: api.OpDigest, Node: n.cfg.Name, Start: 1, DirID: n.dirID}
	return serve.Feed(&countedReply{w, &n.lines}, r, t.feed, after, hello, feedback.WriterOptions{}, context.Background())
}

// countedReply counts lines: each is one write.
type countedReply struct {
	http.ResponseWriter
	lines *atomic.Int64
}

func (c *countedReply) Write(p []byte) (int, error) {
	c.lines.Add(1)
	return c.ResponseWriter.Write(p)
}

func (c *countedReply) Unwrap() http.ResponseWriter { return c.ResponseWriter }
