package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gantry/api"
	"gantry/config"
	"gantry/front"
	"gantry/internal/cluster"
	"gantry/internal/daemon"
	"gantry/internal/testkit"
	"gantry/master"
	"gantry/pki"

	"github.com/stretchr/testify/require"
)

const masterToml = `name = "hub"
socket = "%[1]s/s"
local_socket = "%[1]s/local"
dir = "%[1]s/state"
cluster = "%[1]s/cluster.toml"
[identity]
ca = "%[1]s/hub/ca.pem"
cert = "%[1]s/hub/cert.pem"
key = "%[1]s/hub/key.pem"
crl = "%[1]s/crl.pem"
[front]
kind = "embedded"
uids = [%[2]d]
[[grant]]
who = "spiffe://%[3]s/operator/*"
may = ["status", "list", "digest", "export", "import:create", "import:replace", "jobs", "jobs:cancel", "audit"]
nodes = ["*"]
resources = ["*"]
[[limit]]
name = "uplink"
jobs = 1
`

// hubGrant lets the master do at the nodes what operators may have it do.
const hubGrant = `
[[grant]]
who = "spiffe://` + cluster.Name + `/master/hub"
may = ["status", "list", "digest", "export", "import:create", "import:replace"]
resources = ["*"]
`

// startHub runs a master in this process, behind an embedded front and on a
// local socket, and lists it in the operator's cluster.toml. It returns the
// path of the local socket.
func startHub(t *testing.T, c *cluster.Cluster, home string) string {
	t.Helper()
	dir := testkit.Dir(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	// As with the operator's folder: a copy that belongs to this process.
	require.NoError(t, os.Mkdir(at("ca"), 0o700))
	files, err := os.ReadDir(c.CA())
	require.NoError(t, err)
	for _, f := range files {
		if f.Type().IsRegular() {
			b, err := os.ReadFile(filepath.Join(c.CA(), f.Name()))
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(at("ca"), f.Name()), b, 0o600))
		}
	}
	ca, err := pki.OpenCA(at("ca"), pki.Options{})
	require.NoError(t, err)
	authority, err := os.ReadFile(filepath.Join(home, "ca.pem"))
	require.NoError(t, err)
	issue := func(name, role string, hosts []string) {
		leaf, err := ca.Issue(role, "hub", hosts, 0)
		require.NoError(t, err)
		require.NoError(t, os.MkdirAll(at(name), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(at(name), "ca.pem"), authority, 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(at(name), "cert.pem"), leaf.CertPEM, 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(at(name), "key.pem"), leaf.KeyPEM, 0o600))
	}
	issue("hub", pki.RoleMaster, nil)
	issue("front", pki.RoleFront, []string{"127.0.0.1"})
	crl, err := ca.CRL()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(at("crl.pem"), crl.PEM, 0o600))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := l.Addr().String()
	require.NoError(t, l.Close())
	list := filepath.Join(home, "cluster.toml")
	text, err := os.ReadFile(list)
	require.NoError(t, err)
	text = append(text, fmt.Sprintf("\n[[master]]\nname = \"hub\"\nurl = \"https://%s\"\n", addr)...)
	require.NoError(t, os.WriteFile(list, text, 0o600))
	require.NoError(t, os.WriteFile(at("cluster.toml"), text, 0o600))
	require.NoError(t, os.WriteFile(at("master.toml"), fmt.Appendf(nil, masterToml, dir, os.Getuid(), cluster.Name), 0o600))

	ctx, stop := context.WithCancel(context.Background())
	fronted, served := make(chan error, 1), make(chan error, 1)
	cfg, err := config.LoadMaster(at("master.toml"))
	require.NoError(t, err)
	server, err := master.NewServer(ctx, cfg, master.ServerOptions{Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Version: "test"})
	require.NoError(t, err)
	socket, err := daemon.Listen("masterd", cfg.Socket, cfg.From)
	require.NoError(t, err)
	local, err := daemon.ListenLocal(cfg.LocalSocket)
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(at("run"), 0o700))
	go func() { served <- server.Serve(ctx, socket, local) }()
	go func() {
		fronted <- front.Embedded(ctx, front.Options{
			API: []string{addr}, Socket: cfg.Socket, Prefix: api.MasterPrefix, Dir: at("run"),
			CA: at("front/ca.pem"), Cert: at("front/cert.pem"), Key: at("front/key.pem"),
		})
	}()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-served)
		require.NoError(t, <-fronted)
	})
	require.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
		}
		return err == nil
	}, 10*time.Second, 10*time.Millisecond)
	return cfg.LocalSocket
}

// TestMaster runs the commands against a master and two nodes.
func TestMaster(t *testing.T) {
	c, home := newClusterWith(t, func(string, string) string { return hubGrant })
	fill(t, c, "alpha", "vm1.img", 9<<20)
	fill(t, c, "alpha", "small", 5)
	local := startHub(t, c, home)
	scripts(t, "master_*.txtar", map[string]string{"OPERATOR": home, "LOCAL": local, "ALPHA": c.Path("alpha", ""), "BETA": c.Path("beta", "")})
}

// TestMasterLeft: Ctrl-C without a terminal leaves the job to the master.
func TestMasterLeft(t *testing.T) {
	c, home := newClusterWith(t, func(string, string) string { return hubGrant })
	fill(t, c, "alpha", "big", 64<<20)
	startHub(t, c, home)
	state := t.TempDir()
	cmd := command(t, home, state, "copy", "alpha:disks/big", "beta:disks/big", "--bwlimit", "16M", "--json")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	require.NoError(t, cmd.Start())
	buf := make([]byte, 64<<10)
	for text := ""; !strings.Contains(text, `"kind":"progress","item":"beta:`); {
		n, err := out.Read(buf)
		text += string(buf[:n])
		require.NoError(t, err, text)
	}
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	_, _ = io.Copy(io.Discard, out)
	require.Equal(t, api.ExitLeft, exitOf(cmd.Wait()), stderr.String())
	_, id, ok := strings.Cut(stderr.String(), "gantry watch ")
	require.True(t, ok, stderr.String())
	both, err := command(t, home, state, "watch", strings.Fields(id)[0]).CombinedOutput()
	require.Equal(t, 0, exitOf(err), "%s", both)
	require.Contains(t, string(both), "beta:disks/big: created")
}
