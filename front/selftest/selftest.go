// Package selftest has the handlers with which a live front is tried out:
// by "gantry front check", and by the conformance suite front/fronttest.
//
//	h := selftest.New(selftest.Options{})
//	router.PathPrefix(selftest.Prefix).Handler(h) // behind the right "selftest"
//
// It is not a benchmark and not a debugging door: every answer is bounded in
// bytes and time, reads no file, and shows only what the caller sent.
package selftest

import "net/http"

// Prefix is the path below which the handlers answer.
const Prefix = "/node/v1/selftest/"

// Options of New.
type Options struct {
	// Danger mounts the handlers that panic or die. For tests only.
	Danger bool
}

// New returns the handlers; it expects the whole path, Prefix included.
func New(o Options) http.Handler { return http.NotFoundHandler() }
