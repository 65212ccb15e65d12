package fronttest_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/api"
	"gantry/front"
	"gantry/front/selftest"
	"gantry/internal/cluster"
	"gantry/internal/testkit"
	"gantry/pki"
)

const (
	nodeName    = "alpha"
	clusterName = "fronttest"
	token       = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
	// startTimeout is generous: six servers start at once on two cores.
	startTimeout = 20 * time.Second
	// self is this test program, found by every uid: the file may lie where
	// only we can look.
	self = "/proc/self/exe"
)

// world is one front before one responder, with a CA and clients.
type world struct {
	kind      front.Kind
	dir       string
	o         front.Options
	conf      string
	ca        *pki.CA
	leaf      *pki.Leaf // the front's
	base      time.Time // when the feed began
	front     *process
	responder *process
	resp      responderConfig
}

// newWorld starts everything and takes it down with t.
func newWorld(t *testing.T, kind front.Kind) *world {
	t.Helper()
	w := prepareWorld(t, kind)
	w.startResponder(t)
	w.startFront(t)
	return w
}

// prepareWorld makes keys, folders and configuration, and starts nothing.
func prepareWorld(t *testing.T, kind front.Kind) *world {
	t.Helper()
	if kind != front.EmbeddedServer {
		if _, err := front.Program(kind); err != nil {
			t.Skip("needs " + string(kind) + ": " + err.Error())
		}
	}
	w := &world{kind: kind, dir: testkit.Dir(t), base: time.Now()}
	var err error
	w.ca, err = pki.InitCA(filepath.Join(w.dir, "ca"), clusterName, pki.Options{})
	require.NoError(t, err)

	// As packages and units do it: the socket in a folder of the responder's
	// that the front's group can enter.
	run := filepath.Join(w.dir, "run")
	require.NoError(t, os.Mkdir(run, 0o750))
	etc := filepath.Join(w.dir, "etc")
	require.NoError(t, os.Mkdir(etc, 0o755))
	sent := filepath.Join(w.dir, "sent")
	require.NoError(t, os.Mkdir(sent, 0o755))
	own(t, run, responderUID, frontUID)
	require.NoError(t, os.Chmod(run, 0o750|os.ModeSetgid))
	w.o = front.Options{
		API: []string{free(t, "127.0.0.1"), free(t, "::1")}, Data: []string{free(t, "127.0.0.1"), free(t, "::1")},
		Socket: filepath.Join(run, "s"), Dir: filepath.Join(w.dir, "front"),
		Cert: filepath.Join(etc, "front.pem"), Key: filepath.Join(etc, "front.key"), CA: filepath.Join(etc, "ca.pem"),
		Send: []front.Dir{{Name: "disks", Path: sent}},
	}
	// A responder that was killed leaves its socket.
	t.Cleanup(func() { os.Remove(w.o.Socket) })
	write(t, w.o.CA, w.ca.CertPEM(), 0o644, -1)
	crl, err := w.ca.CRL()
	require.NoError(t, err)
	w.resp = responderConfig{
		Kind: kind, Socket: w.o.Socket, CA: w.o.CA, CRL: filepath.Join(run, "crl"), Sent: sent,
		Front: uint32(frontUID), Base: w.base,
	}
	if os.Geteuid() != 0 {
		w.resp.Front = uint32(os.Geteuid())
	}
	write(t, w.resp.CRL, crl.PEM, 0o600, responderUID)
	w.newCert(t)
	w.makeSent(t, sent)
	w.writeConf(t, etc)
	require.NoError(t, front.Prepare(w.o, frontUID, frontUID))
	return w
}

// newCert gives the front a fresh certificate.
func (w *world) newCert(t *testing.T) {
	t.Helper()
	leaf, err := w.ca.Issue(pki.RoleFront, nodeName, []string{"127.0.0.1", "::1"}, 30*24*time.Hour)
	require.NoError(t, err)
	w.leaf = leaf
	write(t, w.o.Cert, leaf.CertPEM, 0o644, -1)
	write(t, w.o.Key, leaf.KeyPEM, 0o600, frontUID)
}

func (w *world) writeConf(t *testing.T, etc string) {
	t.Helper()
	if w.kind == front.EmbeddedServer {
		w.o.Token = token
		return
	}
	w.o.TokenInclude = filepath.Join(etc, "token.conf")
	text, err := front.RenderToken(w.kind, token)
	require.NoError(t, err)
	write(t, w.o.TokenInclude, []byte(text), 0o400, frontUID)
	text, err = front.Render(w.kind, w.o)
	require.NoError(t, err)
	w.conf = filepath.Join(etc, "node.conf")
	write(t, w.conf, []byte(text), 0o644, -1)
}

// makeSent fills the folder from which the front itself sends.
func (w *world) makeSent(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "disk 1.img"))
	require.NoError(t, err)
	defer f.Close()
	_, err = io.Copy(f, selftest.NewContent(selftest.RangeSize))
	require.NoError(t, err)
	write(t, filepath.Join(w.dir, "secret"), []byte("nobody asked for this"), 0o644, -1)
	require.NoError(t, os.Symlink(filepath.Join(w.dir, "secret"), filepath.Join(dir, "link")))
}

func (w *world) startResponder(t *testing.T) {
	t.Helper()
	arg, err := json.Marshal(w.resp)
	require.NoError(t, err)
	w.responder = start(t, responderUID, []string{"GANTRY_FRONTTEST=responder", "GANTRY_FRONTTEST_CONFIG=" + string(arg)}, self)
	w.await(t, w.responder, "responder", func() bool {
		// Not for us: the responder closes at once. That it accepts is enough.
		c, err := net.Dial("unix", w.o.Socket)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

func (w *world) startFront(t *testing.T) {
	t.Helper()
	if w.kind == front.EmbeddedServer {
		arg, err := json.Marshal(embeddedConfig{w.o.API, w.o.Data, w.o.Socket, w.o.Cert, w.o.Key, w.o.CA, w.o.Dir, w.o.Token})
		require.NoError(t, err)
		w.front = start(t, frontUID, []string{"GANTRY_FRONTTEST=embedded", "GANTRY_FRONTTEST_CONFIG=" + string(arg)}, self)
	} else {
		w.front = start(t, frontUID, nil, front.Command(w.kind, w.conf, w.o)...)
	}
	for _, addr := range w.addresses() {
		w.await(t, w.front, "front", func() bool {
			c, err := net.Dial("tcp", addr)
			if err == nil {
				c.Close()
			}
			return err == nil
		})
	}
}

func (w *world) addresses() []string { return append(append([]string(nil), w.o.API...), w.o.Data...) }

// await polls a real process until ready says yes.
func (w *world) await(t *testing.T, p *process, what string, ready func() bool) {
	t.Helper()
	ok := eventually(startTimeout, func() bool { return !p.running() || ready() })
	if ok && p.running() {
		return
	}
	log, _ := os.ReadFile(filepath.Join(w.o.Dir, "error.log"))
	t.Fatalf("%s of %s did not start: %s\n%s", what, w.kind, p.out, log)
}

func eventually(d time.Duration, ready func() bool) bool {
	deadline := time.Now().Add(d)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ready() {
		if time.Now().After(deadline) {
			return false
		}
		<-tick.C
	}
	return true
}

// identity issues a client certificate.
func (w *world) identity(t *testing.T, role string) *pki.Identity {
	t.Helper()
	leaf, err := w.ca.Issue(role, "anna", nil, time.Hour)
	require.NoError(t, err)
	return identityOf(t, w.ca, leaf)
}

func identityOf(t *testing.T, ca *pki.CA, leaf *pki.Leaf) *pki.Identity {
	t.Helper()
	cert, err := tls.X509KeyPair(leaf.CertPEM, leaf.KeyPEM)
	require.NoError(t, err)
	return &pki.Identity{ID: leaf.ID, CA: ca.Cert(), Cert: cert}
}

// peer is a client at one address of the front.
type peer struct {
	http *http.Client
	base string // https://ADDRESS/node/v1/
	tls  *tls.Config
	addr string
}

// client returns an operator's client for the first API address.
func (w *world) client(t *testing.T) *peer {
	t.Helper()
	return w.clientFor(t, pki.ClientTLS(w.identity(t, pki.RoleOperator), nodeName, nil), w.o.API[0])
}

func (w *world) clientFor(t *testing.T, conf *tls.Config, addr string) *peer {
	t.Helper()
	tr := &http.Transport{TLSClientConfig: conf, ResponseHeaderTimeout: 60 * time.Second}
	t.Cleanup(tr.CloseIdleConnections)
	return &peer{http: &http.Client{Transport: tr}, base: "https://" + addr + api.Prefix + "/", tls: conf, addr: addr}
}

// request is a request below /node/v1/.
func (p *peer) request(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, p.base+path, body)
	if err != nil {
		return nil, err
	}
	return p.http.Do(req)
}

// get reads a whole answer.
func (p *peer) get(t *testing.T, path string, header ...string) (*http.Response, []byte) {
	t.Helper()
	return p.do(t, http.MethodGet, path, nil, header...)
}

func (p *peer) do(t *testing.T, method, path string, body io.Reader, header ...string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, p.base+path, body)
	require.NoError(t, err)
	for i := 0; i+1 < len(header); i += 2 {
		req.Header[header[i]] = append(req.Header[header[i]], header[i+1]) // as spelled
	}
	resp, err := p.http.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp, data
}

func decode[T any](t *testing.T, data []byte) T {
	t.Helper()
	var v T
	require.NoError(t, api.DecodeBytes(data, &v), "%s", data)
	return v
}

func newID() string {
	b := make([]byte, 16)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// free keeps a port for the front of t.
func free(t *testing.T, host string) string {
	t.Helper()
	p, err := cluster.KeepPort(host)
	if errors.Is(err, syscall.EADDRNOTAVAIL) && strings.Contains(host, ":") {
		t.Skip("needs an IPv6 loopback address: " + err.Error())
	}
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	return p.Addr
}

func write(t *testing.T, path string, data []byte, perm os.FileMode, uid int) {
	t.Helper()
	// A new file each time: replaced as an administrator's tools replace it.
	require.NoError(t, os.WriteFile(path+".new", data, perm))
	if uid >= 0 {
		own(t, path+".new", uid, uid)
	}
	require.NoError(t, os.Rename(path+".new", path))
}

func own(t *testing.T, path string, uid, gid int) {
	t.Helper()
	if os.Geteuid() == 0 {
		require.NoError(t, os.Lchown(path, uid, gid))
	}
}
