// Package client speaks to one node, or to many: short calls, feeds that are followed
// across cuts, and bulk bytes.
//
//	c := client.New(client.Config{Node: node, TLS: client.TLS(id, node)})
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
// Call does the same at many nodes, each with a lean client and an outcome of its
// own, which is one of a closed set and says whether a silent node may have done
// what it was asked:
//
//	calls := client.Call(ctx, client.Fan{Nodes: names, Client: lean}, func(ctx context.Context, c *client.Client) (*api.Status, error) { return c.Status(ctx) })
//	for answered := range calls.Each() { … }       // as they come; or All, First, Any
//
// Errors of the node are *feedback.Error with a code of package api. Answers
// that no node gave (a front's 502, a page in HTML) are *[NotOurs]; connections
// that broke are *[Broken]. The last two have a method Temporary.
//
// Requests go over HTTP/1.1: control and bulk bytes on separate connections, so
// that a full line never delays a feed. No proxy, no compression and no
// redirect is followed: a node is dialled directly or not at all.
//
// It is not a scheduler: it keeps nothing on disk and decides
// nothing about jobs.
package client
