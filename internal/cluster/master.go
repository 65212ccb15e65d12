package cluster

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"gantry/api"
	"gantry/client"
	"gantry/config"
	"gantry/pki"
)

// buildMaster makes the master's folders, identities and configurations. It
// runs as the responders do.
func (c *Cluster) buildMaster(o Options, ca *pki.CA, crl []byte) error {
	m, u := c.master, c.users
	dir := filepath.Dir(m.config())
	for _, d := range []struct {
		path     string
		mode     os.FileMode
		uid, gid int
	}{
		{m.dir, 0o755, u.operator, u.operator},
		{dir, 0o700, u.responder, u.responder},
		{filepath.Join(dir, "dir"), 0o700, u.responder, u.responder},
		{c.socketDir(m.name), 0o750 | os.ModeSetgid, u.responder, u.front},
		{filepath.Join(m.dir, "front"), 0o700, u.front, u.front},
	} {
		if err := c.mkdir(d.path, d.mode, d.uid, d.gid); err != nil {
			return err
		}
	}
	if err := c.identity(dir, ca, pki.RoleMaster, m.name, nil, u.responder); err != nil {
		return err
	}
	if err := c.identity(filepath.Join(m.dir, "front"), ca, pki.RoleFront, m.name, []string{"127.0.0.1"}, u.front); err != nil {
		return err
	}
	toml, err := c.masterTOML(o)
	if err != nil {
		return err
	}
	if err := errors.Join(
		c.put(filepath.Join(dir, "crl.pem"), crl, 0o644, u.responder),
		c.put(filepath.Join(dir, "cluster.toml"), c.clusterTOML(m.name), 0o644, u.responder),
		c.put(m.config(), toml, 0o644, u.responder),
	); err != nil {
		return err
	}
	m.responder = program{
		Name: m.name + "/master", Env: o.Env, Dir: "/", Log: c.Log(m.name + "/master"),
		Args: []string{c.program, "__master", "--config", m.config()},
	}
	return c.frontProgram(m, o, c.frontOptions(m))
}

// config is the path of the member's configuration, in the folder that only its
// responder can enter.
func (m *member) config() string {
	if m.data == "" {
		return filepath.Join(m.dir, "master", "master.toml")
	}
	return filepath.Join(m.dir, "node", "node.toml")
}

var masterTemplate = template.Must(template.New("master.toml").Parse(`name = "{{.Name}}"
socket = "{{.Socket}}"
dir = "{{.Dir}}/dir"
cluster = "{{.Dir}}/cluster.toml"

[identity]
ca = "{{.Dir}}/ca.pem"
cert = "{{.Dir}}/cert.pem"
key = "{{.Dir}}/key.pem"
crl = "{{.Dir}}/crl.pem"

[front]
kind = "{{.Front}}"
uids = [{{.FrontUID}}]
api_listen = ["{{.API}}"]

[[grant]]
who = "spiffe://{{.Cluster}}/operator/*"
may = [{{range $i, $r := .Rights}}{{if $i}}, {{end}}"{{$r}}"{{end}}]
nodes = ["*"]
resources = ["*"]
{{.Extra}}`))

func (c *Cluster) masterTOML(o Options) ([]byte, error) {
	var b strings.Builder
	m := c.master
	err := masterTemplate.Execute(&b, map[string]any{
		"Name": m.name, "Dir": filepath.Dir(m.config()), "Socket": filepath.Join(c.socketDir(m.name), socketName),
		"Front": o.Front, "FrontUID": c.users.front, "API": m.api, "Cluster": Name, "Rights": api.MasterRights, "Extra": o.MasterExtra,
	})
	return []byte(b.String()), err
}

// MasterHTTP returns plain HTTP access to the master's API with the operator's
// identity, and the URL below which it lies: for tests that judge what is on
// the wire. Close its idle connections. It needs Options.Master.
func (c *Cluster) MasterHTTP() (*http.Client, string) {
	var http1 http.Protocols
	http1.SetHTTP1(true)
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: pki.ClientTLS(c.operator, c.master.name, nil), Protocols: &http1,
		TLSHandshakeTimeout: 10 * time.Second, MaxIdleConnsPerHost: 8,
	}}, "https://" + c.master.api + api.MasterPrefix
}

// MasterClient returns a client of the master with the operator's identity;
// close it. It needs Options.Master.
func (c *Cluster) MasterClient() *client.Master {
	m := config.ClusterNode{Name: c.master.name, URL: "https://" + c.master.api}
	return client.NewMaster(client.Config{Node: m, TLS: client.TLS(c.operator, m)})
}
