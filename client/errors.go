package client

import (
	"errors"
	"fmt"

	"gantry/api"
	"gantry/feedback"
)

// NotOurs is an answer that no node gave: it came from the front, or from
// something that is neither.
type NotOurs struct {
	Node   string
	Method string
	Path   string
	Status int    // HTTP
	Type   string // its Content-Type
	Text   string // how it begins, made printable, at most 200 bytes
}

func (e *NotOurs) Error() string {
	s := fmt.Sprintf("%s: %s %s: the answer is not a node's: HTTP %d", e.Node, e.Method, e.Path, e.Status)
	if e.Type != "" {
		s += " " + e.Type
	}
	return s + "; " + AnswerTo(e).Remedy
}

// Temporary reports whether the same request may be answered by the node a
// little later.
func (e *NotOurs) Temporary() bool { return AnswerTo(e).Retry }

// Broken is a connection that was not made, or that broke.
type Broken struct {
	Node string
	What string // what was being done
	Sent bool   // the request may have reached the node
	Err  error

	reply bool // the reply had begun
}

func (e *Broken) Error() string {
	return fmt.Sprintf("%s: %s: %v; %s", e.Node, e.What, e.Err, AnswerTo(e).Remedy)
}

// Unwrap returns the cause.
func (e *Broken) Unwrap() error { return e.Err }

// Temporary reports whether trying again makes sense.
func (e *Broken) Temporary() bool { return AnswerTo(e).Retry }

// UnknownError says that a task may have run, or may be running, and that its
// final record was not seen.
type UnknownError struct {
	Node, Task string
	Err        error // why no final was seen
}

func (e *UnknownError) Error() string {
	return fmt.Sprintf("the outcome of task %s at %s is unknown: %v", e.Task, e.Node, e.Err)
}

// Unwrap returns the reason.
func (e *UnknownError) Unwrap() error { return e.Err }

// problem is an error of the node as it came, with what a client needs to
// judge it.
type problem struct {
	node   string
	wire   *feedback.Error
	status int
	dirID  string
	task   string
}

func (e *problem) Error() string { return e.node + ": " + e.wire.Error() }

// Unwrap returns the wire error.
func (e *problem) Unwrap() error { return e.wire }

func isForbidden(err error) bool {
	e, ok := errors.AsType[*problem](err)
	return ok && e.wire.Code == api.Forbidden.Name
}
