package feedback

import (
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Kind says what a record is. Kinds not listed here are kept by readers
// (Record.Body nil): a later version may add some.
type Kind string

// The stored kinds have a sequence number and a time; the live ones have no
// number and are never on disk.
const (
	KindState  Kind = "state"  // stored
	KindLog    Kind = "log"    // stored
	KindTask   Kind = "task"   // stored; a task's record inside a job's feed
	KindResult Kind = "result" // stored, final
	KindError  Kind = "error"  // stored, final

	KindHello     Kind = "hello"     // live, the first line
	KindProgress  Kind = "progress"  // live
	KindHeartbeat Kind = "heartbeat" // live
	KindGap       Kind = "gap"       // live; stands for stored records that are gone
)

// Stored reports whether k is one of the kinds that carry a sequence number.
func (k Kind) Stored() bool {
	switch k {
	case KindState, KindLog, KindTask, KindResult, KindError:
		return true
	}
	return false
}

// Final reports whether a record of kind k ends its feed.
func (k Kind) Final() bool { return k == KindResult || k == KindError }

// known reports whether this version has a Body for k.
func (k Kind) known() bool {
	switch k {
	case KindHello, KindProgress, KindHeartbeat, KindGap:
		return true
	}
	return k.Stored()
}

// Version is the version of the feed format, the v of a hello.
const Version = 1

// TimeLayout is the one form of a time in a record: RFC 3339, UTC, milliseconds.
const TimeLayout = "2006-01-02T15:04:05.000Z07:00"

// A Record is one line of a feed.
type Record struct {
	Kind Kind
	Seq  int64     // 1, 2, 3 … of a stored record; 0 of a live one
	Time time.Time // UTC, milliseconds; zero where the line has none
	Line []byte    // the exact bytes, without padding and newline; nil before Encode
	Body any       // *Hello, *State, *Log, *Progress, *Heartbeat, *Gap, *Task, *Result or *Error; nil for unknown kinds
}

// Hello opens every stream: it is sent when the task is on disk.
type Hello struct {
	V        int    `json:"v"`               // format version, 1
	ID       string `json:"id"`              // id of the task or job
	Op       string `json:"op,omitzero"`     // its operation
	Node     string `json:"node,omitzero"`   // who speaks
	Start    int    `json:"start"`           // counts the starts of the responder in this task's life, from 1
	Interval int    `json:"interval"`        // seconds; a line is written at least this often
	Last     int64  `json:"last"`            // greatest stored number when the stream began
	DirID    string `json:"dir_id,omitzero"` // random, made with the node's folder
}

// State tells a step of the task.
type State struct {
	State  string         `json:"state"`
	Detail jsontext.Value `json:"detail,omitzero"` // nil or any JSON value
}

// Log is a line for people. Text is data: show it through [Printable].
type Log struct {
	Level string `json:"level"` // debug, info, warn or error; others are kept
	Text  string `json:"text"`
	Item  string `json:"item,omitzero"` // what it is about; may be empty
}

// Progress is the newest value of one item.
type Progress struct {
	Item  string
	Phase string
	Done  int64
	Total int64   // -1: unknown, not on the line
	Unit  string  // bytes, files, …
	Rate  float64 // units per second, of the last 10 s or so; 0 is not on the line
	ETA   int64   // whole seconds; -1: unknown, not on the line

	TotalIs string // TotalExact, TotalEstimate or TotalUnknown; "" from a producer that does not say
	Proved  int64  // of Done and what follows it, proved in memory; 0 is not on the line
	Durable int64  // of Done, known to be on disk; 0 is not on the line
	Stalled int64  // whole seconds without a byte, from 30 on; 0: it moves, not on the line
	Why     string // why it is stalled, as seen from where it is; may be empty
}

// What the total of a Progress is.
const (
	TotalExact    = "exact"
	TotalEstimate = "estimate" // more may come
	TotalUnknown  = "unknown"
)

// Why something is stalled. The set is closed, but for the numbers.
const (
	WhySourceHash = "waiting for the source to hash"
	WhySource     = "waiting for the source to send"
	WhyPusher     = "nobody pushes"
	WhyRetry      = "connection lost, retry in %d s"
	WhyDisk       = "the disk is slow"
	WhyLimit      = "limited to %s"
	WhyReader     = "waiting for the reader"
	WhyCommand    = "waiting for the command"
	WhyNode       = "no word from the node"
)

// Heartbeat shows that the producer lives. Its time is Record.Time.
type Heartbeat struct {
	Last int64 `json:"last"` // greatest stored number
}

// Gap stands for the stored records From to To, which are gone; the next
// stored record has the number To + 1.
type Gap struct {
	From int64  `json:"from"`
	To   int64  `json:"to"`
	Why  string `json:"why"` // WhyTrimmed or WhyLost
}

// Why records are missing.
const (
	WhyTrimmed = "trimmed" // deleted to hold a bound, or acknowledged
	WhyLost    = "lost"    // not to be had again from their producer
)

// Task is a stored record of a task inside the feed of a job. The task's
// record keeps its own numbering.
type Task struct {
	Node   string         `json:"node"`
	Task   string         `json:"task"`   // the task's id
	Record jsontext.Value `json:"record"` // the task's record, an object
}

// Result is the final record of a task that is done.
type Result struct {
	Value jsontext.Value `json:"value"`
}

// Error is the final record of a task that is not done, and the wire error
// used everywhere. It is a Go error and wraps nothing: what is internal stays
// in the log of whoever made it.
type Error struct {
	Code      string         `json:"code"`            // one of the table in package api
	Message   string         `json:"message"`         // one plain sentence: what, why, what to do
	Retryable bool           `json:"retryable"`       // the same request may succeed later
	Detail    jsontext.Value `json:"detail,omitzero"` // nil or any JSON value
}

// Error returns the message and the code.
func (e *Error) Error() string {
	switch {
	case e.Message == "":
		return e.Code
	case e.Code == "":
		return e.Message
	}
	return e.Message + " (" + e.Code + ")"
}
