package transfer

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// directAlign is what O_DIRECT asks of address, offset and length of a write:
// no disk has greater logical blocks. Pieces begin at multiples of it, and so
// do buffers of their size, in practice; it is looked at all the same.
const directAlign = 4096

// openDirect opens a file once more, to read or write past the page cache: writes
// cost a third of the time, and do not push the machine's other files out of
// memory. Nil where the file system cannot, or /proc is not there.
func openDirect(f *os.File, how int) *os.File {
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), how|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(fd), f.Name())
}

// writeAt writes buf, past the page cache where that is possible. The kernel
// keeps both ways coherent, and no two writes of a stage overlap in time.
func (s *stage) writeAt(buf []byte, off int64) (direct bool, err error) {
	if s.direct != nil && !s.indirect.Load() && aligned(buf) {
		_, err := s.direct.WriteAt(buf, off)
		if !errors.Is(err, syscall.EINVAL) {
			return true, err
		}
		s.indirect.Store(true) // the file system wants more than we know of
	}
	s.through.Lock()
	defer s.through.Unlock()
	_, err = s.f.WriteAt(buf, off)
	return false, err
}

func aligned(buf []byte) bool {
	return len(buf) > 0 && len(buf)%directAlign == 0 && uintptr(unsafe.Pointer(unsafe.SliceData(buf)))%directAlign == 0
}
