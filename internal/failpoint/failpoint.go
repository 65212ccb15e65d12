// Package failpoint lets a campaign kill, fail or delay the program at every
// step of a durable write.
//
// A step is marked with
//
//	if err := failpoint.Hit("transfer.publish.rename"); err != nil { … }
//
// In an ordinary build Hit is an empty function that the compiler removes. A
// build with -tags failpoints reads GANTRY_FAILPOINTS when it starts:
//
//	name=kill            SIGKILL to itself, before the step
//	name=kill-after      SIGKILL to itself, after the step's effect
//	name=error           the step fails and has no effect
//	name=error-after     the step has its effect and is reported as failed
//	name=delay:200ms     the step waits first
//
// each with an optional @N, the Nth hit only (default: the first). Several are
// separated by commas. GANTRY_FAILPOINT_LOG names a file to which every process
// appends a line "name" for each failpoint that it reached, once, and a line
// "name=action" when one acted, so that a campaign can prove that none was
// missed (scripts/failpoints.go).
//
// It is not a mocking library: the code around a failpoint is always the real
// code.
package failpoint

import "errors"

// ErrInjected is the error of an error action. It wraps nothing.
var ErrInjected = errors.New("injected failure")
