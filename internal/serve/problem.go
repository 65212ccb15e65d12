package serve

import (
	"errors"
	"io/fs"
	"net/http"
	"syscall"

	"gantry/api"
	"gantry/feedback"
	"gantry/pki"
)

// Wire is the wire error that err means: the one place where errors of Go
// become codes. What has no code of its own is internal, and its text stays in
// the log of whoever has it. Wire(nil) is nil.
func Wire(err error) *feedback.Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*feedback.Error](err); ok {
		return e
	}
	if e, ok := errors.AsType[*pki.Error](err); ok {
		return api.CodeOf(e.Code).Err(e.Error())
	}
	if e, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return tooLarge(e.Limit)
	}
	switch {
	case errors.Is(err, feedback.ErrNoRoom):
		return api.NoRoom.Err("the node has no room for another task's records")
	case errors.Is(err, feedback.ErrAfter):
		return api.AboveLast.Err("there is no record with that number yet")
	case errors.Is(err, fs.ErrNotExist):
		return api.NotFound.Err("there is no such file or folder")
	case errors.Is(err, fs.ErrPermission):
		return api.Denied.Err("the node's user may not do that to the resource")
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return api.NoSpace.Err("the file system is full")
	}
	return api.Internal.Err("the node could not do it")
}

// problem renders the wire error as a reply. It is the only function of the
// project that does.
func (s *Shell) problem(w http.ResponseWriter, r *http.Request, wire *feedback.Error) {
	code := api.CodeOf(wire.Code)
	p := api.Problem{
		Type: "about:blank", Title: http.StatusText(code.Status), Status: code.Status,
		Detail: wire.Message, Code: wire.Code, Retryable: wire.Retryable, More: wire.Detail,
	}
	if code == api.UnknownTask {
		p.DirID = s.config.DirID
	} else if c := callFrom(r.Context()); c != nil {
		p.Task = c.task
	}
	w.Header().Set("Content-Type", api.TypeProblem)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code.Status)
	if r.Method != http.MethodHead {
		w.Write(append(api.Encode(p), '\n'))
	}
}
