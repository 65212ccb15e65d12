package client

import (
	"context"
	"errors"
	"io"

	"gantry/transfer"
)

// Source reads one export, as transfer.Import wants it.
type Source struct {
	Client *Client
	Task   string // the export's id
	Ticket string // "" for the export's creator
}

var _ transfer.Source = Source{}

// Window implements transfer.Source.
func (s Source) Window(ctx context.Context, from, n int64) (io.ReadCloser, error) {
	r, err := s.Client.Manifest(ctx, s.Task, from, n, s.Ticket)
	return r, toTransfer(err)
}

// Content implements transfer.Source.
func (s Source) Content(ctx context.Context, off, length int64) (io.ReadCloser, error) {
	r, err := s.Client.Content(ctx, s.Task, s.Ticket, off, length)
	return r, toTransfer(err)
}

// Rehash implements transfer.Source.
func (s Source) Rehash(ctx context.Context, pieces []int64) (io.ReadCloser, error) {
	r, err := s.Client.Rehash(ctx, s.Task, pieces, s.Ticket)
	return r, toTransfer(err)
}

// Finish tells the source that its reader is done.
func (s Source) Finish(ctx context.Context, digest string) error {
	return s.Client.Finish(ctx, s.Task, s.Ticket, digest)
}

// toTransfer says which errors end an import: refusals of the node and answers
// that will not change. All others are broken connections, tried again.
func toTransfer(err error) error {
	if err == nil {
		return nil
	}
	if p, ok := errors.AsType[*problem](err); ok {
		// A changed source may be copied again later, but not by this import:
		// only a node that is coming back counts as a broken connection.
		return &transfer.Error{Code: p.wire.Code, Message: p.wire.Message, Retryable: transient(p)}
	}
	if a := AnswerTo(err); !a.Retry {
		return &transfer.Error{Code: transfer.CodeUnreachable, Message: "the source cannot be read", Err: err}
	}
	return err
}
