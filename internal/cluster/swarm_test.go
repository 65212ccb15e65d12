package cluster_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"gantry/api"
	"gantry/config"
	"gantry/front"
	"gantry/node"
	"gantry/pki"
)

// swarmKinds are the kinds of nodes of a swarm, by the code of the outcome that a call must have
// there; "" is done.
var swarmKinds = []struct{ name, code string }{
	{"dead", "unreachable"},                                                                          // nothing listens
	{"hanging", "unreachable"},                                                                       // accepts, and never says a word
	{"silent", "no_answer"},                                                                          // takes the request, and never answers
	{"wrongpin", "pin_mismatch"},                                                                     // a real node, whose pin is another one in cluster.toml
	{"wrongcert", "server_certificate"},                                                              // a real node's front with another node's certificate
	{"refusing", "forbidden"},                                                                        // a real node that grants nothing
	{"dying", "no_answer"},                                                                           // breaks off in the middle of its answer
	{"html", "not_ours"},                                                                             // another web server
	{"slow", ""},                                                                                     // answers after slowAnswer
	{"good", ""}, {"good", ""}, {"good", ""}, {"good", ""}, {"good", ""}, {"good", ""}, {"good", ""}, // a real node behind a front of its own
}

// slowAnswer is how long a slow node takes.
const slowAnswer = 2 * time.Second

// halfAnswer is what a gate has sent before it waits: as much as a lean client
// may have to keep.
const halfAnswer = 60 << 10

// A swarm is many nodes on loopback addresses in one process: real responders
// behind real embedded fronts, one front each, and broken ones.
type swarm struct {
	dir   string
	ca    *pki.CA
	port  int
	list  strings.Builder
	gates atomic.Int64 // requests that wait at a gate
	work  sync.WaitGroup
	ends  []func()
}

// serveSwarm makes dir/cluster.toml, an operator's identity in dir/ann, and n
// nodes and some gates; it serves until stdin ends. It is a process of its own, so
// that what the caller needs can be measured.
func serveSwarm(dir string, n int) error {
	s := &swarm{dir: dir, port: 15000 + rand.IntN(5000)}
	ctx, cancel := context.WithCancel(context.Background())
	defer s.work.Wait()
	defer func() {
		cancel()
		for _, end := range s.ends {
			end()
		}
	}()
	if err := s.start(ctx, n); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "cluster.toml"), []byte("name = \"demo\"\n"+s.list.String()), 0o644); err != nil {
		return err
	}
	l, err := net.Listen("unix", filepath.Join(dir, "gates"))
	if err != nil {
		return err
	}
	s.serve(l, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, s.gates.Load()) })
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	return nil
}

func (s *swarm) start(ctx context.Context, n int) error {
	var err error
	if s.ca, err = pki.InitCA(filepath.Join(s.dir, "ca"), "demo", pki.Options{}); err != nil {
		return err
	}
	if _, err := s.identity(pki.RoleOperator, "ann"); err != nil {
		return err
	}
	good, err := s.responder(ctx, "real", "\n[[grant]]\nwho = \"spiffe://demo/operator/ann\"\nmay = [\"status\"]\nresources = [\"disks\"]\n")
	if err != nil {
		return err
	}
	refusing, err := s.responder(ctx, "strict", "")
	if err != nil {
		return err
	}
	for i := range n {
		if err := s.node(ctx, i, good, refusing); err != nil {
			return err
		}
	}
	return s.gate(gates(n))
}

// identity issues a certificate into dir/NAME.
func (s *swarm) identity(role, name string) (*pki.Identity, error) {
	var hosts []string
	if role == pki.RoleFront {
		hosts = []string{name + ".test"}
	}
	leaf, err := s.ca.Issue(role, name, hosts, 0)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(s.dir, name)
	crl, err := s.ca.CRL()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	for name, text := range map[string][]byte{"ca.pem": s.ca.CertPEM(), "cert.pem": leaf.CertPEM, "key.pem": leaf.KeyPEM, "crl.pem": crl.PEM} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			return nil, err
		}
	}
	return pki.LoadIdentity(filepath.Join(dir, "ca.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
}

// responder runs a real node and returns its socket.
func (s *swarm) responder(ctx context.Context, name, grants string) (string, error) {
	if _, err := s.identity(pki.RoleNode, name); err != nil {
		return "", err
	}
	dir := filepath.Join(s.dir, name)
	for _, d := range []string{"disks", "state"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			return "", err
		}
	}
	list := filepath.Join(dir, "cluster.toml")
	if err := os.WriteFile(list, []byte("name = \"demo\"\n[[node]]\nname = \""+name+"\"\nurl = \"https://127.0.0.1:9\"\n"), 0o644); err != nil {
		return "", err
	}
	text := fmt.Sprintf(`name = %q
socket = "%[2]s/s"
dir = "%[2]s/state"
cluster = %[3]q
[identity]
ca = "%[2]s/ca.pem"
cert = "%[2]s/cert.pem"
key = "%[2]s/key.pem"
crl = "%[2]s/crl.pem"
[front]
kind = "embedded"
uids = [%[4]d]
[limits]
connections = 1024
[[resource]]
name = "disks"
kind = "files"
path = "%[2]s/disks"
%[5]s`, name, dir, list, os.Getuid(), grants)
	cfg, err := config.ParseNode("node.toml", []byte(text))
	if err != nil {
		return "", err
	}
	n, err := node.New(cfg, node.Options{Log: slog.New(slog.DiscardHandler), Version: "test"})
	if err != nil {
		return "", err
	}
	l, err := net.Listen("unix", cfg.Socket)
	if err != nil {
		return "", err
	}
	s.work.Go(func() { _ = n.Serve(ctx, l) })
	return cfg.Socket, nil
}

// node is the i-th node, at an address of its own.
func (s *swarm) node(ctx context.Context, i int, good, refusing string) error {
	kind := swarmKinds[i%len(swarmKinds)].name
	name := fmt.Sprintf("n%04d", i)
	addr := fmt.Sprintf("127.77.%d.%d:%d", i/250, 1+i%250, s.port)
	fmt.Fprintf(&s.list, "[[node]]\nname = %q\nurl = \"https://%s\"\n", name, addr)
	if kind == "dead" {
		return nil
	}
	if kind == "hanging" {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		s.ends = append(s.ends, func() { l.Close() })
		s.work.Go(func() { swallow(l) })
		return nil
	}
	id, err := s.identity(pki.RoleFront, name)
	if err != nil {
		return err
	}
	switch kind {
	case "wrongpin":
		fmt.Fprintf(&s.list, "pins.current = %q\n", "sha256:"+strings.Repeat("0", 64))
	case "good":
		fmt.Fprintf(&s.list, "pins.current = %q\npins.next = %q\n", "sha256:"+strings.Repeat("0", 64), pki.Pin(id.Cert.Leaf))
	}
	switch kind {
	case "good", "wrongpin", "wrongcert", "refusing":
		return s.front(ctx, name, kind, addr, map[bool]string{false: good, true: refusing}[kind == "refusing"])
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	s.serve(tls.NewListener(l, pki.ServerTLS(id)), broken[kind])
	return nil
}

// broken are the nodes that are no real ones.
var broken = map[string]http.HandlerFunc{
	"silent": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	"dying": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", api.TypeJSON)
		w.Header().Set("Content-Length", "1000")
		io.WriteString(w, `{"node":`)
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	},
	"html": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, "<!doctype html><h1>It works!</h1>")
	},
	"slow": func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(slowAnswer):
		case <-r.Context().Done():
		}
		w.Header().Set("Content-Type", api.TypeJSON)
		w.Write(api.Encode(api.Status{Version: "test"}))
	},
}

// front is a real front before a real responder.
func (s *swarm) front(ctx context.Context, name, kind, addr, socket string) error {
	dir := filepath.Join(s.dir, name)
	cert := dir
	if kind == "wrongcert" {
		cert = filepath.Join(s.dir, "n0003") // another node's, which is made before
	}
	if err := os.Mkdir(filepath.Join(dir, "front"), 0o700); err != nil {
		return err
	}
	s.work.Go(func() {
		err := front.Embedded(ctx, front.Options{
			API: []string{addr}, Socket: socket, Dir: filepath.Join(dir, "front"),
			Cert: filepath.Join(cert, "cert.pem"), Key: filepath.Join(cert, "key.pem"), CA: filepath.Join(dir, "ca.pem"),
		})
		if err != nil {
			fmt.Fprintln(os.Stderr, "front of", name, err)
		}
	})
	return wait(addr)
}

func wait(addr string) error {
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			return c.Close()
		}
		if time.Now().After(end) {
			return err
		}
	}
}

// gates is how many of them a swarm of n nodes has.
func gates(n int) int { return max(64, n/4) }

// gate makes n nodes g0000… at one address that send the first half of a long
// answer and then wait.
func (s *swarm) gate(n int) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	certs := map[string]*tls.Certificate{}
	var conf *tls.Config
	for i := range n {
		name := fmt.Sprintf("g%04d", i)
		id, err := s.identity(pki.RoleFront, name)
		if err != nil {
			return err
		}
		certs[name], conf = &id.Cert, pki.ServerTLS(id)
		fmt.Fprintf(&s.list, "[[node]]\nname = %q\nurl = \"https://%s\"\n", name, l.Addr())
	}
	conf.Certificates = nil
	conf.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) { return certs[hello.ServerName], nil }
	s.serve(tls.NewListener(l, conf), func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", api.TypeJSON)
		fmt.Fprintf(w, `{"version":"%s`, strings.Repeat("x", halfAnswer))
		w.(http.Flusher).Flush()
		s.gates.Add(1)
		<-r.Context().Done()
		s.gates.Add(-1)
	})
	return nil
}

func (s *swarm) serve(l net.Listener, handler http.HandlerFunc) {
	srv := &http.Server{Handler: handler, ErrorLog: log.New(io.Discard, "", 0)}
	s.work.Go(func() { srv.Serve(l) })
	s.ends = append(s.ends, func() { srv.Close() })
}

// swallow accepts connections and keeps them.
func swallow(l net.Listener) {
	var all []net.Conn
	for {
		c, err := l.Accept()
		if err != nil {
			break
		}
		all = append(all, c)
	}
	for _, c := range all {
		c.Close()
	}
}
