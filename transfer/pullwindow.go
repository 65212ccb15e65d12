package transfer

import (
	"context"
	"io"

	"gantry/api"
)

// heldWindow is a window whose first line was looked at.
type heldWindow struct {
	w    *watched
	r    io.Reader
	stop func() bool
}

// Read reads it from its start.
func (h *heldWindow) Read(p []byte) (int, error) { return h.r.Read(p) }

// Close ends the request.
func (h *heldWindow) Close() error {
	if h.stop != nil {
		h.stop()
	}
	return h.w.Close()
}

// drop ends a reply that nobody went on with.
func (p *puller) drop() {
	if p.held != nil {
		p.held.Close()
		p.held = nil
	}
}

// window asks for the window from start, or goes on with the one that kind began.
func (p *puller) window(ctx context.Context, start int64) (io.ReadCloser, error) {
	held := p.held
	if held == nil || start != 0 {
		return p.ask(ctx, start)
	}
	p.held = nil
	// It began under a context that lasts longer.
	held.stop = context.AfterFunc(ctx, func() { held.w.cancel(context.Cause(ctx)) })
	return held, nil
}

func (p *puller) ask(ctx context.Context, start int64) (*watched, error) {
	return watch(ctx, p.winIdle, func(ctx context.Context) (io.ReadCloser, error) {
		if h, ok := p.source.(Haver); ok && p.have != "" {
			return h.WindowHaving(ctx, windowPieces, p.have)
		}
		return p.source.Window(ctx, start, windowPieces, p.done())
	})
}

// windows reads the whole manifest, window by window, and hands each entry on
// once, in order. Before each window it calls due, if set; short says that the
// last one was shorter than asked for. It returns the digest that the source
// states.
func (p *puller) windows(ctx context.Context, due func(next int64, short bool) error, emit func(File, Entry) error) (digest string, err error) {
	var first *File
	var next, asked int64
	for digest == "" {
		if due != nil {
			if err := due(next, next < asked); err != nil {
				return "", err
			}
		}
		from, free := next, p.done() == next
		asked = next + windowPieces
		err := p.retry(ctx, "manifest", func() (bool, error) {
			start := next
			if first != nil && start == Pieces(first.Size) {
				start-- // only the last line was cut off: one entry is heard twice
			}
			defer while(&p.waits.manifest)()
			rc, err := p.window(ctx, start)
			if err != nil {
				return false, err
			}
			defer rc.Close()
			w, err := ReadWindow(rc, start, windowPieces, func(f File, e Entry) error {
				if first == nil {
					first = &f
				} else if f.Stream != first.Stream {
					return fail(api.SourceChanged, nil, "the manifest is now of another kind of source")
				} else if !f.Stream && f.Size != first.Size || !f.MTime.Equal(first.MTime) {
					return fail(api.SourceChanged, nil, "the manifest is now of a file of %d bytes of %s", f.Size, f.MTime.Format(timeFormat))
				}
				if e.N < next {
					return nil
				}
				p.progress()
				next = e.N + e.Count
				return emit(f, e)
			})
			digest = w.Digest
			return next > start, err
		})
		if err == nil && digest == "" && next == from && free {
			err = badManifest("an empty window, although the source has room for more")
		}
		if err != nil {
			return "", err
		}
	}
	return digest, nil
}
