package atomicfile

import (
	"fmt"
	"os"
)

// Appender appends to a file that only ever grows. Append buffers nothing;
// what it wrote is durable when the next Sync returns nil. After a failed
// write or sync the state on disk is unknown, so the error sticks: every later
// call returns it. Not safe for concurrent use.
type Appender struct {
	f     *os.File
	point string
	size  int64
	err   error
}

// OpenAppender opens path for appending, creating it with perm. A file that it
// created is durable by name only after SyncDir. The failpoints are
// point + .write and .sync.
func OpenAppender(path string, perm os.FileMode, point string) (*Appender, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, perm)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	return &Appender{f: f, point: point, size: info.Size()}, nil
}

// Append writes p at the end.
func (a *Appender) Append(p []byte) error {
	if a.err != nil {
		return a.err
	}
	err := step(a.point+".write", func() error {
		n, err := a.f.Write(p)
		a.size += int64(n)
		return err
	})
	if err != nil {
		a.err = fmt.Errorf("appending to %s: %w", a.f.Name(), err)
	}
	return a.err
}

// Sync makes everything appended so far durable.
func (a *Appender) Sync() error {
	if a.err != nil {
		return a.err
	}
	a.err = Datasync(a.f, a.point+".sync")
	return a.err
}

// Size is the file's length in bytes, with what was appended.
func (a *Appender) Size() int64 { return a.size }

// Err is the error that stuck, or nil.
func (a *Appender) Err() error { return a.err }

// Close closes the file without syncing it.
func (a *Appender) Close() error { return a.f.Close() }
