package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// CreateFile makes a file of a node's resource, which belongs to the node's
// responder, and lets fill write it. Call it before the servers start: root
// must not follow names in a folder that somebody else can change.
func (c *Cluster) CreateFile(node, name string, fill func(*os.File) error) error {
	path := c.Path(node, name)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("making %s: %w", path, err)
	}
	err = errors.Join(fill(f), f.Close())
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	// Readable by all: where the front sends the file itself, its uid reads it.
	return c.give(path, 0o644, c.users.responder, c.users.responder)
}

// Room refuses a size that does not fit twice, once for each node.
func (c *Cluster) Room(size int64) error {
	left, err := free(c.dir)
	if err != nil {
		return fmt.Errorf("asking for free space: %w", err)
	}
	if left < 2*size {
		return fmt.Errorf("%s has %d MiB free, and two copies need %d MiB; use a smaller --size, or another --dir", c.dir, left>>20, 2*size>>20)
	}
	return nil
}

// Random returns size bytes that follow from seed. No 4 KiB block of them is
// zero, or equals another.
func Random(seed uint64, size int64) io.Reader {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	return io.LimitReader(rand.NewChaCha8(key), size)
}

// FillFrom copies the data of a file, holes as holes, until ctx ends.
func FillFrom(ctx context.Context, src *os.File) func(*os.File) error {
	return func(dst *os.File) error {
		info, err := src.Stat()
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s is not a regular file", filepath.Base(src.Name()))
		}
		// A reflink where the file system can.
		if unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) == nil {
			return nil
		}
		size := info.Size()
		for at := int64(0); at < size; {
			data, err := unix.Seek(int(src.Fd()), at, unix.SEEK_DATA)
			if err == unix.ENXIO {
				break // nothing but a hole until the end
			}
			end := size
			if err == nil {
				if end, err = unix.Seek(int(src.Fd()), data, unix.SEEK_HOLE); err != nil {
					return err
				}
			} else {
				data = at // no holes known on this file system
			}
			if err := copyRange(ctx, dst, src, data, min(end, size)); err != nil {
				return err
			}
			at = end
		}
		return dst.Truncate(size)
	}
}

// copyRange copies the bytes from start to end to the same place in dst.
func copyRange(ctx context.Context, dst, src *os.File, start, end int64) error {
	const step = 16 << 20 // how often ctx is asked
	for at := start; at < end; at += step {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := dst.Seek(at, io.SeekStart); err != nil {
			return err
		}
		if _, err := src.Seek(at, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.CopyN(dst, src, min(step, end-at)); err != nil {
			return err
		}
	}
	return nil
}

// Fill copies everything from src until ctx ends.
func Fill(ctx context.Context, dst *os.File, src io.Reader) error {
	const step = 16 << 20 // how often ctx is asked
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := io.CopyN(dst, src, step); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}
