package job

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"gantry/api"
	"gantry/feedback"
	"gantry/transfer"

	"golang.org/x/sync/errgroup"
)

// Sizes of a pull to a pipe.
const (
	pipeWindow = 64                                // pieces of a manifest window: 256 MiB of source
	pipeAhead  = 4                                 // proved pieces that wait for the reader of the pipe
	pipeRun    = api.MaxRange / transfer.PieceSize // pieces of one request
	// pipeWrong is how often a piece may be wrong before the source is blamed.
	pipeWrong = 3
)

// pipe pulls an export in order and writes each piece once it is proved.
// Nothing can be resumed: what was written is gone.
type pipe struct {
	source transfer.Source
	out    io.Writer
	item   *feedback.Item
	log    func(level, item, text string)
	expect string

	// of the puller
	file   transfer.File
	tree   transfer.Tree
	result api.ImportResult
}

// piece is a proved piece, or a run of zeros (buf nil).
type piece struct {
	buf  []byte
	zero int64
}

func (p *pipe) run(ctx context.Context) (api.ImportResult, error) {
	begin := time.Now()
	ready := make(chan piece, pipeAhead)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(ready)
		return p.pull(ctx, ready)
	})
	group.Go(func() error { return p.write(ctx, ready) })
	if err := group.Wait(); err != nil {
		return api.ImportResult{}, err
	}
	r := p.result
	r.Size, r.Seconds, r.Verified, r.Target = p.file.Size, seconds(begin), transfer.VerifyWire, api.TargetCreated
	if r.Seconds > 0 {
		r.Rate = float64(r.Size) / r.Seconds
	}
	return r, nil
}

// write writes what is ready. It is the only one that a slow reader holds up.
func (p *pipe) write(ctx context.Context, ready <-chan piece) error {
	zeros := make([]byte, 64<<10)
	for pc := range ready {
		for pc.zero > 0 && ctx.Err() == nil {
			n, err := p.out.Write(zeros[:min(pc.zero, int64(len(zeros)))])
			if err != nil {
				return localError(err, "writing to standard output")
			}
			pc.zero -= int64(n)
			p.item.Add(int64(n))
		}
		if len(pc.buf) > 0 {
			if _, err := p.out.Write(pc.buf); err != nil {
				return localError(err, "writing to standard output")
			}
			p.item.Add(int64(len(pc.buf)))
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

// pull gets window after window and proves their pieces.
func (p *pipe) pull(ctx context.Context, ready chan<- piece) error {
	for next := int64(0); ; {
		var entries []transfer.Entry
		var w transfer.Window
		err := p.persist(ctx, func() error {
			var err error
			entries, w, err = p.window(ctx, next)
			return err
		})
		if err != nil {
			return err
		}
		if next > 0 && (w.File.Stream != p.file.Stream || !w.File.Stream && w.File.Size != p.file.Size) {
			return api.SourceChanged.Err("the source's size changed while it was read")
		}
		p.file = w.File
		p.item.SetTotal(w.File.Size) // of a stream -1 until its end
		if !w.End && len(entries) == 0 {
			return api.BadManifest.Err("an empty window of the source, which has room for more")
		}
		if err := p.pieces(ctx, entries, ready); err != nil {
			return err
		}
		next = w.Next
		if w.End {
			return p.end(w.Digest)
		}
	}
}

func (p *pipe) window(ctx context.Context, next int64) ([]transfer.Entry, transfer.Window, error) {
	// Whatever is proved is not asked for again.
	body, err := p.source.Window(ctx, next, pipeWindow, next)
	if err != nil {
		return nil, transfer.Window{}, err
	}
	defer body.Close()
	var entries []transfer.Entry
	w, err := transfer.ReadWindow(body, next, pipeWindow, func(_ transfer.File, e transfer.Entry) error {
		entries = append(entries, e)
		return nil
	})
	return entries, w, err
}

// pieces delivers the pieces of a window in order.
func (p *pipe) pieces(ctx context.Context, entries []transfer.Entry, ready chan<- piece) error {
	whole := transfer.Pieces(p.file.Size) == 1
	for len(entries) > 0 {
		e := entries[0]
		if e.Zero {
			var zero int64
			for i := e.N; i < e.N+e.Count; i++ {
				length := transfer.PieceLen(i, p.file.Size)
				p.tree.Add(transfer.ZeroValue(i, length, whole))
				zero += length
			}
			p.result.Bytes.Hole += zero
			if err := deliver(ctx, ready, piece{zero: zero}); err != nil {
				return err
			}
			entries = entries[1:]
			continue
		}
		n := 1
		for n < pipeRun && n < len(entries) && !entries[n].Zero {
			n++
		}
		if err := p.fetch(ctx, entries[:n], whole, ready); err != nil {
			return err
		}
		entries = entries[n:]
	}
	return nil
}

// fetch gets neighbouring pieces with one request, and with another one for the
// rest after each cut or wrong piece.
func (p *pipe) fetch(ctx context.Context, entries []transfer.Entry, whole bool, ready chan<- piece) error {
	wrong := 0
	return p.persist(ctx, func() error {
		off := entries[0].N * transfer.PieceSize
		last := entries[len(entries)-1].N
		length := last*transfer.PieceSize + transfer.PieceLen(last, p.file.Size) - off
		if length == 0 { // an empty file
			p.tree.Add(entries[0].Value)
			return nil
		}
		p.result.Attempts++
		body, err := p.source.Content(ctx, off, length)
		if err != nil {
			return err
		}
		defer body.Close()
		for len(entries) > 0 {
			e := entries[0]
			buf := make([]byte, transfer.PieceLen(e.N, p.file.Size))
			n, err := io.ReadFull(body, buf)
			p.result.Wire += int64(n)
			if err != nil {
				p.result.Cuts++
				return err
			}
			if transfer.HashPiece(buf, e.N, whole) != e.Value {
				if wrong++; wrong == pipeWrong {
					return api.CorruptPiece.Err(fmt.Sprintf("piece %d arrived wrong %d times; the source or the line to it is damaged", e.N, wrong))
				}
				return fmt.Errorf("piece %d arrived wrong", e.N)
			}
			p.tree.Add(e.Value)
			p.result.Bytes.Fetched += int64(len(buf))
			if err := deliver(ctx, ready, piece{buf: buf}); err != nil {
				return err
			}
			entries, wrong = entries[1:], 0
		}
		return nil
	})
}

func deliver(ctx context.Context, ready chan<- piece, pc piece) error {
	select {
	case ready <- pc:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// end compares the root of all values with what the source says it is.
func (p *pipe) end(digest string) error {
	got := "b3:" + p.tree.Root().String()
	if got != digest {
		return api.BadManifest.Err(fmt.Sprintf("the source says %s, its pieces make %s; do not use what was written", digest, got))
	}
	if p.expect != "" && p.expect != got {
		return api.DigestMismatch.Err(fmt.Sprintf("the digest is %s, expected %s; do not use what was written", got, p.expect))
	}
	p.result.Digest = got
	return nil
}

// persist repeats fn after broken connections, with the backoff of an import.
func (p *pipe) persist(ctx context.Context, fn func() error) error {
	wait, begin := 500*time.Millisecond, time.Now()
	for {
		err := fn()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if e, ok := errors.AsType[*feedback.Error](err); ok && e.Code != api.Draining.Name && e.Code != api.TooMany.Name && e.Code != api.NotReady.Name {
			return err
		}
		if time.Since(begin) > api.RetryFor {
			return api.PeerLost.Err("the source cannot be read: " + err.Error())
		}
		p.log("warn", "", fmt.Sprintf("%v; trying again in %.1f s", err, wait.Seconds()))
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
		wait = min(2*wait, 30*time.Second)
	}
}
