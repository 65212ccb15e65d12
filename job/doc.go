// Package job has the steps of what a user asks for, written once: a copy is an
// export at one node and an import at another, both followed to their end; an
// export to a local file is an export that this process pulls itself; a digest
// is one task; a call is one operation on many nodes, each with its own outcome.
//
//	store, err := job.OpenStore(dir)
//	j, resumed, err := store.Begin(spec, maker, fresh)
//	defer j.Close()
//	d := &job.Driver{Client: func(node string) (*client.Client, error) { … }}
//	final, err := d.Run(ctx, j)       // meanwhile j.Watch(ctx, 0, show)
//
// A job is on disk before its first request is sent, with the ids and bodies of
// its tasks, so that whoever runs it again goes on with the same tasks:
//
//	jobs/ID/job.json   what was asked for, the tasks, the outcome; 0600, a ticket is in it
//	jobs/ID/feed       journal of the job's own feed
//	jobs/ID/lock       held by the one process that drives it
//	jobs/ID/work/      what package transfer keeps for a local file
//
// A job exists once job.json is there; it is written last.
//
// The outcome of a copy is the import's. A job whose outcome is unknown stays
// unfinished: running it again asks the nodes.
//
// The package is no queue and no scheduler, and a job without a driver does
// nothing: its tasks do.
package job
