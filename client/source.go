package client

import (
	"context"
	"io"

	"gantry/transfer"
)

// Source reads one export, as transfer.Import wants it. The node's refusals
// are *feedback.Error, which end an import; every other error is a broken
// connection to it, also one whose certificate is refused: while an import
// waits, a certificate may be renewed.
type Source struct {
	Client *Client
	Task   string // the export's id
	Ticket string // "" for the export's creator
}

var _ transfer.Source = Source{}

// Window implements transfer.Source.
func (s Source) Window(ctx context.Context, from, n int64) (io.ReadCloser, error) {
	return s.Client.Manifest(ctx, s.Task, from, n, s.Ticket)
}

// Content implements transfer.Source.
func (s Source) Content(ctx context.Context, off, length int64) (io.ReadCloser, error) {
	return s.Client.Content(ctx, s.Task, s.Ticket, off, length)
}

// Rehash implements transfer.Source.
func (s Source) Rehash(ctx context.Context, n int64) (io.ReadCloser, error) {
	return s.Client.Rehash(ctx, s.Task, []int64{n}, s.Ticket)
}

// Finish tells the source that its reader is done.
func (s Source) Finish(ctx context.Context, digest string) error {
	return s.Client.Finish(ctx, s.Task, s.Ticket, digest)
}
