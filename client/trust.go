package client

import (
	"crypto/tls"

	"gantry/config"
	"gantry/pki"
)

// TLS is how id reaches node, as cluster.toml says: by the cluster's CA and the
// pins that there are, or by the pins alone.
func TLS(id *pki.Identity, node config.ClusterNode) *tls.Config {
	if node.PinOnly {
		return pki.PinnedTLS(id, node.Name, node.Pins)
	}
	return pki.ClientTLS(id, node.Name, node.Pins)
}
