package access

import (
	"fmt"
	"log/slog"
	"strings"

	"gantry/config"
	"gantry/pki"
)

// Gate is everything that a node's configuration says about identity and
// rights, read from the files that it names.
type Gate struct {
	Identity *pki.Identity   // the node's own, for calls to other nodes
	Verifier *pki.Verifier   // of callers
	CRL      *pki.CRLStore   // the Verifier's list
	Policy   *Policy         // from the grants
	Token    *Token          // nil: the front presents none
	Cluster  *config.Cluster // nil: no cluster.toml is configured
}

// Open reads the files. An error says the line of the configuration that named
// the file, what is wrong, and what to do. log is for refusals and may be nil.
func Open(n *config.Node, log *slog.Logger) (*Gate, error) {
	g := &Gate{Policy: NewPolicy(n.Grants, log)}
	ca, err := pki.LoadCA(n.Identity.CA)
	if err != nil {
		return nil, n.Explain("identity.ca", err)
	}
	if _, err := pki.LoadCert(n.Identity.Cert); err != nil {
		return nil, n.Explain("identity.cert", err)
	}
	if g.Identity, err = pki.LoadIdentity(n.Identity.CA, n.Identity.Cert, n.Identity.Key); err != nil {
		return nil, n.Explain("identity.key", err)
	}
	want := pki.ID{Cluster: g.Identity.ID.Cluster, Role: pki.RoleNode, Name: n.Name}
	if g.Identity.ID != want {
		return nil, n.Explain("identity.cert", fmt.Errorf("the certificate is of %s, this node is %s; make one: gantry ca issue node %s", g.Identity.ID, want, n.Name))
	}
	if g.CRL, err = pki.OpenCRLStore(n.Identity.CRL, ca); err != nil {
		return nil, n.Explain("identity.crl", err)
	}
	g.Identity.CRL = g.CRL
	g.Verifier = &pki.Verifier{CA: ca, CRL: g.CRL}
	if n.Front.TokenFile != "" {
		if g.Token, err = LoadToken(n.Front.TokenFile); err != nil {
			return nil, n.Explain("front.token_file", err)
		}
	}
	if err := g.checkCluster(n); err != nil {
		return nil, err
	}
	return g, nil
}

// checkCluster sees to it that the list of nodes and the grants speak of the
// CA's cluster: anything else would never match and look like a working rule.
func (g *Gate) checkCluster(n *config.Node) error {
	cluster := g.Identity.ID.Cluster
	for i, grant := range n.Grants {
		if !strings.HasPrefix(grant.Who, "spiffe://"+cluster+"/") {
			return n.Explain(fmt.Sprintf("grant[%d].who", i), fmt.Errorf("%q is not of cluster %q, for which %s signs", grant.Who, cluster, n.Identity.CA))
		}
	}
	if n.Cluster == "" {
		return nil
	}
	list, err := config.LoadCluster(n.Cluster)
	if err != nil {
		return n.Explain("cluster", err)
	}
	if list.Name != cluster {
		return n.Explain("cluster", fmt.Errorf("%s is the list of cluster %q, the CA's is %q", n.Cluster, list.Name, cluster))
	}
	g.Cluster = list
	return nil
}
