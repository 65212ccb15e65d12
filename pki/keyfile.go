package pki

import (
	"fmt"
	"io"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// ReadSecret reads a key or token file of at most MaxPEM bytes. A file that
// group or others may read, or that belongs to somebody other than this
// process's user or root, is refused: whoever can read it can be us, whoever
// owns it can replace it. The error says the command that mends it.
func ReadSecret(path string) ([]byte, error) {
	f, err := openFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading secret: %w", err)
	}
	defer f.Close()
	// Judged on the descriptor: the file that was checked is the one read.
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("reading secret: %w", err)
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return nil, fmt.Errorf("%s is readable or writable by group or others (mode %04o); run: chmod 600 %s", path, perm, path)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid != 0 && int(stat.Uid) != os.Geteuid() {
		return nil, notOurs(path, stat.Uid)
	}
	data, err := readFile(f, MaxPEM)
	if err != nil {
		return nil, fmt.Errorf("reading secret: %w", err)
	}
	return data, nil
}

// notOurs is the error of a file of another user. Root gets no advice to take it:
// its owner could not read it any more.
func notOurs(path string, owner uint32) error {
	as := fmt.Sprintf("setpriv --reuid %d --clear-groups", owner)
	name := fmt.Sprintf("uid %d", owner)
	if u, err := user.LookupId(strconv.FormatUint(uint64(owner), 10)); err == nil {
		as = "runuser -u " + u.Username + " --"
		name += " (" + u.Username + ")"
	}
	if os.Geteuid() == 0 {
		return fmt.Errorf("%s belongs to %s and is read by nobody else, this program runs as root; run it as that user: %s COMMAND", path, name, as)
	}
	return fmt.Errorf("%s belongs to %s, this program runs as uid %d; run: chown %d %s", path, name, os.Geteuid(), os.Geteuid(), path)
}

// openFile opens for reading without waiting for a FIFO's other end.
func openFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}

// readFile reads an open regular file of at most limit bytes. A FIFO or device
// could block for ever or never end.
func readFile(f *os.File, limit int64) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", f.Name())
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is longer than %d bytes", f.Name(), limit)
	}
	return data, nil
}
