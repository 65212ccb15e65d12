package master_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gantry/api"
	"gantry/config"
	"gantry/front"
	"gantry/internal/cluster"
	"gantry/internal/daemon"
	"gantry/internal/testkit"
	"gantry/job"
	"gantry/master"
	"gantry/node"
	"gantry/pki"

	"github.com/stretchr/testify/require"
)

// A world is a CA, a master behind an embedded front and on its local socket,
// and nodes; none of the responders runs until it is started.
type world struct {
	t      testing.TB
	dir    string
	ca     *pki.CA
	ids    map[string]*pki.Identity
	addr   string
	addrs  map[string]string // of nodes
	config string
	log    *lockedBuffer

	server  *master.Server
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

const masterToml = `name = "hub"
socket = "%[1]s/s"
local_socket = "%[1]s/local"
dir = "%[1]s/state"
cluster = "%[1]s/cluster.toml"
[identity]
ca = "%[1]s/ca/ca.pem"
cert = "%[1]s/hub/cert.pem"
key = "%[1]s/hub/key.pem"
crl = "%[1]s/crl.pem"
[front]
kind = "embedded"
uids = [%[2]d]
[[grant]]
who = "spiffe://demo/operator/ann"
may = ["status", "digest", "export", "import:create", "selftest"]
nodes = ["alpha", "beta"]
resources = ["disks"]
[[grant]]
who = "spiffe://demo/operator/bob"
may = ["export"]
nodes = ["*"]
resources = ["mail"]
[[grant]]
who = "spiffe://demo/operator/root"
may = ["status", "list", "digest", "export", "import:create", "import:replace", "import:update", "command", "selftest", "jobs", "jobs:cancel", "audit", "metrics"]
nodes = ["*"]
resources = ["*"]
[[grant]]
who = "spiffe://demo/operator/sue"
may = ["jobs", "audit"]
[[grant]]
who = "local:1000"
may = ["status", "digest"]
nodes = ["*"]
resources = ["disks"]
[limits]
drain = "5s"
[[limit]]
name = "uplink"
jobs = 1
%[3]s
`

// newWorld makes the files, and the front of the master. more is added to
// master.toml.
func newWorld(t testing.TB, more string) *world {
	t.Helper()
	w := &world{t: t, dir: testkit.Dir(t), ids: map[string]*pki.Identity{}, addrs: map[string]string{}, log: &lockedBuffer{}}
	require.NoError(t, os.Chmod(w.dir, 0o755)) // for callers with another uid
	var err error
	w.ca, err = pki.InitCA(filepath.Join(w.dir, "ca"), "demo", pki.Options{})
	require.NoError(t, err)
	for _, who := range []string{"operator/ann", "operator/bob", "operator/eve", "operator/root", "operator/sue", "node/alpha", "master/hub"} {
		role, name, _ := strings.Cut(who, "/")
		w.ids[name] = w.identity(filepath.Join(w.dir, name), role, name)
	}
	w.issue(filepath.Join(w.dir, "front"), pki.RoleFront, "hub")
	list, err := w.ca.CRL()
	require.NoError(t, err)
	w.write("crl.pem", string(list.PEM))
	w.addr = keptAddress(t)
	var nodes strings.Builder
	nodes.WriteString("name = \"demo\"\n")
	for _, name := range []string{"alpha", "beta"} {
		w.addrs[name] = keptAddress(t)
		fmt.Fprintf(&nodes, "[[node]]\nname = %q\nurl = \"https://%s\"\n", name, w.addrs[name])
	}
	fmt.Fprintf(&nodes, "[[master]]\nname = \"hub\"\nurl = \"https://%s\"\n", w.addr)
	w.write("cluster.toml", nodes.String())
	w.config = w.write("master.toml", fmt.Sprintf(masterToml, w.dir, os.Getuid(), more))
	w.front(front.Options{API: []string{w.addr}, Socket: filepath.Join(w.dir, "s"), Prefix: api.MasterPrefix}, "front")
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of the master:\n%s", w.log)
		}
	})
	return w
}

// keptAddress is a loopback address that nobody else gets until the test has
// ended.
func keptAddress(t testing.TB) string {
	t.Helper()
	p, err := cluster.KeepPort("127.0.0.1")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	return p.Addr
}

func (w *world) write(name, text string) string {
	path := filepath.Join(w.dir, name)
	require.NoError(w.t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(w.t, os.WriteFile(path, []byte(text), 0o644))
	return path
}

func (w *world) read(name string) string {
	text, err := os.ReadFile(filepath.Join(w.dir, name))
	require.NoError(w.t, err)
	return string(text)
}

func (w *world) issue(dir, role, name string) {
	var hosts []string
	if role == pki.RoleFront {
		hosts = []string{"127.0.0.1"}
	}
	leaf, err := w.ca.Issue(role, name, hosts, 0)
	require.NoError(w.t, err)
	require.NoError(w.t, os.MkdirAll(dir, 0o755))
	require.NoError(w.t, os.WriteFile(filepath.Join(dir, "cert.pem"), leaf.CertPEM, 0o644))
	require.NoError(w.t, os.WriteFile(filepath.Join(dir, "key.pem"), leaf.KeyPEM, 0o600))
}

func (w *world) identity(dir, role, name string) *pki.Identity {
	w.issue(dir, role, name)
	id, err := pki.LoadIdentity(filepath.Join(w.dir, "ca", pki.CertFile), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	require.NoError(w.t, err)
	return id
}

// front runs an embedded front until the test ends.
func (w *world) front(o front.Options, certs string) {
	o.Dir, o.CA = filepath.Join(w.dir, certs+"-dir"), filepath.Join(w.dir, "ca", pki.CertFile)
	o.Cert, o.Key = filepath.Join(w.dir, certs, "cert.pem"), filepath.Join(w.dir, certs, "key.pem")
	require.NoError(w.t, os.MkdirAll(o.Dir, 0o700))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- front.Embedded(ctx, o) }()
	w.t.Cleanup(func() {
		cancel()
		require.NoError(w.t, <-done)
	})
	require.Eventually(w.t, func() bool {
		c, err := net.Dial("tcp", o.API[0])
		if err == nil {
			c.Close()
		}
		return err == nil
	}, 5*time.Second, 10*time.Millisecond)
}

// start runs the master in this process, over its real sockets.
func (w *world) start() *world {
	w.t.Helper()
	cfg, err := config.LoadMaster(w.config)
	require.NoError(w.t, err)
	w.server, err = master.NewServer(context.Background(), cfg, master.ServerOptions{Log: slog.New(slog.NewTextHandler(w.log, nil)), Version: "test"})
	require.NoError(w.t, err)
	l, err := daemon.Listen("masterd", cfg.Socket, cfg.From)
	require.NoError(w.t, err)
	local, err := daemon.ListenLocal(cfg.LocalSocket)
	require.NoError(w.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	w.stop, w.stopped = cancel, make(chan error, 1)
	go func() { w.stopped <- w.server.Serve(ctx, l, local) }()
	w.t.Cleanup(w.halt)
	return w
}

// halt drains and waits, as SIGTERM does.
func (w *world) halt() {
	if w.stop == nil {
		return
	}
	w.stop()
	w.stop = nil
	require.NoError(w.t, <-w.stopped)
}

// The callers of tests: names of certificates, and the two users of the machine.
const (
	self  = "self"  // the master's own user, on the local socket
	other = "other" // uid 1000, who has a grant; needs root to be had
	alien = "alien" // uid 1001, who has none
)

// http is an HTTP client of one caller, and the URL of the master for it.
func (w *world) http(who string) (*http.Client, string) {
	if who == self {
		tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(w.dir, "local"))
		}}
		w.t.Cleanup(tr.CloseIdleConnections)
		return &http.Client{Transport: tr, Timeout: 30 * time.Second}, "http://local"
	}
	tr := &http.Transport{TLSClientConfig: pki.ClientTLS(w.ids[who], "hub", nil), DisableCompression: true}
	w.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 30 * time.Second}, "https://" + w.addr
}

// A reply is what an HTTP client saw.
type reply struct {
	status  int
	header  http.Header
	body    string
	problem api.Problem
}

func (w *world) ask(who, method, path string, header map[string]string, body string) reply {
	w.t.Helper()
	client, base := w.http(who)
	req, err := http.NewRequest(method, base+api.MasterPrefix+path, strings.NewReader(body))
	require.NoError(w.t, err)
	if body == "" {
		req.Body = http.NoBody
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := client.Do(req)
	require.NoError(w.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(w.t, err)
	return w.judge(resp.StatusCode, resp.Header, text, method)
}

func (w *world) judge(status int, header http.Header, text []byte, method string) reply {
	r := reply{status: status, header: header, body: string(text)}
	if status >= 400 && method != http.MethodHead {
		require.Equal(w.t, api.TypeProblem, header.Get("Content-Type"), "%s", text)
		require.NoError(w.t, api.DecodeBytes(text, &r.problem), "%s", text)
		require.Equal(w.t, status, r.problem.Status)
		require.Equal(w.t, "no-store", header.Get("Cache-Control"))
	}
	return r
}

var jsonType = map[string]string{"Content-Type": api.TypeJSON}

func into[T any](t testing.TB, r reply) T {
	t.Helper()
	var v T
	require.NoError(t, api.DecodeBytes([]byte(r.body), &v), r.body)
	return v
}

// digestSpec is a job that ann may ask for.
func digestSpec(file string) job.Spec {
	return job.Spec{Kind: job.Digest, Cluster: "demo", From: job.Place{Node: "alpha", File: api.File{Resource: "disks", Path: file}}}
}

func request(spec job.Spec) string { return string(api.Encode(api.JobRequest{Spec: api.Encode(spec)})) }

// later is a job that stays queued.
func later(spec job.Spec) string {
	return string(api.Encode(api.JobRequest{Spec: api.Encode(spec), NotBefore: time.Now().Add(time.Hour)}))
}

// submit has a job queued for an hour.
func (w *world) submit(who, file string) api.Job {
	w.t.Helper()
	r := w.ask(who, "POST", "/jobs", jsonType, later(digestSpec(file)))
	require.Equal(w.t, 201, r.status, r.body)
	return into[api.Job](w.t, r)
}

const nodeToml = `name = %[1]q
socket = "%[2]s/s"
dir = "%[2]s/state"
cluster = "%[3]s/cluster.toml"
[identity]
ca = "%[3]s/ca/ca.pem"
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
[[grant]]
who = "spiffe://demo/master/*"
may = ["status", "list", "digest", "export", "import:create"]
resources = ["disks"]
[[grant]]
who = "spiffe://demo/operator/ann"
may = ["status", "list", "digest", "export", "import:create"]
resources = ["disks"]
`

// node runs a real node behind a front of its own, until the test ends; it
// returns the folder of its resource.
func (w *world) node(name string) string {
	dir := filepath.Join(w.dir, "n-"+name)
	w.issue(filepath.Join(dir, "node"), pki.RoleNode, name)
	w.issue(filepath.Join(dir, "front"), pki.RoleFront, name)
	for _, d := range []string{"disks", "state"} {
		require.NoError(w.t, os.MkdirAll(filepath.Join(dir, d), 0o700))
	}
	list, err := w.ca.CRL()
	require.NoError(w.t, err)
	w.write("n-"+name+"/crl.pem", string(list.PEM))
	path := w.write("n-"+name+"/node.toml", fmt.Sprintf(nodeToml, name, dir, w.dir, os.Getuid()))
	w.front(front.Options{API: []string{w.addrs[name]}, Socket: filepath.Join(dir, "s")}, "n-"+name+"/front")
	cfg, err := config.LoadNode(path)
	require.NoError(w.t, err)
	n, err := node.New(cfg, node.Options{Version: "test"})
	require.NoError(w.t, err)
	l, err := net.Listen("unix", cfg.Socket)
	require.NoError(w.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Serve(ctx, l) }()
	w.t.Cleanup(func() {
		cancel()
		require.NoError(w.t, <-done)
	})
	return filepath.Join(dir, "disks")
}
