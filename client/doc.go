// Package client speaks to one node: short calls, feeds that are followed
// across cuts, and bulk bytes.
//
//	c := client.New(client.Config{Node: node, TLS: pki.ClientTLS(id, node.Name, node.Pins)})
//	defer c.Close()
//	status, err := c.Status(ctx)
//	final, err := c.Follow(ctx, client.Run{Request: req}, func(rec feedback.Record) error { … })
//
// Follow starts a task, or attaches to it, and attaches again after every cut
// until it has seen the task's final record. Without one the outcome is
// unknown, however properly the reply ended: the error is then an
// [UnknownError]. What an answer that is not a node's means is data, [Answers],
// and docs/protocol.md shows the same table.
//
// Errors of the node are *feedback.Error with a code of package api. Answers
// that no node gave (a front's 502, a page in HTML) are *[NotOurs]; connections
// that broke are *[Broken]. The last two have a method Temporary.
//
// Requests go over HTTP/1.1: control and bulk bytes on separate connections, so
// that a full line never delays a feed. No proxy, no compression and no
// redirect is followed: a node is dialled directly or not at all.
//
// It is not a scheduler: it knows one node, keeps nothing on disk and decides
// nothing about jobs.
package client
