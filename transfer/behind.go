package transfer

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// behindLen is how many bytes written through the page cache may be on their way
// to the disk before the writer waits for the oldest.
const behindLen = 32 << 20

// A behind follows the writers of a file through the page cache: it starts the way
// of each range to the disk at once, and gives the memory of those back that have
// arrived. So a copy goes through a few megabytes again and again, where it else
// takes fresh ones, which costs more than the writing (on a virtual machine each
// has to come from the host), and pushes the machine's other files out of memory;
// and the last sync finds little to do.
type behind struct {
	// wait is a description of its own: an error of the disk is reported to each
	// once, and the stage's own must still be told of it by its sync. Nil where
	// there is none; then nothing is waited for.
	wait *os.File

	mu     sync.Mutex
	queue  []Range // oldest first
	length int64   // of all in queue
}

// openBehind opens f once more.
func openBehind(f *os.File) *behind {
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &behind{}
	}
	return &behind{wait: os.NewFile(uintptr(fd), f.Name())}
}

// wrote is told that a range of f was written, and may wait for earlier ones. An
// error is one of the disk: nobody can tell what of f it has. Calls may be
// concurrent.
func (b *behind) wrote(f *os.File, r Range) error {
	if b.wait != nil {
		f = b.wait
	}
	err := syncRange(f, r, unix.SYNC_FILE_RANGE_WRITE)
	for _, r := range b.due(r) {
		if err == nil {
			err = syncRange(f, r, unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
		}
		if err == nil {
			_ = unix.Fadvise(int(f.Fd()), r.At, r.Len, unix.FADV_DONTNEED) // only advice
		}
	}
	return err
}

// due adds r to the queue and takes out what is too much.
func (b *behind) due(r Range) (due []Range) {
	if b.wait == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.queue, b.length = append(b.queue, r), b.length+r.Len
	for b.length > behindLen {
		due = append(due, b.queue[0])
		b.length -= b.queue[0].Len
		b.queue = b.queue[1:]
	}
	return due
}

func (b *behind) close() {
	if b != nil && b.wait != nil {
		b.wait.Close()
	}
}

// syncRange is sync_file_range(2), which some file systems do not have.
func syncRange(f *os.File, r Range, how int) error {
	err := unix.SyncFileRange(int(f.Fd()), r.At, r.Len, how)
	if errors.Is(err, syscall.ENOSYS) || errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ESPIPE) {
		return nil
	}
	return err
}
