package history

import (
	"encoding/json"
	"time"
)

// An Event is one line of a history: a time and one of the others.
type Event struct {
	T time.Time `json:"t"` // when it was recorded: of a call, after its reply

	Call   *Call   `json:"call,omitempty"`
	Attach *Attach `json:"attach,omitempty"`
	Line   *Line   `json:"line,omitempty"`
	Detach *Detach `json:"detach,omitempty"`
	Look   *Look   `json:"look,omitempty"`
	Task   *Task   `json:"task,omitempty"`
	Left   *Left   `json:"left,omitempty"`
	Count  *Count  `json:"count,omitempty"`
	Load   *Load   `json:"load,omitempty"`
	End    *End    `json:"end,omitempty"`
}

// What a client may ask.
const (
	Submit = "submit" // reply: the job
	Get    = "get"    // reply: the job
	List   = "list"   // reply: all pages, {"jobs": […]}
	Cancel = "cancel"
	Retry  = "retry" // reply: the new job
	Watch  = "watch" // only when it was refused
)

// A Call is one request of a client and what came back.
type Call struct {
	Op     string          `json:"op"`
	Caller string          `json:"caller"`
	Job    string          `json:"job,omitempty"`  // that is named in the request
	Key    string          `json:"key,omitempty"`  // idempotency key
	Body   json.RawMessage `json:"body,omitempty"` // of the request
	Began  time.Time       `json:"began"`          // before the request was sent
	Status int             `json:"status"`         // of the reply; 0: none came, or not all of it
	Reply  json.RawMessage `json:"reply,omitempty"`
}

// ok reports whether the program itself answered, and with success.
func (c *Call) ok() bool { return c.Status >= 200 && c.Status < 300 }

// An Attach is a reader that was answered with a feed.
type Attach struct {
	Reader int    `json:"reader"` // each has a number of its own
	Job    string `json:"job"`
	After  int64  `json:"after"` // the first stored record has the next number
	// Began is before the request was sent.
	Began time.Time `json:"began"`
}

// A Line is one whole line that a reader was shown.
type Line struct {
	Reader int    `json:"reader"`
	Raw    string `json:"raw"` // without padding and newline
}

// A Detach is a reader that sees nothing more.
type Detach struct {
	Reader int `json:"reader"`
}

// A Look is a file as somebody saw it.
type Look struct {
	Place  string    `json:"place"` // NODE:RESOURCE/PATH, or Local and an absolute path
	Began  time.Time `json:"began"`
	Digest string    `json:"digest"` // as jobs report it; "" where no file was
}

// Local begins the place of a file on the caller's own machine.
const Local = "local:"

// A Task is what a node keeps of a task on its disk, at the end.
type Task struct {
	Node      string    `json:"node"`
	ID        string    `json:"id"`
	Op        string    `json:"op"`
	Place     string    `json:"place"`
	Created   time.Time `json:"created"`
	Ended     time.Time `json:"ended,omitzero"` // zero: it has not
	Outcome   string    `json:"outcome,omitempty"`
	Published bool      `json:"published,omitempty"` // it passed the point of no return
}

// Left is something that is there after the end and should not be.
type Left struct {
	What string `json:"what"`
}

// A Count is how much of something is there after the end, and the most that
// may be.
type Count struct {
	What string `json:"what"`
	N    int    `json:"n"`
	Most int    `json:"most"`
}

// A Load is how much of something the run did, and the least that makes it
// count.
type Load struct {
	What  string `json:"what"`
	N     int    `json:"n"`
	Floor int    `json:"floor"`
}

// End says that the clients have stopped and that whoever wrote the history
// waited for what was under way.
type End struct{}
