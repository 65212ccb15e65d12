// Package feedback is the feed of gantry: a numbered stream of records, one
// JSON object per line, whose last record is the outcome (see
// docs/protocol.md).
//
// A producer owns a [Feed]. It is a journal on disk and a live stream at once:
//
//	f, err := feedback.Create(path, feedback.Options{ID: id, Budget: budget})
//	item := f.Item("vm1.img", "fetch", "bytes", size)
//	item.Add(n)                         // counted; shown at most 4 times a second
//	f.Log("warn", "vm1.img", "connection lost, retry in 0.5 s")
//	err = f.State("publishing", detail) // durable when it returns
//	err = f.Finish(value, nil)          // exactly once; nothing follows
//
// A handler shows it, to any number of readers, from any number on:
//
//	w := feedback.NewWriter(rw, feedback.WriterOptions{})
//	err := f.Stream(r.Context(), w, after, feedback.Hello{ID: id, Op: "import"})
//
// A consumer reads it:
//
//	rd := feedback.NewReader(resp.Body, feedback.ReaderOptions{ID: id, After: after})
//	err := rd.Each(func(rec feedback.Record) error { … })
//
// Each returns nil only after a final record. [io.ErrUnexpectedEOF] means that
// no final was seen: the outcome is unknown, whatever the end of the HTTP reply
// looked like, and the reader attaches again after the last number it has.
//
// A stored record is shown only after it is on disk, so a sequence number once
// seen stands for the same bytes for ever, also across a crash.
//
// The package is not a log, a message queue or a metrics pipeline: a feed has
// one producer process, ends, and is bounded.
package feedback
