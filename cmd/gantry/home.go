package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"gantry/api"
	"gantry/client"
	"gantry/config"
	"gantry/job"
	"gantry/pki"
)

// operator is the caller: identity, the cluster, and clients of its nodes.
type operator struct {
	home     string
	identity *pki.Identity
	cluster  *config.Cluster

	mu      sync.Mutex
	clients map[string]*client.Client // guarded by mu
}

// folder is the one of the caller's identity.
func (e *env) folder() (string, error) {
	if e.home != "" {
		return e.home, nil
	}
	return e.xdg("XDG_CONFIG_HOME", ".config", "gantry")
}

// xdg is a folder of the XDG base directory specification.
func (e *env) xdg(variable, fallback string, rest ...string) (string, error) {
	base := e.Getenv(variable)
	if !filepath.IsAbs(base) { // the specification: a relative one is ignored
		home := e.Getenv("HOME")
		if home == "" {
			return "", fmt.Errorf("neither %s nor HOME is set; set one, or name the folder with --home", variable)
		}
		base = filepath.Join(home, fallback)
	}
	return filepath.Join(append([]string{base}, rest...)...), nil
}

// operator loads the caller's identity and cluster.toml.
func (e *env) operator() (*operator, error) {
	home, err := e.folder()
	if err != nil {
		return nil, err
	}
	at := func(name string) string { return filepath.Join(home, name) }
	id, err := pki.LoadIdentity(at("ca.pem"), at("cert.pem"), at("key.pem"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w; an operator's folder has ca.pem, cert.pem, key.pem and cluster.toml: ask for one (gantry ca issue operator NAME), or name it with --home", err)
	}
	if err != nil {
		return nil, err
	}
	cluster, err := config.LoadCluster(at("cluster.toml"))
	if err != nil {
		return nil, err
	}
	if cluster.Name != id.ID.Cluster {
		return nil, fmt.Errorf("%s is about the cluster %q, the certificate about %q; one of the files is another cluster's", at("cluster.toml"), cluster.Name, id.ID.Cluster)
	}
	if _, err := os.Stat(at("crl.pem")); err == nil {
		if id.CRL, err = pki.OpenCRLStore(at("crl.pem"), id.CA); err != nil {
			return nil, err
		}
	}
	if w := id.Warn(e.Now()); w != "" && !e.quiet {
		fmt.Fprintln(e.Stderr, "gantry: "+w)
	}
	return &operator{home: home, identity: id, cluster: cluster, clients: map[string]*client.Client{}}, nil
}

// client returns the client of a node.
func (o *operator) client(node string) (*client.Client, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if c := o.clients[node]; c != nil {
		return c, nil
	}
	where, ok := o.cluster.Node(node)
	if !ok {
		return nil, o.noNode(node)
	}
	c := client.New(client.Config{Node: where, TLS: client.TLS(o.identity, where)})
	o.clients[node] = c
	return c, nil
}

// lean returns a lean client of a node, which the caller closes.
func (o *operator) lean(node string) (*client.Client, error) {
	where, ok := o.cluster.Node(node)
	if !ok {
		return nil, o.noNode(node)
	}
	return client.New(client.Config{Node: where, TLS: client.TLS(o.identity, where), Lean: true}), nil
}

func (o *operator) noNode(name string) error {
	return notFound("there is no node %q in %s%s", name, filepath.Join(o.home, "cluster.toml"), near(name, nodeNames(o.cluster)))
}

func (o *operator) close() {
	for _, c := range o.clients {
		c.Close()
	}
}

// store opens the folder of jobs.
func (e *env) store() (*job.Store, error) {
	dir, err := e.xdg("XDG_STATE_HOME", filepath.Join(".local", "state"), "gantry", "jobs")
	if err != nil {
		return nil, err
	}
	s, err := job.OpenStore(dir)
	if err != nil {
		return nil, err
	}
	s.Now = e.Now
	return s, nil
}

// checkExpect refuses what cannot be a digest.
func checkExpect(s string) bool {
	digits, ok := strings.CutPrefix(s, "b3:")
	return s == "" || ok && len(digits) == 64 && strings.Trim(digits, "0123456789abcdef") == ""
}

// refusedHere is a refusal of our own.
func refusedHere(format string, args ...any) error {
	return &coded{api.ExitRefused, fmt.Errorf(format, args...)}
}
