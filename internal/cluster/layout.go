package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"gantry/api"
	"gantry/config"
	"gantry/front"
	"gantry/pki"
)

// socketName is the FastCGI socket within NODE/run.
const socketName = "fcgi.sock"

// makeDir makes the cluster's folder, which every uid must be able to enter.
func (c *Cluster) makeDir(o Options) error {
	if o.Dir == "" {
		dir, err := tempDir()
		if err != nil {
			return err
		}
		c.dir, c.temp = dir, true
	} else {
		dir, err := filepath.Abs(o.Dir)
		if err != nil {
			return fmt.Errorf("making the cluster's folder: %w", err)
		}
		if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
			return fmt.Errorf("the folder %s is not empty; name a new one", dir)
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("looking at the cluster's folder: %w", err)
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("making the cluster's folder: %w", err)
		}
		c.dir = dir
	}
	if err := c.give(c.dir, 0o755, c.users.operator, c.users.operator); err != nil {
		return err
	}
	if err := c.checkWay(); err != nil {
		return err
	}
	return c.makeSocketDir(slices.MaxFunc(o.Nodes, func(a, b string) int { return len(a) - len(b) }))
}

// checkWay says which folder above ours the other uids cannot enter.
func (c *Cluster) checkWay() error {
	if !c.users.isolated {
		return nil
	}
	for dir := filepath.Dir(c.dir); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return fmt.Errorf("looking at the way to the cluster's folder: %w", err)
		}
		if info.Mode()&0o001 == 0 {
			return fmt.Errorf("%s lies in %s, which only its owner can enter, but servers run as uids %d and %d; name a folder elsewhere, such as /var/tmp/demo",
				c.dir, dir, UID, FrontUID)
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

// tempDir makes a folder in $TMPDIR, or in /tmp where others could not use
// that one.
func tempDir() (string, error) {
	for _, base := range []string{os.TempDir(), "/tmp"} {
		info, err := os.Stat(base)
		if err != nil || os.Geteuid() == 0 && info.Mode()&0o003 != 0o003 {
			continue
		}
		dir, err := os.MkdirTemp(base, "gantry")
		if err == nil {
			return dir, nil
		}
	}
	return "", fmt.Errorf("there is no folder for temporary files that every user may write to (TMPDIR, /tmp); name one with --dir")
}

// makeSocketDir makes a short folder for sockets when dir is too long.
func (c *Cluster) makeSocketDir(longest string) error {
	if len(filepath.Join(c.dir, longest, "run", socketName)) <= config.MaxSocketPath {
		return nil
	}
	dir, err := tempDir()
	if err != nil {
		return err
	}
	c.sockets = dir
	return c.give(dir, 0o755, c.users.operator, c.users.operator)
}

func (c *Cluster) socketDir(node string) string {
	if c.sockets != "" {
		return filepath.Join(c.sockets, node)
	}
	return filepath.Join(c.dir, node, "run")
}

// build fills the folder.
func (c *Cluster) build(o Options) error {
	op := c.users.operator
	for _, dir := range []string{"bin", "log", "home", "home/state"} {
		if err := c.mkdir(filepath.Join(c.dir, dir), 0o755, op, op); err != nil {
			return err
		}
	}
	c.program = filepath.Join(c.dir, "bin", "gantry")
	if err := copyProgram(o.Program, c.program); err != nil {
		return err
	}
	ca, err := pki.InitCA(c.CA(), Name, pki.Options{})
	if err != nil {
		return err
	}
	ports := make([]string, 2*len(o.Nodes)+1)
	for i := range ports {
		p, err := KeepPort("127.0.0.1")
		if err != nil {
			return err
		}
		c.ports = append(c.ports, p)
		ports[i] = p.Addr
	}
	if o.Master != "" {
		c.master = &member{name: o.Master, dir: filepath.Join(c.dir, o.Master), api: ports[2*len(o.Nodes)]}
	}
	for i, name := range o.Nodes {
		m := &member{name: name, dir: filepath.Join(c.dir, name), api: ports[2*i], data: ports[2*i+1]}
		c.nodes = append(c.nodes, m)
		if o.Proxied {
			if c.proxies[name], err = NewProxy(m.data); err != nil {
				return err
			}
		}
	}
	crl, err := os.ReadFile(filepath.Join(c.CA(), pki.CRLFile))
	if err != nil {
		return err
	}
	for _, m := range c.nodes {
		if err := c.buildNode(m, o, ca, crl); err != nil {
			return fmt.Errorf("node %s: %w", m.name, err)
		}
	}
	if c.master != nil {
		if err := c.buildMaster(o, ca, crl); err != nil {
			return fmt.Errorf("master %s: %w", c.master.name, err)
		}
	}
	if err := c.buildHome(ca); err != nil {
		return fmt.Errorf("operator: %w", err)
	}
	return errors.Join(c.giveAll(c.CA(), op), c.giveAll(c.Home(), op))
}

// buildHome makes the operator's folder and reads it: a key is only read by
// its owner, and that is about to change.
func (c *Cluster) buildHome(ca *pki.CA) error {
	home, me := c.Home(), os.Geteuid()
	if err := c.identity(home, ca, pki.RoleOperator, "operator", nil, me); err != nil {
		return err
	}
	list := filepath.Join(home, "cluster.toml")
	if err := c.put(list, c.clusterTOML(""), 0o644, me); err != nil {
		return err
	}
	var err error
	if c.operator, err = pki.LoadIdentity(filepath.Join(home, "ca.pem"), filepath.Join(home, "cert.pem"), filepath.Join(home, "key.pem")); err != nil {
		return err
	}
	c.list, err = config.LoadCluster(list)
	return err
}

// buildNode makes one node's folders, identities and configurations.
func (c *Cluster) buildNode(m *member, o Options, ca *pki.CA, crl []byte) error {
	u := c.users
	if err := c.mkdir(m.dir, 0o755, u.operator, u.operator); err != nil {
		return err
	}
	for _, d := range []struct {
		path     string
		mode     os.FileMode
		uid, gid int
	}{
		{filepath.Join(m.dir, Resource), 0o755, u.responder, u.responder},
		{filepath.Join(m.dir, "node"), 0o700, u.responder, u.responder},
		{filepath.Join(m.dir, "node", "dir"), 0o700, u.responder, u.responder},
		// The front's group may connect; setgid hands it on to the socket.
		{c.socketDir(m.name), 0o750 | os.ModeSetgid, u.responder, u.front},
		{filepath.Join(m.dir, "front"), 0o700, u.front, u.front},
	} {
		if err := c.mkdir(d.path, d.mode, d.uid, d.gid); err != nil {
			return err
		}
	}
	for _, name := range o.Dirs {
		if err := c.mkdir(filepath.Join(m.dir, name), 0o755, u.responder, u.responder); err != nil {
			return err
		}
	}
	nodeDir := filepath.Join(m.dir, "node")
	if err := c.identity(nodeDir, ca, pki.RoleNode, m.name, nil, u.responder); err != nil {
		return err
	}
	if err := c.identity(filepath.Join(m.dir, "front"), ca, pki.RoleFront, m.name, []string{"127.0.0.1"}, u.front); err != nil {
		return err
	}
	toml, err := c.nodeTOML(m, o)
	if err != nil {
		return err
	}
	if err := errors.Join(
		c.put(filepath.Join(nodeDir, "crl.pem"), crl, 0o644, u.responder),
		c.put(filepath.Join(nodeDir, "cluster.toml"), c.clusterTOML(m.name), 0o644, u.responder),
		c.put(filepath.Join(nodeDir, "node.toml"), toml, 0o644, u.responder),
	); err != nil {
		return err
	}
	return c.programs(m, o)
}

// frontOptions are those of the front before a member.
func (c *Cluster) frontOptions(m *member) front.Options {
	dir := filepath.Join(m.dir, "front")
	fo := front.Options{
		API:    []string{m.api},
		Socket: filepath.Join(c.socketDir(m.name), socketName),
		Cert:   filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), CA: filepath.Join(dir, "ca.pem"),
		Dir: filepath.Join(dir, "run"),
	}
	if m.data != "" {
		fo.Data = []string{m.data}
	} else {
		fo.Prefix = api.MasterPrefix
	}
	return fo
}

// programs says how the node's two servers are run.
func (c *Cluster) programs(m *member, o Options) error {
	fo := c.frontOptions(m)
	if o.Send == "front" {
		fo.Send = []front.Dir{{Name: Resource, Path: filepath.Join(m.dir, Resource)}}
	}
	m.responder = program{
		Name: m.name + "/node", Env: o.Env, Dir: "/", Log: c.Log(m.name + "/node"),
		Args: []string{c.program, "__node", "--config", m.config()},
	}
	switch o.From {
	case config.SocketFD0:
		m.responder.Args = append([]string{"spawn-fcgi", "-n", "-s", fo.Socket, "-M", "0660", "--"}, m.responder.Args...)
	case config.SocketSystemd:
		// It knows no SocketMode=, and the front's group must be able to write.
		const script = `until chmod 660 "$0" 2>/dev/null; do sleep .05; done & exec systemd-socket-activate -l "$0" "$@"`
		m.responder.Args = append([]string{"sh", "-c", script, fo.Socket}, m.responder.Args...)
	}
	return c.frontProgram(m, o, fo)
}

// frontProgram says how the front before a member is run, and makes both logs.
func (c *Cluster) frontProgram(m *member, o Options, fo front.Options) error {
	m.frontend = program{Name: m.name + "/front", Env: o.Env, Dir: "/", Log: c.Log(m.name + "/front")}
	if err := front.Prepare(fo, c.users.front, c.users.front); err != nil {
		return err
	}
	if o.Front == front.EmbeddedServer {
		m.frontend.Args = []string{c.program, "__front", "--api", m.api, "--socket", fo.Socket,
			"--cert", fo.Cert, "--key", fo.Key, "--ca", fo.CA, "--dir", fo.Dir}
		if m.data != "" {
			m.frontend.Args = append(m.frontend.Args, "--data", m.data)
		} else {
			m.frontend.Args = append(m.frontend.Args, "--prefix", fo.Prefix)
		}
	} else {
		text, err := front.Render(o.Front, fo)
		if err != nil {
			return err
		}
		conf := filepath.Join(m.dir, "front", "front.conf")
		if err := c.put(conf, []byte(text), 0o644, c.users.front); err != nil {
			return err
		}
		m.frontend.Args = front.Command(o.Front, conf, fo)
	}
	// The logs lie outside of the servers' own folders, so that whoever drives
	// can show them.
	return errors.Join(
		c.put(m.responder.Log, nil, 0o644, c.users.responder),
		c.put(m.frontend.Log, nil, 0o644, c.users.front),
	)
}

// identity issues a certificate and puts it, its key and the CA's certificate
// into dir.
func (c *Cluster) identity(dir string, ca *pki.CA, role, name string, hosts []string, uid int) error {
	leaf, err := ca.Issue(role, name, hosts, 0)
	if err != nil {
		return err
	}
	return errors.Join(
		c.put(filepath.Join(dir, "ca.pem"), ca.CertPEM(), 0o644, uid),
		c.put(filepath.Join(dir, "cert.pem"), leaf.CertPEM, 0o644, uid),
		c.put(filepath.Join(dir, "key.pem"), leaf.KeyPEM, 0o400, uid),
	)
}

var nodeTemplate = template.Must(template.New("node.toml").Parse(`name = "{{.Name}}"
socket = "{{.Socket}}"
socket_from = "{{.From}}"
dir = "{{.Dir}}/node/dir"
cluster = "{{.Dir}}/node/cluster.toml"

[identity]
ca = "{{.Dir}}/node/ca.pem"
cert = "{{.Dir}}/node/cert.pem"
key = "{{.Dir}}/node/key.pem"
crl = "{{.Dir}}/node/crl.pem"

[front]
kind = "{{.Front}}"
uids = [{{.FrontUID}}]
api_listen = ["{{.API}}"]
data_listen = ["{{.Data}}"]

[[resource]]
name = "{{.Resource}}"
kind = "files"
path = "{{.Dir}}/{{.Resource}}"
send = "{{.Send}}"
direct = "{{.Direct}}"
writable = true

[[grant]]
who = "spiffe://{{.Cluster}}/operator/*"
may = [{{range $i, $r := .Rights}}{{if $i}}, {{end}}"{{$r}}"{{end}}]
resources = ["{{if .Extra}}*{{else}}{{.Resource}}{{end}}"]
{{if .Master}}
[[grant]]
who = "spiffe://{{.Cluster}}/master/{{.Master}}"
may = [{{range $i, $r := .Rights}}{{if $i}}, {{end}}"{{$r}}"{{end}}]
resources = ["{{if .Extra}}*{{else}}{{.Resource}}{{end}}"]
{{end}}{{.Extra}}`))

// nodeTOML is a node's configuration.
func (c *Cluster) nodeTOML(m *member, o Options) ([]byte, error) {
	var b strings.Builder
	extra := ""
	if o.Extra != nil {
		extra = o.Extra(m.name, m.dir)
	}
	err := nodeTemplate.Execute(&b, map[string]any{
		"Name": m.name, "Dir": m.dir, "Socket": filepath.Join(c.socketDir(m.name), socketName),
		"Front": o.Front, "FrontUID": c.users.front, "API": m.api, "Data": m.data,
		"Resource": Resource, "Send": o.Send, "Direct": o.Direct, "From": o.From, "Cluster": Name, "Rights": api.Rights, "Extra": extra,
		"Master": o.Master,
	})
	return []byte(b.String()), err
}

// clusterTOML is the list of nodes as viewer sees it: bulk requests of other
// nodes go through the proxies, the operator's ("") do not.
func (c *Cluster) clusterTOML(viewer string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "name = %q\n", Name)
	for _, m := range c.nodes {
		data := m.data
		if p := c.proxies[m.name]; p != nil && viewer != "" && viewer != m.name {
			data = p.Addr()
		}
		fmt.Fprintf(&b, "\n[[node]]\nname = %q\nurl = \"https://%s\"\ndata_url = \"https://%s\"\n", m.name, m.api, data)
	}
	if c.master != nil && viewer == "" {
		fmt.Fprintf(&b, "\n[[master]]\nname = %q\nurl = \"https://%s\"\n", c.master.name, c.master.api)
	}
	return []byte(b.String())
}
