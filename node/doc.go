// Package node is the responder of one node: its tasks, and the node API
// (package api, docs/protocol.md) in front of them.
//
// A program runs it whole:
//
//	err := node.Run(ctx, node.Options{ConfigPath: "/etc/gantry/node.toml", Log: logger})
//
// Run serves until ctx ends, then drains: new tasks are refused, feeds end
// without a final so that their readers attach again later, and running tasks
// stop at a safe point and go on at the next start under the same id. A test
// may hold the parts:
//
//	n, err := node.New(cfg, node.Options{Log: logger})
//	srv := &fastcgi.Server{Handler: n.Handler()}
//	err = n.Close(ctx)
//
// What a task is on disk, below the configured dir:
//
//	dir.json             format version and dir_id, made once
//	floor.json           greatest id time among the entries that were dropped
//	lock                 held by the one responder that may use dir
//	tasks/ID/task.json   request, body hash, caller, starts, outcome; 0600
//	tasks/ID/feed        journal
//	tasks/ID/work/       what package transfer keeps for it
//
// A task exists once task.json is durable; it is written last, so a folder
// without one was never accepted and is removed at the next start.
//
// The package terminates no TLS and never runs as root. It is no scheduler:
// it starts what it accepts at once, or refuses.
package node
