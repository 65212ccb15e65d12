package transfer

import (
	"context"
	"os"
	"time"
)

// Fast shortens the backoff and the longest silence.
func (m *Import) Fast() *Import {
	m.minWait, m.maxWait, m.idle = time.Millisecond, 4*time.Millisecond, time.Minute
	return m
}

// SlowLine has an import take its line for a slow one from the start.
func (m *Import) SlowLine() *Import {
	m.slow = true
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

// ReadSub reads a reply to Sub.
var ReadSub = readSub

// CombineParts is the value of a piece from those of its parts.
var CombineParts = combineParts

// PartValues hashes the parts of a piece.
func PartValues(buf []byte, index int64, whole bool) []Value {
	return new(partHasher).values(nil, buf, index, whole)
}

// StreamBytes is the first line of a window of a stream.
func StreamBytes() []byte { return streamLine().append(nil) }

// OpenSmallStream is OpenStream with room for so many pieces.
func OpenSmallStream(p Producer, dir string, pieces int64) (*Stream, error) {
	return openStream(p, "stream", dir, pieces*PieceSize, Silent{})
}

// Settle shortens the time after which a file's times are settled.
func (c *Cache) Settle(d time.Duration) *Cache {
	c.age = d
	return c
}

// AfterTick waits until d after the present, also by the clock of the file system
// of dir, which ticks slower.
func AfterTick(dir string, d time.Duration) {
	stamp := func() time.Time {
		f, err := os.CreateTemp(dir, "tick")
		if err != nil {
			panic(err)
		}
		defer f.Close()
		id, err := identify(int(f.Fd()), "")
		if err != nil {
			panic(err)
		}
		return id.ctime
	}
	for first := stamp(); !stamp().After(first.Add(d)); {
	}
}

// Knows says whether the cache has the values of a file in its present state.
func (c *Cache) Knows(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	id, err := identify(int(f.Fd()), "")
	if err != nil {
		panic(err)
	}
	known := c.lookup(id)
	if known != nil {
		known.close()
	}
	return known != nil
}

// RacyTime sets how old a change must be to be believed, until the test ends.
func RacyTime(t interface{ Cleanup(func()) }, d time.Duration) {
	old := racyTime
	racyTime = d
	t.Cleanup(func() { racyTime = old })
}

// No test waits for seconds.
func init() { termPatience, leftPatience = 300*time.Millisecond, 300*time.Millisecond }
