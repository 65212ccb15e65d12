package api

import (
	"time"

	"gantry/feedback"
)

// Status is the reply of GET status.
type Status struct {
	Node    string    `json:"node"`
	Cluster string    `json:"cluster"`
	Version string    `json:"version"`
	Time    time.Time `json:"time"`
	DirID   string    `json:"dir_id"`
	// Isolated is false when responder and front share a uid.
	Isolated bool `json:"isolated"`
	Draining bool `json:"draining,omitzero"`
	Tasks    int  `json:"tasks"` // running
	MaxTasks int  `json:"max_tasks"`
	CRL      CRL  `json:"crl"`
	// Caller and May: who the node thinks is asking, and what they may do.
	Caller   string   `json:"caller"`
	May      []Grant  `json:"may"`
	Warnings []string `json:"warnings,omitzero"`
}

// CRL describes the node's revocation list.
type CRL struct {
	Number  int64     `json:"number"`
	Updated time.Time `json:"updated"`
	Expires time.Time `json:"expires"`
	Stale   bool      `json:"stale"`
}

// Grant is one grant as it applies to the caller.
type Grant struct {
	May       []Right  `json:"may"`
	Resources []string `json:"resources"`
}

// Resource is one entry of GET resources.
type Resource struct {
	Name     string  `json:"name"`
	Kind     string  `json:"kind"`
	Writable bool    `json:"writable"`
	Free     int64   `json:"free"` // bytes available on its file system; 0 of a device or a command
	Size     int64   `json:"size"` // bytes of its file system, or of the device; 0 of a command, or when it cannot be told
	May      []Right `json:"may"`
}

// Resources is the reply of GET resources.
type Resources struct {
	Resources []Resource `json:"resources"`
}

// FileInfo is one entry of a directory of a resource.
type FileInfo struct {
	Name  string    `json:"name"`
	Type  string    `json:"type"` // file, dir, symlink or other
	Size  int64     `json:"size"`
	MTime time.Time `json:"mtime"`
	Mode  string    `json:"mode"` // octal
}

// Files is one page of GET resources/{r}/files, in name order.
type Files struct {
	Files []FileInfo `json:"files"`
	Next  string     `json:"next,omitzero"`
}

// Problem is an error reply, RFC 9457. Its code and message are those of the
// wire error.
type Problem struct {
	Type      string `json:"type"` // "about:blank"
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Detail    string `json:"detail"`
	Code      string `json:"code"`
	Retryable bool   `json:"retryable"`
	Task      string `json:"task,omitzero"`
	DirID     string `json:"dir_id,omitzero"` // with unknown_task: proves that it never started here
	More      Raw    `json:"more,omitzero"`
}

// Err is the wire error that the problem carries.
func (p *Problem) Err() *feedback.Error {
	return &feedback.Error{Code: p.Code, Message: p.Detail, Retryable: p.Retryable, Detail: p.More}
}
