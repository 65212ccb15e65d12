package transfer

import (
	"context"
	"time"
)

// Fast shortens the backoff and the longest silence.
func (m *Import) Fast() *Import {
	m.minWait, m.maxWait, m.idle = time.Millisecond, 4*time.Millisecond, time.Minute
	return m
}

// Idle sets the longest silence of a source.
func (m *Import) Idle(d time.Duration) { m.idle = d }

// Faults lets hook fail operations on the stage.
func (m *Import) Faults(hook func(op string) error) { m.hook = hook }

// EntryBytes is the line of an entry, FileBytes the first line of a window.
func EntryBytes(e Entry) []byte { return entryLine(e).append(nil) }

// FileBytes is the first line of a window.
func FileBytes(f File) []byte { return fileLine(f).append(nil) }

// WindowBytes is the last line of a window that is not the last.
func WindowBytes(next int64) []byte { return windowLine(next).append(nil) }

// EndBytes is the last line of the last window.
func EndBytes(size int64, digest string) []byte { return endLine(size, digest).append(nil) }

// Names of the files in a task folder.
const (
	StageRecord = stageRecord
	PieceMap    = pieceMap
	ExportSpool = exportSpool
)

// Hashed is how many pieces are in the spool.
func (x *Export) Hashed() int64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.hashed
}

// StuckExport is an export whose hashing never gets anywhere.
func StuckExport() *Export {
	x := &Export{src: &source{id: identity{size: 10}}, running: true, news: make(chan struct{})}
	x.ctx, x.stop = context.WithCancel(context.Background())
	return x
}
