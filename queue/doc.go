// Package queue is the durable store of a master: jobs, their attempts, feeds
// and progress samples, and the audit log, in one SQLite file.
//
//	s, err := queue.Open("/var/lib/gantry/queue.db", queue.Options{})
//	j, existed, err := s.Add(ctx, queue.Job{Kind: "copy", Spec: spec, Owner: who, Key: key, BodyHash: hash})
//	j, err = s.Update(ctx, j.ID, func(j *queue.Job) error { j.State = api.JobRunning; return nil })
//	feed, err := feedback.OpenJournal(s.Journal(j.ID), feedback.Options{ID: j.ID, Job: true})
//
// What a method has returned without error is on disk: it is there after a
// kill, a crash and a power cut. One goroutine writes. It commits together
// whatever came while the commit before was on its way, so a thousand feeds
// share their fsyncs. Readers have connections of their own and never wait for
// it.
//
// A commit that failed sticks: every later write returns [ErrBroken], because
// the state of the file is not known, until the process opens it afresh. What
// was not acknowledged by then may be there or not, but never in part. One
// process at a time may write to a file ([ErrLocked]); a damaged one
// ([ErrDamaged]) and one of a newer version ([ErrNewer]) are refused.
//
// The package knows SQL and nobody else does. It schedules nothing, knows no
// node and gives no rights: [Job] says who owns it, package master decides what
// that means.
package queue
