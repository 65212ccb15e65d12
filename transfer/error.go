package transfer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"gantry/api"
	"gantry/feedback"
)

// ErrUnsettled says that the target was replaced but that it is not known to be
// durable: syncing its directory failed twice. The task must get no final
// record; restart the responder and let [Import.Recover] decide.
var ErrUnsettled = errors.New("published, but not known to be durable")

// fault is an error of the code table with its cause: the caller finds the
// *feedback.Error with errors.As, and the cause stays for the log.
type fault struct {
	wire  *feedback.Error
	cause error
}

func (f *fault) Error() string   { return f.wire.Message + ": " + f.cause.Error() }
func (f *fault) Unwrap() []error { return []error{f.wire, f.cause} }

// fail makes an error with code c; cause may be nil. What the operating system
// said becomes part of the message, everything else of a cause does not.
func fail(c *api.Code, cause error, format string, args ...any) error {
	message := fmt.Sprintf(format, args...)
	if cause == nil {
		return c.Err(message)
	}
	if errno, ok := errors.AsType[syscall.Errno](cause); ok {
		message += ": " + errno.Error()
	}
	return &fault{wire: c.Err(message), cause: cause}
}

// codeOf returns the code of err, or nil when it has none.
func codeOf(err error) *api.Code {
	if e, ok := errors.AsType[*feedback.Error](err); ok {
		return api.CodeOf(e.Code)
	}
	return nil
}

// local gives an error of the local file system its code.
func local(err error, format string, args ...any) error {
	if err == nil || codeOf(err) != nil {
		return err
	}
	c := api.IO
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		c = api.NoSpace
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		c = api.NotFound
	case errors.Is(err, fs.ErrPermission):
		c = api.Denied
	}
	return fail(c, err, format, args...)
}

// cancelled is the error of an ended context: its cause when that has a code.
func cancelled(ctx context.Context) error {
	cause := context.Cause(ctx)
	if codeOf(cause) != nil {
		return cause
	}
	return fail(api.CancelledBy, cause, "cancelled")
}

// refusal returns the error that ends an import at once, or nil when err is a
// broken connection, or a refusal that passes by itself while the other node
// restarts or has too much to do.
func refusal(err error) error {
	e, ok := errors.AsType[*feedback.Error](err)
	if !ok {
		return nil
	}
	switch e.Code {
	case api.Draining.Name, api.TooMany.Name, api.NotReady.Name, api.Internal.Name, api.PeerLost.Name:
		return nil
	}
	return err
}
