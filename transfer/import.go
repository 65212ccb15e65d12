package transfer

import (
	"context"
	"io"
	"os"
	"time"
)

// Source is where an import gets its bytes. Methods are called concurrently and
// obey their context; readers they return are read until their end or closed
// early. An [Error] that is not Retryable ends the import, every other error is
// a broken connection and the request is made again. Nothing that a Source
// delivers is trusted.
type Source interface {
	// Window returns the lines of a manifest window (see [Export.Window]).
	Window(ctx context.Context, from, n int64) (io.ReadCloser, error)
	// Content returns length bytes from off.
	Content(ctx context.Context, off, length int64) (io.ReadCloser, error)
	// Rehash returns the lines of [Export.Rehash].
	Rehash(ctx context.Context, pieces []int64) (io.ReadCloser, error)
}

// Mode says what may happen to a file that has the target's name.
type Mode string

// Modes of an import.
const (
	Create  Mode = "create"  // refused with CodeExists, unless its content is the source's
	Replace Mode = "replace" // replaced in one step; its mode and, where allowed, owner are kept
)

// Import brings one file. Fill the fields, then call Run once; after a restart
// an Import with the same fields goes on where the earlier one stopped.
type Import struct {
	Source Source
	Root   *os.Root    // root of the resource
	Name   string      // of the target, below Root
	Mode   Mode        // default Create
	Perm   os.FileMode // of a created file; default 0640
	Task   string      // id of the task: name of the stage and of temporary names
	Dir    string      // folder of the task: stage record, piece map, manifest spool
	Expect string      // digest that the file must have, or ""
	Report Reporter

	// RetryFor is how long connection errors in a row are borne; default 1 h.
	RetryFor time.Duration
	// Commit is called once, just before the point of no return. When it
	// returns an error the import ends with that error and nothing is
	// published; once it returned nil, cancelling the context has no effect.
	Commit func() error
}

// Result is the outcome of an import that is done. Bytes by origin add up to Size.
type Result struct {
	Digest    string  `json:"digest"`
	Size      int64   `json:"size"`
	Pieces    int64   `json:"pieces"`
	Fetched   int64   `json:"fetched"`   // bytes received in this or an earlier run of the task and published
	Hole      int64   `json:"hole"`      // bytes of holes and zero pieces, never sent
	Carried   int64   `json:"carried"`   // bytes that an earlier run of the task had fetched
	Copied    int64   `json:"copied"`    // bytes copied from an old file here
	Reflinked int64   `json:"reflinked"` // bytes shared with an old file here
	Attempts  int64   `json:"attempts"`  // requests for content
	Cuts      int64   `json:"cuts"`      // connections that broke
	Rate      float64 `json:"rate"`      // bytes per second, Size over Seconds
	Seconds   float64 `json:"seconds"`   // of all runs of the task together
	Verified  string  `json:"verified"`  // "wire" or "disk"
	Target    string  `json:"target"`    // "created", "replaced" or "already there"
}

// StatePublishing is the state from which on an import is not undone; its
// detail is a [Publishing].
const StatePublishing = "publishing"

// Publishing is the detail of the durable state StatePublishing. It identifies
// the stage by inode, never by name.
type Publishing struct {
	Digest string `json:"digest"`
	Ino    uint64 `json:"ino"`
	Btime  int64  `json:"btime"` // birth time, nanoseconds since 1970
	Size   int64  `json:"size"`
	Result Result `json:"result"` // what the task answers once it is published
}

// Run imports. When it returns nil the target is complete, durable and has the
// digest of the result. Its errors are of type [*Error], except those of Commit
// and Report.
func (m *Import) Run(ctx context.Context) (Result, error) { panic("skeleton") }

// Recover ends a publication that a crash interrupted: p is the detail of the
// task's last state. It completes it or fails with CodeTargetChanged; it never
// publishes twice.
func (m *Import) Recover(p Publishing) (Result, error) { panic("skeleton") }

// Discard removes the stage of an import that ended without being published.
func (m *Import) Discard() error { panic("skeleton") }
