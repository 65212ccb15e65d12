package config

import (
	"fmt"
	"strings"

	"gantry/feedback"
)

// Error is one problem of a configuration file. Its text is one line.
type Error struct {
	File    string
	Line    int    // 1 is the first
	Key     string // "limits.tasks", "resource[0].path"; empty: the file as a whole
	Problem string
	Allowed string // may be empty
	Example string // may be empty

	err error // the cause, when it was found outside of this package
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d: ", e.File, e.Line)
	if e.Key != "" { // in quotes a key may contain anything
		b.WriteString(feedback.Printable(e.Key) + ": ")
	}
	b.WriteString(feedback.Printable(e.Problem))
	if e.Allowed != "" {
		b.WriteString("; allowed: " + e.Allowed)
	}
	if e.Example != "" {
		b.WriteString("; example: " + e.Example)
	}
	return b.String()
}

// Unwrap returns the cause, if another package found it.
func (e *Error) Unwrap() error { return e.err }

// Errors is every problem of a file, in the order in which they were found.
type Errors []*Error

func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, one := range e {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.As find a single problem.
func (e Errors) Unwrap() []error {
	all := make([]error, len(e))
	for i, one := range e {
		all[i] = one
	}
	return all
}
