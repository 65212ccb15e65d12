package transfer

import (
	"errors"
	"fmt"
)

// Error codes of this package, each in the code table of package api.
const (
	CodeBadPath       = "bad_path"        // a name that is refused as a path
	CodeNotFound      = "not_found"       // no such file
	CodeNotRegular    = "not_regular"     // a symbolic link, device, directory, …
	CodeDenied        = "access_denied"   // the operating system says no
	CodeExists        = "exists"          // create, and the target is there with other content
	CodeNoSpace       = "no_space"        // disk or quota full
	CodeUnsupported   = "unsupported_fs"  // no renameat2 flags or no birth times
	CodeIO            = "io_error"        // the local disk failed
	CodeSourceChanged = "source_changed"  // the source is no longer the file that was hashed
	CodeBadManifest   = "bad_manifest"    // the source's manifest breaks the protocol or contradicts itself
	CodeCorruptPiece  = "corrupt_piece"   // a piece stays wrong although the source confirms its value
	CodeMismatch      = "digest_mismatch" // digest differs from the one expected
	CodeTargetChanged = "target_changed"  // somebody else replaced what was being published
	CodeUnreachable   = "unreachable"     // connection errors for longer than RetryFor
	CodeCancelled     = "cancelled"       // the context ended before the point of no return
	CodeBadRange      = "bad_range"       // a range or piece outside the file
)

// Error is a failure with a code. A [Source] returns one (or an error that wraps
// one) when the other side refused; every other error of a Source counts as a
// broken connection and is tried again.
type Error struct {
	Code      string
	Message   string // one plain sentence for people
	Retryable bool   // true: treat as a broken connection
	Err       error  // cause, may be nil
}

// Error returns message and cause.
func (e *Error) Error() string {
	if e.Err == nil {
		return e.Message
	}
	return e.Message + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Code returns the code of err, or "" when it has none.
func Code(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return ""
}

func fail(code string, cause error, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...), Err: cause}
}
