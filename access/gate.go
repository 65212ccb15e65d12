package access

import (
	"fmt"
	"log/slog"
	"strings"

	"gantry/api"
	"gantry/config"
	"gantry/pki"
)

// Gate is everything that a node's or a master's configuration says about identity and
// rights, read from the files that it names.
type Gate struct {
	Identity *pki.Identity   // the node's own, for calls to other nodes
	Verifier *pki.Verifier   // of callers
	CRL      *pki.CRLStore   // the Verifier's list
	Policy   *Policy         // from the grants
	Token    *Token          // nil: the front presents none
	Cluster  *config.Cluster // nil: no cluster.toml is configured
}

// Open reads the files of a node. An error says the line of the configuration
// that named the file, what is wrong, and what to do. log is for refusals and may
// be nil.
func Open(n *config.Node, log *slog.Logger) (*Gate, error) {
	return open(setting{pki.RoleNode, n.Name, n.Identity, n.Front.TokenFile, n.Cluster, n.Grants, n.Explain}, log)
}

// OpenMaster reads the files of a master, as Open does.
func OpenMaster(m *config.Master, log *slog.Logger) (*Gate, error) {
	return open(setting{pki.RoleMaster, m.Name, m.Identity, m.Front.TokenFile, m.Cluster, m.Grants, m.Explain}, log)
}

// setting is what the configurations of nodes and masters both say.
type setting struct {
	role, name string
	identity   config.Identity
	token      string
	cluster    string
	grants     []config.Grant
	explain    func(key string, err error) error
}

func open(n setting, log *slog.Logger) (*Gate, error) {
	g := &Gate{Policy: NewPolicy(n.grants, log)}
	ca, err := pki.LoadCA(n.identity.CA)
	if err != nil {
		return nil, n.explain("identity.ca", err)
	}
	if _, err := pki.LoadCert(n.identity.Cert); err != nil {
		return nil, n.explain("identity.cert", err)
	}
	if g.Identity, err = pki.LoadIdentity(n.identity.CA, n.identity.Cert, n.identity.Key); err != nil {
		return nil, n.explain("identity.key", err)
	}
	want := pki.ID{Cluster: g.Identity.ID.Cluster, Role: n.role, Name: n.name}
	if g.Identity.ID != want {
		return nil, n.explain("identity.cert", fmt.Errorf("the certificate is of %s, this %s is %s; make one: gantry ca issue %s %s", g.Identity.ID, n.role, want, n.role, n.name))
	}
	if g.CRL, err = pki.OpenCRLStore(n.identity.CRL, ca); err != nil {
		return nil, n.explain("identity.crl", err)
	}
	g.Identity.CRL = g.CRL
	g.Verifier = &pki.Verifier{CA: ca, CRL: g.CRL}
	if n.token != "" {
		if g.Token, err = LoadToken(n.token); err != nil {
			return nil, n.explain("front.token_file", err)
		}
	}
	if err := g.checkCluster(n); err != nil {
		return nil, err
	}
	return g, nil
}

// checkCluster sees to it that the list of nodes and the grants speak of the
// CA's cluster: anything else would never match and look like a working rule.
func (g *Gate) checkCluster(n setting) error {
	cluster := g.Identity.ID.Cluster
	for i, grant := range n.grants {
		if strings.HasPrefix(grant.Who, api.LocalPrefix) {
			continue
		}
		if !strings.HasPrefix(grant.Who, "spiffe://"+cluster+"/") {
			return n.explain(fmt.Sprintf("grant[%d].who", i), fmt.Errorf("%q is not of cluster %q, for which %s signs", grant.Who, cluster, n.identity.CA))
		}
	}
	if n.cluster == "" {
		return nil
	}
	list, err := config.LoadCluster(n.cluster)
	if err != nil {
		return n.explain("cluster", err)
	}
	if list.Name != cluster {
		return n.explain("cluster", fmt.Errorf("%s is the list of cluster %q, the CA's is %q", n.cluster, list.Name, cluster))
	}
	g.Cluster = list
	return nil
}
