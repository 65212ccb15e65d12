package selftest

import (
	"errors"
	"io"
)

// Content is bytes that a receiver can check without having them: Byte of
// their offset. It reads and seeks like a file.
type Content struct{ at, size int64 }

// NewContent returns the first size bytes.
func NewContent(size int64) *Content { return &Content{size: size} }

// Byte is the content at an offset. Shifted, swapped or repeated parts differ
// from what belongs there.
func Byte(at int64) byte { return byte(at) ^ byte(at>>8)*167 ^ byte(at>>16)*29 }

// Read never fails; it ends with io.EOF.
func (c *Content) Read(p []byte) (int, error) {
	if c.at >= c.size {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), c.size-c.at)]
	for i := range p {
		p[i] = Byte(c.at + int64(i))
	}
	c.at += int64(len(p))
	return len(p), nil
}

// Seek is io.Seeker's.
func (c *Content) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += c.at
	case io.SeekEnd:
		offset += c.size
	}
	if offset < 0 {
		return 0, errors.New("seeking before the start")
	}
	c.at = offset
	return offset, nil
}
