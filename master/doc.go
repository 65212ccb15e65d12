// Package master runs jobs on nodes: it keeps them in a queue, decides which
// goes next, follows their tasks record by record, and goes on after its own
// death, a node's, a front's or the network's.
//
//	store, err := queue.Open(path, queue.Options{OnBroken: stop})
//	m, err := master.New(ctx, master.Options{Store: store, Node: node, OnBroken: stop})
//	j, existed, err := m.Submit(ctx, queue.Job{Spec: spec, Owner: who, Key: key, BodyHash: hash})
//	feed, release, err := m.Feed(j.ID)        // feed.Stream(ctx, w, after, hello)
//	err = m.Cancel(ctx, j.ID, who)
//	err = m.Close()                           // running tasks go on at the nodes
//
// What is acknowledged is in the store. A job is in one of these states:
//
//	queued ──► running ◄─► stalled           a task runs, or may be asked for
//	              │ ▲  ◄─► unknown           no node says what became of it; they are asked
//	              ▼ │
//	        waiting_retry                    every task of the attempt before has ended
//	              ▼
//	  done, failed, refused, cancelled       the feed has its final record, and the row says so
//	  abandoned                              the same, of one that was unknown and was given up (abandon.go)
//
// One goroutine decides what starts (scheduler.go). A job that runs has one
// goroutine that drives its attempts (attempt.go) with package job, and one that
// writes down in which state it is (watch.go). The next attempt begins only when
// every task of the one before has its final record, or was refused, or was
// never sent.
//
// The feed of a job is kept by the store; it is open while the job runs or
// somebody watches (feeds.go). So 100,000 ended jobs cost no memory.
//
// A store that cannot be written ends the master: what is on disk then is not
// known, and the next process finds out. OnBroken says when.
package master
