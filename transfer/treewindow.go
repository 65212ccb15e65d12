package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"gantry/api"

	"github.com/go-json-experiment/json"
)

// treeWrite is about how much of a manifest one call of Write gets: what fits one FastCGI record.
const treeWrite = 48 << 10

// Window writes the manifest window that starts at line from and has at most n lines to w. It
// hashes up to line from+n and no further. Every call of w.Write has whole lines
// and ought to be flushed; nothing else is silent for longer than
// api.HeartbeatInterval. When the tree fails, the last line says so, and Window
// returns the same error. Codes: bad_range, source_changed, io, cancelled. done is of
// no use to a tree, whose files are read again where they lie.
func (x *TreeExport) Window(ctx context.Context, from, n, done int64, w io.Writer) error {
	return x.WindowHaving(ctx, from, n, "", w)
}

// WindowHaving is Window for a reader who has the numbered lines whose digest is
// have, "" for none. If they are true of the tree as it is now, one line says so in
// place of all, and the last one follows: what is known of the last export is
// believed of every entry that looks as it did then, by size, times, inode, mode
// and owner.
func (x *TreeExport) WindowHaving(ctx context.Context, from, n int64, have string, w io.Writer) error {
	x.mu.Lock()
	past := x.ended && from > x.lines
	x.mu.Unlock()
	if from < 0 || n < 1 || n > api.MaxWindow || past {
		return fail(api.BadRange, nil, "a window of %d lines from %d", n, from)
	}
	if err := sendTree(w, x.header()); err != nil {
		return err
	}
	if from == 0 {
		same, err := x.isSame(ctx, have, func() error { return sendTree(w, treeLine{Kind: kindBeat}) })
		if err != nil {
			return giveUpTree(ctx, err, w)
		}
		if same != nil {
			line, end := same.lines()
			if _, err := w.Write(end.append(line.append(nil))); err != nil {
				return fmt.Errorf("sending the manifest: %w", err)
			}
			return nil
		}
	}
	err := x.send(ctx, from, from+n, w)
	if err != nil {
		return giveUpTree(ctx, err, w)
	}
	x.mu.Lock()
	last := treeLine{Kind: kindWindow}
	if next := from + n; x.ended && x.lines <= next {
		last = x.last
	} else {
		last.Next = &next
	}
	x.mu.Unlock()
	return sendTree(w, last)
}

// giveUpTree says to the reader why the window ends, see [Export.Window].
func giveUpTree(ctx context.Context, err error, w io.Writer) error {
	if ctx.Err() != nil && codeOf(context.Cause(ctx)) == nil {
		return err
	}
	e := errorLine(err)
	if werr := sendTree(w, treeLine{Kind: kindError, Code: e.Code, Message: e.Message, Retryable: e.Retryable}); werr != nil {
		return werr
	}
	return err
}

// sendTree writes a line by itself.
func sendTree(w io.Writer, l treeLine) error {
	if _, err := w.Write(l.append(nil)); err != nil {
		return fmt.Errorf("sending the manifest: %w", err)
	}
	return nil
}

// send copies the lines from at to end out of the spool as they come.
func (x *TreeExport) send(ctx context.Context, at, end int64, w io.Writer) error {
	beat := func() error { return sendTree(w, treeLine{Kind: kindBeat}) }
	off := int64(-1)
	buf := make([]byte, treeWrite+maxTreeLine)
	for at < end {
		if err := x.reach(ctx, at+1, end, beat); err != nil {
			return err
		}
		x.mu.Lock()
		ready, limit, over := min(x.lines, end), x.bytes, x.ended
		x.mu.Unlock()
		if off < 0 && at < ready {
			var err error
			if off, err = x.offset(at); err != nil {
				return err
			}
		}
		for at < ready {
			n, err := x.spool.lines.ReadAt(buf[:min(int64(len(buf)), limit-off)], off)
			if err != nil && !errors.Is(err, io.EOF) {
				return local(err, "reading the spool")
			}
			length, lines := wholeLines(buf[:n], ready-at)
			if lines == 0 {
				return local(errors.New("a line is not there"), "reading the spool")
			}
			if _, err := w.Write(buf[:length]); err != nil {
				return fmt.Errorf("sending the manifest: %w", err)
			}
			at, off = at+lines, off+int64(length)
		}
		if over && at >= ready {
			return nil
		}
	}
	return nil
}

// wholeLines is the length of at most n lines at the start of b, not many more bytes than treeWrite.
func wholeLines(b []byte, n int64) (length int, lines int64) {
	for lines < n && length < treeWrite {
		i := bytes.IndexByte(b[length:], '\n')
		if i < 0 {
			break
		}
		length += i + 1
		lines++
	}
	return length, lines
}

// offset is where line n begins in the spool; it must be there.
func (x *TreeExport) offset(n int64) (int64, error) {
	x.mu.Lock()
	off := x.marks[n/markEvery]
	x.mu.Unlock()
	lines := lineBuffer{f: x.spool.lines}
	for range n % markEvery {
		raw, err := lines.line(off)
		if err != nil {
			return 0, local(err, "reading the spool")
		}
		off += int64(len(raw))
	}
	return off, nil
}

// reach lets the hashing go on up to line to, waits until there are enough lines or all, and
// calls beat when that lasts.
func (x *TreeExport) reach(ctx context.Context, enough, to int64, beat func() error) error {
	silence := time.NewTimer(api.HeartbeatInterval)
	defer silence.Stop()
	for {
		x.mu.Lock()
		if to > x.want {
			x.want = to
			x.tell()
		}
		x.begin()
		ready, err, news := x.ended || x.lines >= enough, x.err, x.news
		x.mu.Unlock()
		switch {
		case err != nil:
			return err
		case ready:
			return nil
		}
		if err := await(ctx, x.ctx, news, silence, beat); err != nil {
			return err
		}
	}
}

// Rehash reads what line n proves again, past everything that is known of it: a file of one piece, or a
// piece of a larger one. It writes the line to w as a window of one line (see
// [ReadTreeRehash]). When the file reads otherwise than before, the last line is
// an error with source_changed, and nothing is remembered of this tree.
func (x *TreeExport) Rehash(ctx context.Context, n int64, w io.Writer) error {
	if n < 0 {
		return fail(api.BadRange, nil, "line %d", n)
	}
	if err := sendTree(w, x.header()); err != nil {
		return err
	}
	raw, err := x.again(ctx, n, func() error { return sendTree(w, treeLine{Kind: kindBeat}) })
	if err != nil {
		return giveUpTree(ctx, err, w)
	}
	next := n + 1
	if _, err := w.Write(raw); err != nil {
		return fmt.Errorf("sending the manifest: %w", err)
	}
	return sendTree(w, treeLine{Kind: kindWindow, Next: &next})
}

// again hashes what line n proves for the second time and returns the line.
func (x *TreeExport) again(ctx context.Context, n int64, beat func() error) ([]byte, error) {
	if err := x.reach(ctx, n+1, n+1, beat); err != nil {
		return nil, err
	}
	x.mu.Lock()
	there := n < x.lines
	x.mu.Unlock()
	if !there {
		return nil, fail(api.BadRange, nil, "line %d is beyond the end", n)
	}
	raw, rec, piece, want, err := x.proof(n)
	if err != nil {
		return nil, err
	}
	d := dirSource{below: below{root: int(x.root.Fd())}}
	defer d.close()
	lines := lineBuffer{f: x.spool.lines}
	path, err := lines.pathOf(rec.off)
	if err != nil {
		return nil, local(err, "reading the spool")
	}
	src, err := d.openSame(path, &rec)
	if err != nil {
		return nil, err
	}
	defer src.f.Close()
	sc := scanner{src: src}
	v, _, err := sc.piece(ctx, piece)
	if err == nil && v != want {
		x.forget()
		err = fail(api.SourceChanged, nil, "%q reads otherwise than before", path)
	}
	return raw, err
}

// proof finds what line n proves: piece, of the file of rec, has the value want.
func (x *TreeExport) proof(n int64) (raw []byte, rec fileRecord, piece int64, want Value, err error) {
	off, err := x.offset(n)
	if err != nil {
		return nil, rec, 0, want, err
	}
	buf := lineBuffer{f: x.spool.lines}
	if raw, err = buf.line(off); err != nil {
		return nil, rec, 0, want, local(err, "reading the spool")
	}
	raw = bytes.Clone(raw)
	var l treeLine
	if err := json.Unmarshal(raw, &l); err != nil {
		return nil, rec, 0, want, local(err, "reading the spool")
	}
	rec, err = x.lastRecord(func(r fileRecord) bool { return r.off <= off })
	switch {
	case err != nil:
	case l.Kind == TreeKindEntry && l.Digest != nil:
		want, _ = ParseDigest(*l.Digest)
	case l.Kind == TreeKindPiece:
		want, _ = parseValue(*l.Value)
		piece, err = x.pieceBefore(rec.off, off)
	default:
		err = fail(api.BadRange, nil, "line %d proves no content", n)
	}
	return raw, rec, piece, want, err
}

// pieceBefore counts the pieces from the entry at off from to the line at off to.
func (x *TreeExport) pieceBefore(from, to int64) (piece int64, err error) {
	r := treeReader{br: newTreeBuffer(io.NewSectionReader(x.spool.lines, from, to-from))}
	for {
		l, _, err := r.next()
		switch {
		case errors.Is(err, io.EOF):
			return piece, nil
		case err != nil:
			return 0, local(err, "reading the spool")
		case l.Kind == TreeKindPiece:
			piece++
		case l.Kind == TreeKindZero:
			piece += *l.Count
		}
	}
}

// ReadTreeRehash reads the answer to [TreeExport.Rehash] of line n: the value of
// the piece, or the digest of the file of one piece, as the source reads it
// now. Codes: bad_manifest, and what the source reports.
func ReadTreeRehash(r io.Reader, n int64) (Value, error) {
	tr := &treeReader{br: newTreeBuffer(r)}
	l, _, err := tr.next()
	if err != nil {
		return Value{}, cutShort(err)
	}
	if _, err := l.header(); err != nil {
		return Value{}, err
	}
	if l, _, err = tr.next(); err != nil {
		return Value{}, cutShort(err)
	}
	var v Value
	ok := false
	switch {
	case l.Kind == kindError:
		return v, l.wire()
	case l.N == nil || *l.N != n:
	case l.Kind == TreeKindEntry && l.Digest != nil:
		v, ok = ParseDigest(*l.Digest)
	case l.Kind == TreeKindPiece:
		v, ok = parseValue(*l.Value)
	}
	if !ok {
		return v, badManifest("line of kind %q where line %d was asked for", l.Kind, n)
	}
	if l, _, err = tr.next(); err != nil {
		return v, cutShort(err)
	}
	if l.Kind != kindWindow || *l.Next != n+1 {
		return v, badManifest("line of kind %q after the one that was asked for", l.Kind)
	}
	return v, tr.end()
}
