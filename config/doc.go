// Package config reads the files that administrators write: a node's own
// configuration, a master's, and the cluster's list of nodes.
//
//	node, err := config.LoadNode("/etc/gantry/node.toml")
//	master, err := config.LoadMaster("/etc/gantry/master.toml")
//	cluster, err := config.LoadCluster(node.Cluster)
//	beta, ok := cluster.Node("beta")
//
// Reading is strict, because a configuration that is half understood is how
// doors stay open. Every problem is told, all at once, each as
//
//	FILE:LINE: KEY: what is wrong; allowed: …; example: …
//
// The files testdata/node.toml, testdata/master.toml and testdata/cluster.toml
// explain every key; ExampleNode, ExampleMaster and ExampleCluster return them.
//
// It does not look at the files that a configuration names, and it decides
// nothing about callers (package access does both): it only reads text.
package config
