package cluster_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"gantry/api"
	"gantry/client"
	"gantry/config"
	"gantry/fastcgi"
	"gantry/feedback"
	"gantry/front"
	"gantry/internal/cluster"
	"gantry/internal/serve"
	"gantry/pki"

	"github.com/stretchr/testify/require"
)

var feedCuts = flag.Int("feedcuts", 200, "how often TestFeedCut cuts the feed behind the first front; behind the others it is a quarter")

const (
	feedID      = "0192d3f4-0000-7000-8000-00000000feed"
	feedRecords = 10_000 // read at least, behind the first front
	// feedAhead is how many records the writer is ahead of its reader at most:
	// every record is read while others are written.
	feedAhead = 150
	// feedKills is how many of the cuts are kill -9 of the responder. Few: a
	// keeper waits longer before each restart.
	feedKills = 8
)

// init makes the test binary the cluster's program too: a responder that serves
// one feed, and the embedded front.
//
// No operation of a node stores 10,000 records in the time of a test (a cut of
// an import is one record, and is followed by half a second of backoff). So the
// responder is the test's own; the feed and its journal, the reply, the FastCGI
// responder, the front and its configuration, the supervisor that restarts what
// was killed, and the client that attaches again are the real ones.
func init() {
	if len(os.Args) < 2 {
		return
	}
	var err error
	switch os.Args[1] {
	case "__node":
		err = feedResponder(os.Args[3]) // __node --config FILE
	case "__front":
		err = embeddedFront(os.Args[2:])
	default:
		return
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func embeddedFront(args []string) error {
	var o front.Options
	var apiAddr, data string
	f := flag.NewFlagSet("__front", flag.ContinueOnError)
	for name, v := range map[string]*string{"api": &apiAddr, "data": &data, "socket": &o.Socket, "cert": &o.Cert, "key": &o.Key, "ca": &o.CA, "dir": &o.Dir} {
		f.StringVar(v, name, "", "")
	}
	if err := f.Parse(args); err != nil {
		return err
	}
	o.API, o.Data = []string{apiAddr}, []string{data}
	return front.Embedded(context.Background(), o)
}

// A feedWriter writes one feed, no further than feedAhead beyond what its
// reader has.
type feedWriter struct {
	feed   *feedback.Feed
	enough string // a file that exists when the feed may end

	mu      sync.Mutex
	more    *sync.Cond
	allowed int64 // guarded by mu; the greatest record that may be written
}

func feedResponder(path string) error {
	cfg, err := config.LoadNode(path)
	if err != nil {
		return err
	}
	journal := filepath.Join(cfg.Dir, "feed")
	o := feedback.Options{ID: feedID}
	f, err := feedback.Open(journal, o)
	if errors.Is(err, os.ErrNotExist) {
		f, err = feedback.Create(journal, o)
	}
	if err != nil {
		return err
	}
	if err := os.Remove(cfg.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	l, err := net.Listen("unix", cfg.Socket)
	if err != nil {
		return err
	}
	if err := os.Chmod(cfg.Socket, 0o660); err != nil {
		return err
	}
	w := &feedWriter{feed: f, enough: filepath.Join(cfg.Dir, "enough")}
	w.more = sync.NewCond(&w.mu)
	failed := make(chan error, 2)
	go func() {
		if err := w.write(); err != nil {
			failed <- err
		}
	}()
	routes := http.NewServeMux()
	routes.HandleFunc("GET "+api.Prefix+"/status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", api.TypeJSON)
		fmt.Fprintln(w, `{"node":"alpha"}`)
	})
	routes.HandleFunc("GET "+api.Prefix+"/tasks/"+feedID+"/feed", w.serve)
	srv := &fastcgi.Server{Handler: routes, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	go func() { failed <- srv.Serve(l) }()
	return <-failed
}

// write goes on where the journal ends, until there is enough.
func (w *feedWriter) write() error {
	for n := w.feed.Last() + 1; ; n++ {
		w.mu.Lock()
		for n > w.allowed {
			w.more.Wait()
		}
		w.mu.Unlock()
		if _, err := os.Stat(w.enough); err == nil {
			return w.feed.Finish(n, nil)
		}
		text := fmt.Sprintf("line %d of process %d %s", n, os.Getpid(), strings.Repeat("x", int(n%200)))
		if n%8 != 0 {
			w.feed.Log("info", "", text)
		} else if err := w.feed.State(text, n); err != nil {
			return err
		}
	}
}

func (w *feedWriter) serve(rw http.ResponseWriter, r *http.Request) {
	after, err := strconv.ParseInt(r.URL.Query().Get("after"), 10, 64)
	if err != nil {
		after = 0
	}
	rw = &begunWriter{ResponseWriter: rw, begun: func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.allowed = max(w.allowed, after+feedAhead)
		w.more.Broadcast()
	}}
	hello := feedback.Hello{ID: feedID, Op: "test", Node: "alpha", Start: 1, DirID: "one"}
	if err := serve.Feed(rw, r, w.feed, after, hello, feedback.WriterOptions{}, context.Background()); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// A begunWriter calls begun with the first line. The stream has told by then which
// record was the last: what is written from now on is read while it is written,
// however fast the writer is.
type begunWriter struct {
	http.ResponseWriter
	begun func()
	once  sync.Once
}

func (w *begunWriter) Write(p []byte) (int, error) {
	w.once.Do(w.begun)
	return w.ResponseWriter.Write(p)
}

func (w *begunWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// A cutter dials connections that break after so many bytes.
type cutter struct {
	mu   sync.Mutex
	next int64 // guarded by mu; 0: never
}

// after sets what the next connection may bring.
func (c *cutter) after(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next = n
}

func (c *cutter) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return &cutConn{conn, c.next, c.next > 0}, nil
}

// cutConn breaks with a reset, wherever in a line or TLS record that is.
type cutConn struct {
	net.Conn
	left  int64
	bound bool
}

var errCutHere = errors.New("cut on purpose")

func (c *cutConn) Read(p []byte) (int, error) {
	if !c.bound {
		return c.Conn.Read(p)
	}
	if c.left <= 0 {
		c.Conn.(*net.TCPConn).SetLinger(0)
		c.Conn.Close()
		return 0, errCutHere
	}
	n, err := c.Conn.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, err
}

// reading is a reader that attaches again and again.
type reading struct {
	t       *testing.T
	c       *cluster.Cluster
	client  *client.Client
	cutter  cutter
	rng     *rand.Rand
	seen    []string // stored records, by number - 1
	final   bool
	killed  bool // the responder, in the last attach
	cuts    int  // inside the stream
	kills   int  // of them
	live    int  // records that were not there yet when their stream began
	refused int  // attaches that got no feed

	needCuts, needKills, needRecords int
}

func newReading(t *testing.T, c *cluster.Cluster, rng *rand.Rand) *reading {
	r := &reading{t: t, c: c, rng: rng}
	dir := t.TempDir() // a key is only read by its owner, and the operator's is not ours
	for _, name := range []string{"ca.pem", "cert.pem", "key.pem"} {
		text, err := os.ReadFile(filepath.Join(c.Home(), name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), text, 0o400))
	}
	id, err := pki.LoadIdentity(filepath.Join(dir, "ca.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	require.NoError(t, err)
	nodes, err := config.LoadCluster(filepath.Join(c.Home(), "cluster.toml"))
	require.NoError(t, err)
	node, _ := nodes.Node("alpha")
	r.client = client.New(client.Config{Node: node, TLS: pki.ClientTLS(id, node.Name, node.Pins), Dial: r.cutter.dial, Silence: 30 * time.Second})
	t.Cleanup(r.client.Close)
	return r
}

// attach reads one reply to its end. kill is after how many records the
// responder is killed; 0: never.
func (r *reading) attach(kill int) {
	ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
	defer cancel()
	feed, err := r.client.Attach(ctx, feedID, int64(len(r.seen)))
	if err != nil {
		r.refused++
		return
	}
	defer r.client.Close() // no connection is used twice
	defer feed.Close()
	last, got := int64(-1), 0
	for {
		rec, err := feed.Read()
		var bad *feedback.FormatError
		require.False(r.t, errors.As(err, &bad), "%v", err)
		if err != nil {
			if got > 0 && ctx.Err() == nil {
				r.cuts++
				if kill > 0 && got >= kill {
					r.kills++
				}
			}
			return
		}
		switch rec.Kind {
		case feedback.KindHello:
			last = rec.Body.(*feedback.Hello).Last
		case feedback.KindGap:
			require.Fail(r.t, "records are missing", "%s", rec.Line)
		}
		if rec.Seq == 0 {
			continue
		}
		require.Equal(r.t, int64(len(r.seen)+1), rec.Seq, "%s", rec.Line)
		r.seen = append(r.seen, string(rec.Line))
		if rec.Seq > last {
			r.live++
		}
		if got++; got == kill {
			r.killed = true
			require.NoError(r.t, r.c.Kill("alpha/node"))
		}
		if rec.Kind.Final() {
			r.final = true
			return
		}
	}
}

// TestFeedCut: a feed of more than 10,000 stored records, read while it is
// written, cut inside the stream and by kill -9 of the responder, behind every
// front: every record once, in order, as it is in the journal.
func TestFeedCut(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(theSeed(t), 2))
	self, err := os.Executable()
	require.NoError(t, err)
	share := 1
	for _, kind := range front.Kinds {
		t.Run(string(kind), func(t *testing.T) {
			needFront(t, kind)
			c := newCluster(t, cluster.Options{
				Program: self, Front: kind, Nodes: []string{"alpha"}, Env: []string{"GORACE=atexit_sleep_ms=0"},
			}, nil)
			r := newReading(t, c, rng)
			r.needCuts, r.needKills, r.needRecords = *feedCuts/share, feedKills/share, feedRecords/share
			share = 4
			r.whole()
			starts := c.Process("alpha/node").Starts
			t.Logf("cuts: %[2]d in %[1]d records, %[3]d of them kills (%[4]d starts), %[5]d records written while they were read, %[6]d attaches refused",
				len(r.seen), r.cuts, r.kills, starts, r.live, r.refused)
			require.Greater(t, len(r.seen), r.needRecords)
			require.GreaterOrEqual(t, r.cuts, r.needCuts)
			require.GreaterOrEqual(t, r.kills, r.needKills)
			require.Greater(t, starts, r.needKills)
			// A cut loses the whole TLS record that it hits; on a loaded machine those hold many lines.
			require.Greater(t, r.live, r.needRecords/50, "too few records were read while they were written")
			r.journal()
		})
	}
}

// whole reads until the final.
func (r *reading) whole() {
	const handshake = 3000 // bytes, about, until the first line
	dir := filepath.Join(r.c.Dir(), "alpha", "node", "dir")
	stop := time.Now().Add(3 * time.Minute)
	for !r.final {
		require.True(r.t, time.Now().Before(stop), "%d records, %d cuts", len(r.seen), r.cuts)
		kill := 0
		switch {
		case r.cuts >= r.needCuts && r.kills >= r.needKills && len(r.seen) >= r.needRecords:
			require.NoError(r.t, os.WriteFile(filepath.Join(dir, "enough"), nil, 0o644))
			r.cutter.after(0)
		case r.kills*r.needCuts < r.cuts*r.needKills:
			kill = 1 + r.rng.IntN(feedAhead/2)
			r.cutter.after(0)
		default:
			r.cutter.after(handshake + r.rng.Int64N(feedAhead*150))
		}
		before := r.c.Process("alpha/node").Starts
		r.attach(kill)
		if r.killed {
			r.killed = false
			require.NoError(r.t, r.c.Await(deadline(r.t), "alpha/node", func(p cluster.Process) bool { return p.Starts > before }))
			require.NoError(r.t, r.c.Ready(r.t.Context()))
		}
	}
}

// journal compares what was read with what the responder has on disk.
func (r *reading) journal() {
	text, err := os.ReadFile(filepath.Join(r.c.Dir(), "alpha", "node", "dir", "feed"))
	require.NoError(r.t, err)
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")[1:] // after the header
	require.Len(r.t, lines, len(r.seen))
	for i, line := range lines {
		require.Equal(r.t, line, r.seen[i], "record %d", i+1)
	}
}
