package transfer

import (
	"context"
	"errors"
	"io"
)

// content reads a range; the state of the source is looked at once per piece.
type content struct {
	ctx          context.Context
	x            *Export
	off, end     int64
	sinceChecked int64
}

// Read reads at most what is left of the range.
func (c *content) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	if c.off >= c.end {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), c.end-c.off)]
	n, err := c.x.src.f.ReadAt(p, c.off)
	c.off += int64(n)
	c.sinceChecked += int64(n)
	if c.off >= c.end || c.sinceChecked >= PieceSize || err != nil {
		c.sinceChecked = 0
		if err := c.x.src.check(); err != nil {
			return 0, c.x.broken(err)
		}
	}
	if errors.Is(err, io.EOF) && c.off >= c.end {
		err = nil
	}
	if err != nil {
		return n, local(err, "reading the source")
	}
	return n, nil
}

// Close does nothing: the file belongs to the export.
func (c *content) Close() error { return nil }
