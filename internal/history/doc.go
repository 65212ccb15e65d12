// Package history judges a master from outside. A test records what clients
// asked and were answered, what readers of feeds were shown, and what lies on
// the nodes' disks; Check reads that, and nothing else, and finds every
// never-event in it:
//
//	rec := history.NewRecorder(file)
//	rec.Add(history.Event{Call: &history.Call{Op: history.Submit, Key: key, Body: body, Began: t, Status: 201, Reply: reply}})
//	rec.Add(history.Event{Line: &history.Line{Reader: 7, Raw: line}})
//	…
//	rec.Add(history.Event{End: &history.End{}})
//	for _, v := range history.Check(rec.Events(), history.Options{Heartbeat: 10 * time.Second}) {
//		t.Error(v)
//	}
//
// The never-events:
//
//	I1   an acknowledged job is lost
//	I2   a job ran twice with effect, or a second attempt began before the first had ended
//	I3   a final record is lost, duplicated or changed after somebody saw it
//	I4   a reader is shown a gap or another order without a gap record
//	I5   success is reported without the digest of the source
//	I6   an import is visible before its commit, or partly
//	I7   bytes differ and nobody says so
//	I8   an exported file has the right name and the wrong content
//	I9   a job neither ends nor moves for three heartbeats, and is not flagged
//	I10  something is left behind
//	I15  the run proves nothing: its load fell under its floor, or it did not look
//
// It reads lines and replies as JSON by itself and imports nothing of the
// program, so that it does not share the program's mistakes. It is for tests
// only.
package history
