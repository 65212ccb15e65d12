package transfer

import (
	"context"
	"io"

	"gantry/api"
)

// Here is the source that an exporter of the same process is, for a comparison:
// it gives its manifest and content, no parts and no frames.
func Here(x Exporter) Source { return here{x} }

type here struct{ Exporter }

// Window implements Source.
func (h here) Window(ctx context.Context, from, n, done int64) (io.ReadCloser, error) {
	return piped(ctx, func(ctx context.Context, w io.Writer) error { return h.Exporter.Window(ctx, from, n, done, w) }), nil
}

// Rehash implements Source.
func (h here) Rehash(ctx context.Context, n int64) (io.ReadCloser, error) {
	return piped(ctx, func(ctx context.Context, w io.Writer) error { return h.Exporter.Rehash(ctx, n, w) }), nil
}

// Sub implements Source.
func (h here) Sub(context.Context, []int64) (io.ReadCloser, error) {
	return nil, fail(api.BadRequest, nil, "a source of this process has no parts")
}

// Frames implements Source.
func (h here) Frames(context.Context, []Range, bool) (io.ReadCloser, error) {
	return nil, fail(api.BadRequest, nil, "a source of this process has no frames")
}

// pipe is the reading end of what a goroutine writes, which Close waits for.
type pipe struct {
	*io.PipeReader
	cancel context.CancelFunc
	ended  chan struct{}
}

func piped(ctx context.Context, write func(context.Context, io.Writer) error) *pipe {
	ctx, cancel := context.WithCancel(ctx)
	r, w := io.Pipe()
	p := &pipe{r, cancel, make(chan struct{})}
	go func() {
		defer close(p.ended)
		w.CloseWithError(write(ctx, w))
	}()
	return p
}

// Close ends the writing.
func (p *pipe) Close() error {
	p.cancel()
	err := p.PipeReader.Close()
	<-p.ended
	return err
}
