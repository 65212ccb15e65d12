package node_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gantry/api"
	"gantry/client"
	"gantry/config"
	"gantry/feedback"
	"gantry/front"
	"gantry/internal/cluster"
	"gantry/internal/testkit"
	"gantry/node"
	"gantry/pki"

	"github.com/stretchr/testify/require"
	"lukechampine.com/blake3"
)

// A world is a CA and nodes behind embedded fronts.
type world struct {
	t   *testing.T
	dir string
	ca  *pki.CA
	ids map[string]*pki.Identity
	all map[string]*machine
}

// A machine is one node: its files, its front, and its responder while it runs.
type machine struct {
	*world
	name   string
	dir    string
	addr   string
	config string // path of node.toml
	log    *lockedBuffer

	node    *node.Node
	stop    context.CancelFunc
	stopped chan error
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newWorld makes the CA, operators ann and bob, master hub, and one machine per
// name; none of the responders runs yet. more is added to every node.toml.
func newWorld(t *testing.T, more string, names ...string) *world {
	t.Helper()
	w := &world{t: t, dir: testkit.Dir(t), ids: map[string]*pki.Identity{}, all: map[string]*machine{}}
	var err error
	w.ca, err = pki.InitCA(filepath.Join(w.dir, "ca"), "demo", pki.Options{})
	require.NoError(t, err)
	for _, who := range []string{"operator/ann", "operator/bob", "master/hub"} {
		role, name, _ := strings.Cut(who, "/")
		w.ids[name] = w.identity(filepath.Join(w.dir, name), role, name)
	}
	var list strings.Builder
	list.WriteString("name = \"demo\"\n")
	for _, name := range names {
		addr := keptAddress(t)
		fmt.Fprintf(&list, "[[node]]\nname = %q\nurl = \"https://%s\"\n", name, addr)
		w.all[name] = &machine{world: w, name: name, addr: addr, dir: filepath.Join(w.dir, name), log: &lockedBuffer{}}
	}
	w.write("cluster.toml", list.String(), 0o644)
	for _, name := range names {
		w.all[name].prepare(more)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, m := range w.all {
				t.Logf("log of %s:\n%s", m.name, m.log)
			}
		}
	})
	return w
}

// keptAddress is a loopback address that nobody else gets until the test has
// ended: fronts, which also come and go, are the only ones that listen on it.
func keptAddress(t testing.TB) string {
	t.Helper()
	p, err := cluster.KeepPort("127.0.0.1")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	return p.Addr
}

func (w *world) write(name, text string, perm os.FileMode) string {
	path := filepath.Join(w.dir, name)
	require.NoError(w.t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(w.t, os.WriteFile(path, []byte(text), perm))
	return path
}

// identity issues a certificate into a folder and loads it.
func (w *world) identity(dir, role, name string) *pki.Identity {
	w.issue(dir, role, name)
	id, err := pki.LoadIdentity(filepath.Join(w.dir, "ca", pki.CertFile), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	require.NoError(w.t, err)
	return id
}

func (w *world) issue(dir, role, name string) {
	leaf, err := w.ca.Issue(role, name, []string{"127.0.0.1"}[:min(1, strings.Count(role, "front"))], 0)
	require.NoError(w.t, err)
	require.NoError(w.t, os.MkdirAll(dir, 0o755))
	require.NoError(w.t, os.WriteFile(filepath.Join(dir, "cert.pem"), leaf.CertPEM, 0o644))
	require.NoError(w.t, os.WriteFile(filepath.Join(dir, "key.pem"), leaf.KeyPEM, 0o600))
}

const nodeToml = `name = %[1]q
socket = "%[2]s/s"
dir = "%[2]s/state"
cluster = "%[3]s/cluster.toml"
[identity]
ca = "%[2]s/ca.pem"
cert = "%[2]s/node/cert.pem"
key = "%[2]s/node/key.pem"
crl = "%[2]s/crl.pem"
[front]
kind = "embedded"
uids = [%[4]d]
[[resource]]
name = "disks"
kind = "files"
path = "%[2]s/disks"
writable = true
[[resource]]
name = "frozen"
kind = "files"
path = "%[2]s/frozen"
[[grant]]
who = "spiffe://demo/operator/ann"
may = ["status", "list", "digest", "export", "import:create", "import:replace", "import:update", "selftest"]
resources = ["disks", "frozen"]
[[grant]]
who = "spiffe://demo/operator/bob"
may = ["status", "digest"]
resources = ["frozen"]
[[grant]]
who = "spiffe://demo/master/*"
may = ["digest"]
resources = ["disks"]
%[5]s
`

func (m *machine) prepare(more string) {
	m.issue(filepath.Join(m.dir, "node"), pki.RoleNode, m.name)
	m.issue(filepath.Join(m.dir, "front"), pki.RoleFront, m.name)
	for _, dir := range []string{"disks", "frozen", "frontdir", "state"} {
		require.NoError(m.t, os.MkdirAll(filepath.Join(m.dir, dir), 0o700))
	}
	require.NoError(m.t, os.WriteFile(filepath.Join(m.dir, "ca.pem"), m.ca.CertPEM(), 0o644))
	list, err := m.ca.CRL()
	require.NoError(m.t, err)
	require.NoError(m.t, os.WriteFile(filepath.Join(m.dir, "crl.pem"), list.PEM, 0o644))
	m.config = m.write(m.name+"/node.toml", fmt.Sprintf(nodeToml, m.name, m.dir, m.world.dir, os.Getuid(), more), 0o644)
	m.front()
}

// front runs the embedded front until the test ends.
func (m *machine) front() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- front.Embedded(ctx, front.Options{
			API: []string{m.addr}, Socket: filepath.Join(m.dir, "s"), Dir: filepath.Join(m.dir, "frontdir"),
			Cert: filepath.Join(m.dir, "front", "cert.pem"), Key: filepath.Join(m.dir, "front", "key.pem"),
			CA: filepath.Join(m.world.dir, "ca", pki.CertFile),
		})
	}()
	m.t.Cleanup(func() {
		cancel()
		require.NoError(m.t, <-done)
	})
	require.Eventually(m.t, func() bool {
		c, err := net.Dial("tcp", m.addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	}, 5*time.Second, 10*time.Millisecond)
}

// start runs the responder in this process, over its real socket.
func (m *machine) start() *machine {
	m.t.Helper()
	cfg, err := config.LoadNode(m.config)
	require.NoError(m.t, err)
	m.node, err = node.New(cfg, node.Options{Log: slog.New(slog.NewTextHandler(m.log, nil)), Version: "test"})
	require.NoError(m.t, err)
	l, err := net.Listen("unix", cfg.Socket)
	require.NoError(m.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	m.stop, m.stopped = cancel, make(chan error, 1)
	go func() { m.stopped <- m.node.Serve(ctx, l) }()
	m.t.Cleanup(m.halt)
	return m
}

// halt drains and waits, as SIGTERM does.
func (m *machine) halt() {
	if m.stop == nil {
		return
	}
	m.stop()
	m.stop = nil
	require.NoError(m.t, <-m.stopped)
}

func (m *machine) restart() {
	m.t.Helper()
	m.halt()
	m.start()
}

// as is a client for one caller.
func (m *machine) as(who string) *client.Client {
	c := client.New(client.Config{
		Node: config.ClusterNode{Name: m.name, URL: "https://" + m.addr, DataURL: "https://" + m.addr},
		TLS:  pki.ClientTLS(m.ids[who], m.name, nil),
	})
	m.t.Cleanup(c.Close)
	return c
}

// http is a bare HTTP client for one caller, for requests that no client of
// ours would make.
func (m *machine) http(who string) *http.Client {
	tr := &http.Transport{TLSClientConfig: pki.ClientTLS(m.ids[who], m.name, nil), DisableCompression: true}
	m.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 30 * time.Second}
}

// A reply is what an HTTP client saw.
type reply struct {
	status  int
	header  http.Header
	body    string
	problem api.Problem
}

func (m *machine) ask(who, method, path string, header map[string]string, body string) reply {
	m.t.Helper()
	req, err := http.NewRequest(method, "https://"+m.addr+api.Prefix+path, strings.NewReader(body))
	require.NoError(m.t, err)
	if body == "" {
		req.Body = http.NoBody
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := m.http(who).Do(req)
	require.NoError(m.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(m.t, err)
	r := reply{status: resp.StatusCode, header: resp.Header, body: string(text)}
	if resp.Header.Get("Content-Type") == api.TypeProblem && method != http.MethodHead {
		require.NoError(m.t, jsonUnmarshal(text, &r.problem))
		require.Equal(m.t, r.status, r.problem.Status)
		require.NotEmpty(m.t, r.problem.Title)
	}
	return r
}

var jsonType = map[string]string{"Content-Type": api.TypeJSON}

// file puts n random bytes into a resource and returns them.
func (m *machine) file(path string, n int, seed uint64) []byte {
	data := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed)})
	r.Read(data)
	full := filepath.Join(m.dir, path)
	require.NoError(m.t, os.MkdirAll(filepath.Dir(full), 0o755))
	require.NoError(m.t, os.WriteFile(full, data, 0o644))
	return data
}

func digest(data []byte) string { return fmt.Sprintf("b3:%x", blake3.Sum256(data)) }

func newRequest(op string, args any) *api.TaskRequest {
	return &api.TaskRequest{ID: api.NewID(), Op: op, Args: api.Encode(args)}
}

// run follows a task to its end.
func (m *machine) run(who string, req *api.TaskRequest) (feedback.Record, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return m.as(who).Follow(ctx, client.Run{Request: req}, func(feedback.Record) error { return nil })
}

// follow follows a task beside the test, until the test ends.
func (m *machine) follow(who string, req *api.TaskRequest) <-chan feedback.Record {
	ctx, cancel := context.WithCancel(context.Background())
	out := make(chan feedback.Record, 1)
	done := make(chan struct{})
	c := m.as(who)
	go func() {
		defer close(done)
		rec, err := c.Follow(ctx, client.Run{Request: req}, func(feedback.Record) error { return nil })
		if err == nil {
			out <- rec
		}
	}()
	m.t.Cleanup(func() {
		cancel()
		<-done
	})
	waitForTask(m, who, req.ID)
	return out
}

func resultOf[T any](t *testing.T, rec feedback.Record, err error) T {
	t.Helper()
	require.NoError(t, err)
	body, ok := rec.Body.(*feedback.Result)
	require.True(t, ok, "final is %s", rec.Line)
	var v T
	require.NoError(t, api.DecodeBytes(body.Value, &v))
	return v
}

func codeOf(t *testing.T, rec feedback.Record, err error) string {
	t.Helper()
	require.NoError(t, err)
	body, ok := rec.Body.(*feedback.Error)
	require.True(t, ok, "final is %s", rec.Line)
	return body.Code
}

// waitForTask waits until a task is known to its node.
func waitForTask(m *machine, who, id string) api.TaskInfo {
	c := m.as(who)
	var info *api.TaskInfo
	require.Eventually(m.t, func() bool {
		var err error
		info, err = c.Task(context.Background(), id)
		return err == nil
	}, 10*time.Second, 5*time.Millisecond)
	return *info
}

// begin starts a task and leaves its feed; it returns the HTTP status, 0 when
// nobody answered.
func (m *machine) begin(req *api.TaskRequest) int {
	r, err := http.NewRequest("POST", "https://"+m.addr+api.Prefix+"/tasks", bytes.NewReader(api.Encode(req)))
	require.NoError(m.t, err)
	r.Header.Set("Content-Type", api.TypeJSON)
	resp, err := m.http("ann").Do(r)
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}
