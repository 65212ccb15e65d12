package queue

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// lockSuffix makes the name of the lock file, which lies beside the store and
// stays there. SQLite's own locks come and go with its transactions.
const lockSuffix = ".lock"

// lock makes this process the only one that writes to the store at path. The
// lock goes with the returned file, and with the process.
func lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path+lockSuffix, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the store: %w", err)
	}
	for {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != unix.EINTR {
			break
		}
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("%w: %s is held by %s", ErrLocked, path, holder(f))
	} else if err == nil {
		err = sign(f)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// idle says whether nobody has the store at path open just now.
func idle(path string) bool {
	f, err := os.Open(path + lockSuffix)
	if err != nil {
		return true // no store of this name was ever opened
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) == nil
}

// sign writes down who holds the lock, for whoever is refused.
func sign(f *os.File) error {
	text := fmt.Sprintf("process %d since %s\n", os.Getpid(), time.Now().UTC().Format(time.RFC3339))
	if err := f.Truncate(0); err != nil {
		return fmt.Errorf("locking the store: %w", err)
	}
	if _, err := f.WriteAt([]byte(text), 0); err != nil {
		return fmt.Errorf("locking the store: %w", err)
	}
	return nil
}

// holder reads who holds the lock.
func holder(f *os.File) string {
	b, err := io.ReadAll(io.LimitReader(f, 100))
	if text := strings.TrimSpace(string(b)); err == nil && text != "" {
		return text
	}
	return "a process that did not say who it is"
}
