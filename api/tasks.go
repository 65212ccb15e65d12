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
	// Checksum reads every file, also one that a recorded digest could stand
	// for; TrustMTime believes recorded values of a file whose device, inode,
	// size, mtime and ctime are the same.
	Checksum   bool     `json:"checksum,omitzero"`
	TrustMTime bool     `json:"trust_mtime,omitzero"`
	Filter     []string `json:"filter,omitzero"` // rules in rsync's form, the first that matches counts
	Args       []string `json:"args,omitzero"`   // NAME=VALUE for a command's placeholders
	// Bandwidth is the most content bytes sent per second; 0 = no limit.
	Bandwidth int64 `json:"bwlimit,omitzero"`
	// To makes the export bring its bytes to an import; then nobody reads.
	To *PushTo `json:"to,omitzero"`
}

// Modes of an import.
const (
	ModeCreate  = "create"  // refused (exists) when the target is there with another content
	ModeReplace = "replace" // the old file stays until the new one is complete
	ModeUpdate  = "update"  // the target may exist or not; what it has is not moved again
)

// What an import of a tree does with entries that the source does not have.
const (
	ExtraneousKeep   = "keep" // default
	ExtraneousList   = "list"
	ExtraneousDelete = "delete"
)

// Whether pieces travel compressed.
const (
	CompressAuto = "auto" // default: where a sample says that it pays
	CompressOff  = "off"
)

// ImportRight is the right that an import needs: deleting is no less than
// replacing.
func ImportRight(mode, extraneous string) Right {
	switch {
	case mode == ModeReplace, extraneous == ExtraneousDelete:
		return MayReplace
	case mode == ModeUpdate:
		return MayUpdate
	}
	return MayCreate
}

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
	Source Source `json:"source,omitzero"`
	// Push, instead of Source: the bytes are brought.
	Push   *Pusher `json:"push,omitzero"`
	Expect string  `json:"expect,omitzero"` // b3:… the digest that the content must have
	Resume string  `json:"resume,omitzero"` // an ended task whose stage is taken over
	Verify string  `json:"verify,omitzero"` // wire (default), or disk: read back before publishing
	// RetryFor bounds how long connection errors are retried, in seconds;
	// 0 = 3600.
	RetryFor int64 `json:"retry_for,omitzero"`
	// Bandwidth is the most content bytes received per second; 0 = no limit.
	Bandwidth int64 `json:"bwlimit,omitzero"`

	KeepOld    bool   `json:"keep_old,omitzero"`   // the old copy stays beside the target, under another name
	DryRun     bool   `json:"dry_run,omitzero"`    // say what would be done and change nothing
	Extraneous string `json:"extraneous,omitzero"` // keep (default), list or delete
	// Checksum reads what is there, also where size and times agree; TrustMTime
	// believes recorded values of a file whose device, inode, size, mtime and
	// ctime are the same.
	Checksum   bool     `json:"checksum,omitzero"`
	TrustMTime bool     `json:"trust_mtime,omitzero"`
	Parallel   int      `json:"parallel,omitzero"` // content requests at a time, 1 to MaxParallel; 0 = DefaultParallel
	Compress   string   `json:"compress,omitzero"` // auto (default) or off
	Args       []string `json:"args,omitzero"`     // NAME=VALUE for a command's placeholders
}

// DigestArgs are the arguments of digest.
type DigestArgs struct {
	File
	// Full reads every file, whatever is known of it, and forgets first what was
	// recorded and trust_mtime would believe.
	Full bool `json:"full,omitzero"`
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
	TargetFed      = "fed" // a command took it
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

	Entries *Entries `json:"entries,omitzero"` // of a tree
	DryRun  bool     `json:"dry_run,omitzero"` // nothing was changed: the rest is what would have been
	Old     string   `json:"old,omitzero"`     // name of the kept old copy, beside the target
}

// Entries counts what an import did with a tree's entries.
type Entries struct {
	Files    int64 `json:"files"`
	Dirs     int64 `json:"dirs"`
	Links    int64 `json:"links"` // further names of a file
	Symlinks int64 `json:"symlinks"`
	Special  int64 `json:"special"` // fifos, sockets, devices
	// Of these:
	Unchanged int64 `json:"unchanged"` // were there already
	Renamed   int64 `json:"renamed"`   // content found under another name
	// Beside these:
	Deleted    int64 `json:"deleted"`    // of the target's, not in the source
	Extraneous int64 `json:"extraneous"` // likewise, kept
	Skipped    int64 `json:"skipped"`    // of the source's, could not be read or kept: the import is incomplete
	LeftOut    int64 `json:"left_out"`   // of the source's, which its configuration leaves out: special files, other file systems
}

// ExportResult is the value of an export's result record. It means only that
// the reader said Digest.
type ExportResult struct {
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
	Sent   int64  `json:"sent"` // content bytes, as far as the responder saw them
	// Carried bytes were not read: their recorded values were believed.
	Carried int64 `json:"carried,omitzero"`
}

// DigestResult is the value of a digest's result record.
type DigestResult struct {
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
	// Of a tree: what it has, and what could not be read.
	Entries int64 `json:"entries,omitzero"`
	Skipped int64 `json:"skipped,omitzero"`
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

// Limit is the body of PUT tasks/{id}/limit, and its reply: bytes per second, 0
// for no limit.
type Limit struct {
	Bandwidth int64 `json:"bwlimit"`
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
