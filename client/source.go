package client

import (
	"context"
	"io"
	"net/url"
	"strconv"

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
	// Limits bind the content that comes.
	Limits transfer.Limits
}

var (
	_ transfer.Source = Source{}
	_ transfer.Haver  = Source{}
)

// Rate is the strictest bandwidth limit in bytes a second, 0 for none.
func (s Source) Rate() int64 { return s.Limits.Rate() }

// Window implements transfer.Source.
func (s Source) Window(ctx context.Context, from, n, done int64) (io.ReadCloser, error) {
	return s.Client.Manifest(ctx, s.Task, from, n, done, s.Ticket)
}

// WindowHaving implements transfer.Haver.
func (s Source) WindowHaving(ctx context.Context, n int64, have string) (io.ReadCloser, error) {
	return s.Client.manifest(ctx, s.Task, s.Ticket, url.Values{"from": {"0"}, "n": {strconv.FormatInt(n, 10)}, "have": {have}})
}

// Content implements transfer.Source.
func (s Source) Content(ctx context.Context, off, length int64) (io.ReadCloser, error) {
	return s.Limits.Ask(ctx, []transfer.Range{{At: off, Len: length}}, 0, func(ctx context.Context, part []transfer.Range) (io.ReadCloser, error) {
		return s.Client.Content(ctx, s.Task, s.Ticket, part[0].At, part[0].Len)
	})
}

// Rehash implements transfer.Source.
func (s Source) Rehash(ctx context.Context, n int64) (io.ReadCloser, error) {
	return s.Client.Rehash(ctx, s.Task, []int64{n}, s.Ticket)
}

// Sub implements transfer.Source.
func (s Source) Sub(ctx context.Context, pieces []int64) (io.ReadCloser, error) {
	return s.Client.Sub(ctx, s.Task, pieces, s.Ticket)
}

// Frames implements transfer.Source.
func (s Source) Frames(ctx context.Context, ranges []transfer.Range, compress bool) (io.ReadCloser, error) {
	return s.Limits.Ask(ctx, ranges, transfer.FramesHead, func(ctx context.Context, part []transfer.Range) (io.ReadCloser, error) {
		return s.Client.Frames(ctx, s.Task, s.Ticket, part, compress)
	})
}

// Finish tells the source that its reader is done.
func (s Source) Finish(ctx context.Context, digest string) error {
	return s.Client.Finish(ctx, s.Task, s.Ticket, digest)
}
