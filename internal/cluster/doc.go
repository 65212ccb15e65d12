// Package cluster makes a throw-away cluster on this machine: nodes, and a
// master if one is wanted, each behind a front of its own, under one CA, in one
// folder. The demo and the end-to-end tests use it; the processes are real ones
// and can be killed.
//
//	c, err := cluster.New(cluster.Options{Program: gantry, Front: front.Nginx})
//	defer c.Close()
//	err = c.WriteFile("alpha", "disk.img", src)
//	err = c.Start(ctx)                        // returns when every node answers
//	copy := exec.Command(gantry, "copy", "--home", c.Home(), "alpha:disks/disk.img", "beta:disks/disk.img")
//	err = c.Kill("beta/node")                 // kill -9; a keeper starts it again, as systemd would
//
// # Who runs as whom
//
// Started as root, responders run as UID (58260), fronts as FrontUID (58261)
// and the operator is OperatorUID (58262); no account is needed for a number.
// Nothing stays root: per uid there is one keeper, a small process that starts
// the servers of its uid, restarts what dies, and ends everything when the
// pipe from its maker closes, however its maker ended. So the maker itself may
// give up root for good once the keepers run (Become). Not started as root,
// all of it runs under the caller's uid, which each node's [front] uids then
// names, and the nodes' status says that they are not isolated.
//
// # The folder
//
//	ca/                   the authority           operator
//	home/                 the operator's identity and cluster.toml
//	NODE/disks/           the resource            responder
//	NODE/node/            node.toml, identity, tasks, log   responder, 0700
//	NODE/front/           configuration, server key, log    front, 0700
//	NODE/run/             the FastCGI socket      responder:front, 2750
//	MASTER/master/        master.toml, identity, store, log   responder, 0700
//
// It is not a way to run gantry in production: keys lie on one machine, and
// the ports are whatever was free on loopback.
package cluster
