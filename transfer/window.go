package transfer

import (
	"context"
	"fmt"
	"io"
	"time"

	"gantry/api"
)

// Window writes the manifest window that starts at piece from and has at most n
// pieces to w. It hashes up to from+n and no further, and everything before it.
// Every call of w.Write has whole lines and ought to be flushed; nothing else is
// silent for longer than api.HeartbeatInterval. When the source fails, the last
// line says so, and Window returns the same error. Codes: bad_range,
// source_changed, io, cancelled. done is of no use to a file, which is read again
// where it lies.
func (x *Export) Window(ctx context.Context, from, n, done int64, w io.Writer) error {
	pieces := x.src.pieces()
	if from < 0 || from >= pieces || n < 1 || n > api.MaxWindow {
		return fail(api.BadRange, nil, "a window of %d pieces from %d of %d", n, from, pieces)
	}
	if err := x.write(w, fileLine(x.file())); err != nil {
		return err
	}
	end := min(from+n, pieces)
	err := x.entries(ctx, from, end, w)
	if err == nil {
		// What was spooled earlier is no news of a file that changed since.
		err = x.broken(x.src.check())
	}
	if err != nil {
		return x.giveUp(ctx, err, w)
	}
	return x.write(w, x.lastLine(end))
}

// giveUp says to the reader why the window ends. Nothing is said when only the
// request ended: a reader that is still there, because a front or this program
// is being restarted, has to see a cut and ask again.
func (x *Export) giveUp(ctx context.Context, err error, w io.Writer) error {
	if ctx.Err() != nil && codeOf(context.Cause(ctx)) == nil {
		return err
	}
	if werr := x.write(w, errorLine(err)); werr != nil {
		return werr
	}
	return err
}

// entries writes the entries of pieces at to end as they are hashed.
func (x *Export) entries(ctx context.Context, at, end int64, w io.Writer) error {
	beat := func() error { return x.write(w, line{Kind: kindBeat}) }
	for at < end {
		if err := x.reachSome(ctx, at+1, end, beat); err != nil {
			return err
		}
		x.mu.Lock()
		ready := min(x.hashed, end)
		x.mu.Unlock()
		lines := make([]line, 0, ready-at)
		for ; at < ready; at++ {
			v, state, err := x.spool.get(at)
			if err == nil && state == slotUnknown {
				err = fmt.Errorf("slot %d is gone", at)
			}
			if err != nil {
				return local(err, "reading the spool")
			}
			lines = appendEntry(lines, Entry{N: at, Count: 1, Zero: state == slotZero, Value: v})
		}
		if err := x.write(w, lines...); err != nil {
			return err
		}
	}
	return nil
}

// appendEntry joins neighbouring zero pieces.
func appendEntry(lines []line, e Entry) []line {
	if k := len(lines); e.Zero && k > 0 && lines[k-1].Kind == kindZero {
		*lines[k-1].Count += e.Count
		return lines
	}
	return append(lines, entryLine(e))
}

// reach waits until all pieces before to are hashed.
func (x *Export) reach(ctx context.Context, to int64, beat func() error) error {
	return x.reachSome(ctx, to, to, beat)
}

// reachSome lets the hashing go on up to piece to, waits until the pieces before
// enough are hashed, and calls beat when that lasts.
func (x *Export) reachSome(ctx context.Context, enough, to int64, beat func() error) error {
	silence := time.NewTimer(api.HeartbeatInterval)
	defer silence.Stop()
	for {
		x.ask(to)
		x.mu.Lock()
		hashed, err, news := x.hashed, x.err, x.news
		x.mu.Unlock()
		if err != nil {
			return err
		}
		if hashed >= enough {
			return nil
		}
		if err := await(ctx, x.ctx, news, silence, beat); err != nil {
			return err
		}
	}
}

// await waits for news of an export, whose context ends when it is closed, or for
// the end of a silence that calls for a heartbeat.
func await(ctx, export context.Context, news <-chan struct{}, silence *time.Timer, beat func() error) error {
	select {
	case <-ctx.Done():
		return cancelled(ctx)
	case <-export.Done():
		return fail(api.Draining, nil, "the export is being closed")
	case <-silence.C:
		if err := beat(); err != nil {
			return err
		}
		silence.Reset(api.HeartbeatInterval)
	case <-news:
	}
	return nil
}

func (x *Export) file() File {
	id := x.src.id
	return File{Size: id.size, Data: min(id.size, id.blocks*512), MTime: id.mtime}
}

// lastLine ends a window whose pieces are hashed.
func (x *Export) lastLine(next int64) line {
	if next == x.src.pieces() {
		return endLine(x.src.id.size, x.Digest())
	}
	return windowLine(next)
}

// write sends lines in one call.
func (x *Export) write(w io.Writer, lines ...line) error { return writeLines(w, lines...) }

// writeLines sends lines in one call.
func writeLines(w io.Writer, lines ...line) error {
	var b []byte
	for _, l := range lines {
		b = l.append(b)
	}
	if _, err := w.Write(b); err != nil {
		return fmt.Errorf("sending the manifest: %w", err)
	}
	return nil
}
