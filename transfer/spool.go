package transfer

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// Room of a stream's spool in bytes.
const (
	DefaultSpool = 1 << 30
	MinSpool     = 64 << 20
)

// spool keeps the latest pieces of a stream in a file of bounded size, as a ring:
// piece n lies where piece n - pieces lay. The file has no name, so that whatever
// ends the process gives its room back.
type spool struct {
	f      *os.File
	pieces int64

	mu    sync.RWMutex
	first int64 // the oldest piece that is still whole
}

// openSpool makes a spool of room bytes in dir.
func openSpool(dir string, room int64) (*spool, error) {
	f, err := nameless(filepath.Join(dir, "content.spool"))
	if err != nil {
		return nil, err
	}
	return &spool{f: f, pieces: room / PieceSize}, nil
}

// nameless makes a file and takes its name away.
func nameless(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("making a spool: %w", err)
	}
	if err := os.Remove(path); err != nil {
		f.Close()
		return nil, fmt.Errorf("making a spool: %w", err)
	}
	return f, nil
}

// put keeps piece n, and gives up the one whose place it takes.
func (s *spool) put(n int64, buf []byte) error {
	s.mu.Lock()
	s.first = max(s.first, n-s.pieces+1)
	s.mu.Unlock()
	if _, err := s.f.WriteAt(buf, n%s.pieces*PieceSize); err != nil {
		return local(err, "writing to the spool")
	}
	return nil
}

// readAt reads bytes of one piece; ok is false when they were given up, also
// meanwhile.
func (s *spool) readAt(buf []byte, off int64) (ok bool, err error) {
	n := off / PieceSize
	if s.gone(n) {
		return false, nil
	}
	_, err = s.f.ReadAt(buf, n%s.pieces*PieceSize+off%PieceSize)
	if s.gone(n) {
		return false, nil
	}
	if err != nil && err != io.EOF {
		return false, local(err, "reading the spool")
	}
	return err == nil, local(err, "reading the spool")
}

func (s *spool) gone(n int64) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return n < s.first
}

// forget gives back the room of pieces from to to, which nobody asks for again.
func (s *spool) forget(from, to int64) {
	s.mu.Lock()
	s.first = max(s.first, to)
	s.mu.Unlock()
	for n := max(from, to-s.pieces); n < to; n++ {
		// Where the file system cannot, the room is used again later.
		_ = unix.Fallocate(int(s.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, n%s.pieces*PieceSize, PieceSize)
	}
}

func (s *spool) close() error { return s.f.Close() }
