package api

import (
	"net/http"

	"gantry/feedback"
)

// An Outcome is how a task, job or call ended. The set is closed.
type Outcome string

const (
	Done      Outcome = "done"
	Failed    Outcome = "failed"
	Refused   Outcome = "refused"
	Cancelled Outcome = "cancelled"
	Unknown   Outcome = "unknown" // no final record was seen

	// Of calls only: no request was sent.
	Unreachable Outcome = "unreachable"
	PinMismatch Outcome = "pin_mismatch"
	NotTried    Outcome = "not_tried"
)

// Exit codes of the command line.
const (
	ExitDone     = 0
	ExitFailed   = 1 // failed or cancelled
	ExitMisuse   = 2
	ExitNotFound = 3
	ExitRefused  = 4
	ExitUnknown  = 5
	ExitLeft     = 6 // left while still running
)

// A Code names one way to fail. Wire errors carry its Name.
type Code struct {
	Name      string
	Outcome   Outcome
	Status    int // HTTP
	Exit      int
	Retryable bool   // the same request may succeed later
	Remedy    string // what to do about it, one sentence
}

// Err makes the wire error of this code. message says what happened, for
// people; the remedy is appended.
func (c *Code) Err(message string) *feedback.Error {
	if c.Remedy != "" {
		message += "; " + c.Remedy
	}
	return &feedback.Error{Code: c.Name, Message: message, Retryable: c.Retryable}
}

func code(name string, o Outcome, status, exit int, retryable bool, remedy string) *Code {
	c := &Code{name, o, status, exit, retryable, remedy}
	Codes = append(Codes, c)
	byName[name] = c
	return c
}

// Codes is the table of all codes, in order of definition.
var Codes []*Code

var byName = map[string]*Code{}

// CodeOf finds a code by name. Names of other versions count as Internal.
func CodeOf(name string) *Code {
	if c, ok := byName[name]; ok {
		return c
	}
	return Internal
}

// The request itself.
var (
	BadRequest     = code("bad_request", Refused, http.StatusBadRequest, ExitMisuse, false, "")
	BadMedia       = code("bad_media_type", Refused, http.StatusUnsupportedMediaType, ExitMisuse, false, "send the media type that the route names")
	BadMethod      = code("bad_method", Refused, http.StatusMethodNotAllowed, ExitMisuse, false, "")
	TooLarge       = code("too_large", Refused, http.StatusRequestEntityTooLarge, ExitMisuse, false, "")
	LengthRequired = code("length_required", Refused, http.StatusLengthRequired, ExitMisuse, false, "send a Content-Length")
	BadRange       = code("bad_range", Refused, http.StatusRequestedRangeNotSatisfiable, ExitMisuse, false, "ask for one range within the file")
	NotFound       = code("not_found", Refused, http.StatusNotFound, ExitNotFound, false, "")
	UnknownTask    = code("unknown_task", Refused, http.StatusNotFound, ExitNotFound, false, "")
	CrossSite      = code("cross_site", Refused, http.StatusForbidden, ExitRefused, false, "")
)

// The caller.
var (
	NotVerified = code("client_certificate", Refused, http.StatusForbidden, ExitRefused, false, "")
	Revoked     = code("certificate_revoked", Refused, http.StatusForbidden, ExitRefused, false, "ask the administrator for a new certificate (gantry ca issue)")
	StaleCRL    = code("crl_stale", Refused, http.StatusForbidden, ExitRefused, true, "send the node a new revocation list (gantry ca crl --push)")
	BadCRL      = code("crl_refused", Refused, http.StatusConflict, ExitRefused, false, "")
	Forbidden   = code("forbidden", Refused, http.StatusForbidden, ExitRefused, false, "an administrator of the node can add a [[grant]]")
	WrongServer = code("server_certificate", Refused, http.StatusBadGateway, ExitRefused, false, "compare the node's name and url in cluster.toml, and the CA, with the node")
	WrongPin    = code("pin_mismatch", PinMismatch, http.StatusBadGateway, ExitRefused, false, "ask the node's administrator whether its key was changed, then correct the pin in cluster.toml")
	BadFront    = code("front_not_trusted", Refused, http.StatusForbidden, ExitRefused, false, "")
)

// The task's id and life.
var (
	Conflict    = code("conflict", Refused, http.StatusConflict, ExitRefused, false, "use a new task id")
	AheadOfUs   = code("clock_ahead", Refused, http.StatusConflict, ExitRefused, true, "set the clocks of caller and node")
	TooOld      = code("too_old", Refused, http.StatusConflict, ExitRefused, false, "use a new task id")
	AboveLast   = code("above_last", Refused, http.StatusConflict, ExitRefused, false, "ask for records after one that was sent")
	TooLate     = code("too_late", Refused, http.StatusConflict, ExitRefused, false, "")
	Busy        = code("busy", Refused, http.StatusConflict, ExitRefused, true, "wait for the other task or cancel it")
	NoRoom      = code("no_room", Refused, http.StatusInsufficientStorage, ExitRefused, true, "acknowledge or wait for older tasks")
	TooMany     = code("too_many", Refused, http.StatusServiceUnavailable, ExitRefused, true, "wait for other tasks to end")
	Draining    = code("draining", Refused, http.StatusServiceUnavailable, ExitRefused, true, "try again when the node is back")
	NotReady    = code("not_ready", Refused, http.StatusServiceUnavailable, ExitRefused, true, "ask again")
	CancelledBy = code("cancelled", Cancelled, http.StatusConflict, ExitFailed, false, "")
	Interrupted = code("interrupted", Failed, http.StatusConflict, ExitFailed, true, "start it again")
	Stalled     = code("stalled", Failed, http.StatusConflict, ExitFailed, true, "")
	RunFor      = code("run_for", Failed, http.StatusConflict, ExitFailed, true, "allow more time")
)

// The work.
var (
	Exists         = code("exists", Refused, http.StatusConflict, ExitRefused, false, "use --replace to put the new copy in its place")
	NotRegular     = code("not_regular", Refused, http.StatusConflict, ExitRefused, false, "name a regular file")
	BadPath        = code("bad_path", Refused, http.StatusBadRequest, ExitMisuse, false, "")
	BadFileSystem  = code("file_system", Refused, http.StatusConflict, ExitRefused, false, "use a file system with renameat2 (ext4, xfs, btrfs, tmpfs)")
	NoSpace        = code("no_space", Failed, http.StatusInsufficientStorage, ExitFailed, true, "make room at the target")
	IO             = code("io", Failed, http.StatusInternalServerError, ExitFailed, true, "look at the node's log and its disks")
	Denied         = code("denied", Failed, http.StatusForbidden, ExitFailed, false, "let the node's user read and write the resource")
	SourceChanged  = code("source_changed", Failed, http.StatusConflict, ExitFailed, true, "freeze the source, or copy it again")
	SnapshotFailed = code("snapshot_failed", Failed, http.StatusConflict, ExitFailed, true, "look at the snapshot hook of the resource")
	TargetChanged  = code("target_changed", Failed, http.StatusConflict, ExitFailed, false, "look at the target before you try again")
	CorruptPiece   = code("corrupt_piece", Failed, http.StatusBadGateway, ExitFailed, true, "")
	BadManifest    = code("bad_manifest", Failed, http.StatusBadGateway, ExitFailed, false, "")
	BadFrames      = code("bad_frames", Failed, http.StatusBadGateway, ExitFailed, false, "")
	Incomplete     = code("incomplete", Failed, http.StatusConflict, ExitFailed, true, "look at the entries that the feed names, then run it again")
	UnsafeEntry    = code("unsafe_entry", Failed, http.StatusBadGateway, ExitFailed, false, "")
	DigestMismatch = code("digest_mismatch", Failed, http.StatusConflict, ExitFailed, false, "")
	PeerLost       = code("peer_unreachable", Failed, http.StatusBadGateway, ExitFailed, true, "look at the other node and the line to it")
	CommandFailed  = code("command_failed", Failed, http.StatusBadGateway, ExitFailed, true, "")
	DeviceUsed     = code("device_used", Refused, http.StatusConflict, ExitRefused, true, "unmount the device or stop what uses it; to export it all the same, an administrator can declare the resource live")
	NotDevice      = code("not_device", Refused, http.StatusConflict, ExitRefused, false, "name a block device in the resource")
	ReaderGone     = code("reader_gone", Failed, http.StatusConflict, ExitFailed, true, "")
	Internal       = code("internal", Failed, http.StatusInternalServerError, ExitFailed, true, "look at the node's log")
)

// Pushing.
var (
	NotWanted       = code("not_wanted", Refused, http.StatusConflict, ExitRefused, false, "ask again which wants are open")
	OffsetMismatch  = code("offset_mismatch", Refused, http.StatusConflict, ExitRefused, false, "send exactly the part that is wanted")
	UnreachableBoth = code("unreachable_both", Failed, http.StatusBadGateway, ExitFailed, true, "let one of the two nodes dial the other, and compare its cluster.toml")
)

// At a master.
var (
	BadSpec    = code("bad_spec", Refused, http.StatusUnprocessableEntity, ExitMisuse, false, "")
	UnknownJob = code("unknown_job", Refused, http.StatusNotFound, ExitNotFound, false, "")
	KeyReused  = code("key_reused", Refused, http.StatusConflict, ExitRefused, false, "use a new key for another request")
	JobEnded   = code("job_ended", Refused, http.StatusConflict, ExitRefused, false, "")
	JobRuns    = code("job_unfinished", Refused, http.StatusConflict, ExitRefused, false, "cancel it, or wait for its end")
	JobKnown   = code("job_not_unknown", Refused, http.StatusConflict, ExitRefused, false, "only a job whose node does not answer is abandoned; cancel this one")
	Abandoned  = code("abandoned", Unknown, http.StatusConflict, ExitUnknown, false, "look at the target before it is used: what was written there may be whole, a part or nothing")
	BadCursor  = code("bad_cursor", Refused, http.StatusBadRequest, ExitMisuse, false, "begin again without one")
	NoAudit    = code("audit_failed", Refused, http.StatusServiceUnavailable, ExitRefused, true, "look at the master's log and its disk: nothing is done that cannot be written down")
)

// Of calls, where an answer is no node's, or none came. A task's final record
// never carries one of them.
var (
	Unreached    = code("unreachable", Unreachable, http.StatusBadGateway, ExitFailed, true, "look whether the node's front and responder run and whether its address in cluster.toml is right")
	NotANode     = code("not_ours", Unreachable, http.StatusBadGateway, ExitFailed, true, "look whether another program answers at the node's address")
	FrontRefused = code("front_refused", Refused, http.StatusBadGateway, ExitRefused, false, "look at the front's log and compare its configuration with gantry front config")
	NoAnswer     = code("no_answer", Unknown, http.StatusGatewayTimeout, ExitUnknown, true, "call it again, or look at the node")
	Untried      = code("not_tried", NotTried, http.StatusConflict, ExitFailed, true, "")
	NotAllDone   = code("not_all_done", Failed, http.StatusConflict, ExitFailed, false, "gantry retry --only failed,unknown calls those again")
)
