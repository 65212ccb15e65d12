package api

import (
	"time"

	"gantry/feedback"
)

// Operation names.
const (
	OpExport = "export"
	OpImport = "import"
	OpDigest = "digest"
)

// TaskRequest is the body of POST tasks. The same id with the same body
// attaches to the task (its feed from seq 1); with another body it is refused
// with conflict.
type TaskRequest struct {
	ID   string `json:"id"` // UUIDv7, made when the attempt starts
	Op   string `json:"op"`
	Args Raw    `json:"args"` // ExportArgs, ImportArgs or DigestArgs

	// RunFor ends the task after that many seconds; 0 = no bound.
	RunFor int64 `json:"run_for,omitzero"`
	// StallAfter ends it after that many seconds without progress; 0 = the
	// node's default (3600).
	StallAfter int64 `json:"stall_after,omitzero"`
	// By says who asked, as a SPIFFE id; empty means the caller. Only a master
	// may name another.
	By string `json:"by,omitzero"`
}

// File addresses a file within a resource of the node that is asked.
type File struct {
	Resource string `json:"resource"`
	Path     string `json:"path"` // relative, slash-separated, cleaned
}

// Reader is the whole right to read an export: who, and the SHA-256 (hex) of
// the ticket that they must present in TicketHeader.
type Reader struct {
	ID           string `json:"id"` // SPIFFE id
	TicketSHA256 string `json:"ticket_sha256"`
}

// ExportArgs are the arguments of export.
type ExportArgs struct {
	File
	Reader *Reader `json:"reader,omitzero"` // nil: only the creator reads
}

// Modes of an import.
const (
	ModeCreate  = "create"  // refused (exists) when the target is there with another content
	ModeReplace = "replace" // the old file stays until the new one is complete
)

// Source says where an import pulls from: a task on a node of the importing
// node's own cluster.toml, never a URL.
type Source struct {
	Node   string `json:"node"`
	Task   string `json:"task"`
	Ticket string `json:"ticket"` // 64 hex digits; in no record, list or log
}

// ImportArgs are the arguments of import.
type ImportArgs struct {
	File
	Mode   string `json:"mode,omitzero"` // default create
	Source Source `json:"source"`
	Expect string `json:"expect,omitzero"` // b3:… the digest that the content must have
	Resume string `json:"resume,omitzero"` // an ended task whose stage is taken over
	Verify string `json:"verify,omitzero"` // wire (default), or disk: read back before publishing
	// RetryFor bounds how long connection errors are retried, in seconds;
	// 0 = 3600.
	RetryFor int64 `json:"retry_for,omitzero"`
}

// DigestArgs are the arguments of digest.
type DigestArgs struct {
	File
}

// Bytes counts a file's bytes by origin.
type Bytes struct {
	Fetched   int64 `json:"fetched"`   // came over the wire and were kept
	Copied    int64 `json:"copied"`    // written again from the old copy
	Reflinked int64 `json:"reflinked"` // shared with the old copy
	Hole      int64 `json:"hole"`      // holes and zero pieces, never sent
	Carried   int64 `json:"carried"`   // already in the stage when the task took it over
}

// How an import's target came to be.
const (
	TargetCreated  = "created"
	TargetReplaced = "replaced"
	TargetThere    = "already there"
)

// ImportResult is the value of an import's result record: the outcome of a
// copy.
type ImportResult struct {
	Digest   string  `json:"digest"` // b3:…
	Size     int64   `json:"size"`   // bytes
	Bytes    Bytes   `json:"bytes"`
	Wire     int64   `json:"wire"`     // bytes received, with what was sent twice
	Attempts int64   `json:"attempts"` // content requests
	Cuts     int64   `json:"cuts"`     // content requests that ended early
	Seconds  float64 `json:"seconds"`  // of work, all starts together
	Rate     float64 `json:"rate"`     // bytes per second of size
	Verified string  `json:"verified"` // wire or disk
	Target   string  `json:"target"`   // created, replaced or already there
}

// ExportResult is the value of an export's result record. It means only that
// the reader said Digest.
type ExportResult struct {
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
	Sent   int64  `json:"sent"` // content bytes, as far as the responder saw them
}

// DigestResult is the value of a digest's result record.
type DigestResult struct {
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
}

// Publishing is the detail of the state record "publishing": the point of no
// return. Recovery finds the file by these, never by name.
type Publishing struct {
	Digest string    `json:"digest"`
	Ino    uint64    `json:"ino"`
	Btime  time.Time `json:"btime"`
	Size   int64     `json:"size"`
}

// States of a task, in the order in which they come.
const (
	StateAccepted   = "accepted"
	StateRunning    = "running"
	StatePublishing = "publishing"
	StateEnded      = "ended"
)

// TaskInfo describes one task to those who may see it.
type TaskInfo struct {
	ID      string    `json:"id"`
	Op      string    `json:"op"`
	File    *File     `json:"file,omitzero"`
	Caller  string    `json:"caller"`
	By      string    `json:"by,omitzero"`
	Created time.Time `json:"created"`
	Start   int       `json:"start"` // how often its responder took it up
	State   string    `json:"state"`
	Last    int64     `json:"last"` // greatest stored seq
	Outcome Outcome   `json:"outcome,omitzero"`
	// Final is the final record's line, once there is one.
	Final Raw `json:"final,omitzero"`
}

// TaskList is one page of GET tasks: the caller's own, newest first.
type TaskList struct {
	Tasks []TaskInfo `json:"tasks"`
	Next  string     `json:"next,omitzero"` // cursor of the next page
}

// Ack is the body of POST tasks/{id}/ack: the creator has stored up to Seq.
type Ack struct {
	Seq int64 `json:"seq"`
}

// Finish is the body of POST tasks/{id}/finish: the reader is done with the
// export and computed Digest. Idempotent.
type Finish struct {
	Digest string `json:"digest"`
}

// OutcomeOf is the outcome that a final record means; Unknown for nil and for
// records that are no final.
func OutcomeOf(final *feedback.Record) Outcome {
	if final == nil {
		return Unknown
	}
	switch body := final.Body.(type) {
	case *feedback.Result:
		return Done
	case *feedback.Error:
		return CodeOf(body.Code).Outcome
	}
	return Unknown
}
