package transfer

import (
	"context"
	"errors"
	"io"
	"sort"

	"gantry/api"
)

// lastRecord finds the last file record for which ok holds; those for which it holds come first.
func (x *TreeExport) lastRecord(ok func(fileRecord) bool) (rec fileRecord, err error) {
	k, err := x.searchRecord(ok)
	if err != nil {
		return rec, err
	}
	return readRecord(x.spool.files, k)
}

func (x *TreeExport) searchRecord(ok func(fileRecord) bool) (int64, error) {
	x.mu.Lock()
	files := x.files
	x.mu.Unlock()
	var failed error
	k := sort.Search(int(files), func(i int) bool {
		r, err := readRecord(x.spool.files, int64(i))
		if err != nil {
			failed = err
		}
		return err != nil || !ok(r)
	})
	if failed == nil && k == 0 {
		failed = fail(api.BadRange, nil, "there is no file")
	}
	return int64(k) - 1, local(failed, "reading the spool")
}

// openSame opens the file at path if it is still in the state that was hashed.
func (d *dirSource) openSame(path string, rec *fileRecord) (*source, error) {
	src, f, err := d.open(path)
	if err != nil {
		if skipCode(err) == SkipVanished {
			return nil, fail(api.SourceChanged, err, "%.300q is gone", path)
		}
		return nil, local(err, "opening %.300q", path)
	}
	if err := rec.sameState(f.id); err != nil {
		src.f.Close()
		return nil, fail(api.SourceChanged, err, "%.300q changed since it was hashed", path)
	}
	return src, nil
}

// Content returns the bytes from off to off+length of all files one after the
// other, as far as they are in the manifest. It, and reading, fails with
// source_changed, naming the file, at the first byte of a file that is not what was hashed
// and of which nothing was kept (small ones are, once): a
// range that begins behind that file can still be had. Codes of the call itself:
// bad_range, source_changed.
func (x *TreeExport) Content(ctx context.Context, off, length int64) (io.ReadCloser, error) {
	if err := x.Check(); err != nil {
		return nil, err
	}
	x.mu.Lock()
	size := x.size
	x.mu.Unlock()
	if off < 0 || length < 0 || off > size || length > size-off {
		return nil, fail(api.BadRange, nil, "bytes %d to %d of %d that are in the manifest", off, off+length, size)
	}
	c := &treeContent{ctx: ctx, x: x, off: off, end: off + length, lines: lineBuffer{f: x.spool.lines}}
	c.dirs.root = int(x.root.Fd())
	if length == 0 {
		return c, nil
	}
	k, err := x.searchRecord(func(r fileRecord) bool { return r.at <= off })
	if err == nil {
		c.next = k
		err = c.advance()
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// treeContent reads a range of the content: one file after the other, one open at a time. The
// state of a file is looked at once per piece, and at its end; a kept one is what was hashed, whatever
// became of it since.
type treeContent struct {
	ctx      context.Context
	x        *TreeExport
	off, end int64
	dirs     dirSource
	lines    lineBuffer
	recs     []byte // of files from next on
	next     int64  // record after the open file
	rec      fileRecord
	path     string
	src      *source
	kept     []byte // the file as it was hashed, in place of src
	unproved int64  // bytes since the state was looked at
	err      error  // what ends it, once what was read before is handed on
}

// Read fills p from as many files as it takes.
func (c *treeContent) Read(p []byte) (n int, err error) {
	for n < len(p) && c.err == nil {
		k, err := c.read(p[n:])
		n += k
		c.err = err
	}
	if n > 0 {
		return n, nil
	}
	return 0, c.err
}

// read reads from one file. What it returns was read before the file's state was looked at, or
// the file is longer than that.
func (c *treeContent) read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	if c.off >= c.end {
		return 0, io.EOF
	}
	if c.src == nil && c.kept == nil || c.off >= c.rec.at+c.rec.size {
		if err := c.advance(); err != nil {
			return 0, err
		}
	}
	if c.kept != nil {
		n := copy(p[:min(int64(len(p)), c.end-c.off)], c.kept[c.off-c.rec.at:])
		c.off += int64(n)
		return n, nil
	}
	left := min(c.end, c.rec.at+c.rec.size) - c.off
	p = p[:min(int64(len(p)), left, PieceSize)]
	n, err := c.src.f.ReadAt(p, c.off-c.rec.at)
	c.unproved += int64(n)
	short := n < len(p)
	if int64(n) == left || short || c.unproved >= PieceSize {
		c.unproved = 0
		if serr := c.src.check(); serr != nil {
			return 0, c.changed(serr)
		}
	}
	if short {
		if errors.Is(err, io.EOF) {
			return 0, c.changed(nil)
		}
		return 0, local(err, "reading %.300q", c.path)
	}
	c.off += int64(n)
	return n, nil
}

func (c *treeContent) changed(err error) error {
	if err != nil && codeOf(err) != api.SourceChanged {
		return err
	}
	return fail(api.SourceChanged, err, "%.300q changed since it was hashed", c.path)
}

// advance opens the file that has the next byte.
func (c *treeContent) advance() error {
	c.drop()
	for {
		if err := c.record(); err != nil {
			return err
		}
		if c.rec.at+c.rec.size > c.off {
			break
		}
	}
	if c.kept = c.x.kept.take(c.next - 1); c.kept != nil {
		return nil
	}
	var err error
	if c.path, err = c.lines.pathOf(c.rec.off); err != nil {
		return local(err, "reading the spool")
	}
	c.src, err = c.dirs.openSame(c.path, &c.rec)
	return err
}

// record reads the next record, many with one system call.
func (c *treeContent) record() error {
	if len(c.recs) < recordSize {
		buf := make([]byte, 256*recordSize)
		n, err := c.x.spool.files.ReadAt(buf, c.next*recordSize)
		if err != nil && !errors.Is(err, io.EOF) || n < recordSize {
			return local(errors.Join(errors.New("a record is not there"), err), "reading the spool")
		}
		c.recs = buf[:n]
	}
	if !c.rec.parse(c.recs) {
		return local(errors.New("a record is torn"), "reading the spool")
	}
	c.recs = c.recs[recordSize:]
	c.next++
	return nil
}

func (c *treeContent) drop() {
	c.kept = nil
	if c.src != nil {
		c.src.f.Close()
		c.src = nil
	}
}

// Close releases what is open.
func (c *treeContent) Close() error {
	c.drop()
	c.dirs.close()
	return nil
}
