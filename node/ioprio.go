package node

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"gantry/config"

	"golang.org/x/sys/unix"
)

// Of linux/ioprio.h: a priority is a class and, in its lower 13 bits, a level.
const (
	ioprioWhoProcess = 1 // one thread, in spite of its name
	ioprioShift      = 13
	ioprioBestEffort = 2<<ioprioShift | 7 // the lowest of eight levels
	ioprioIdle       = 3 << ioprioShift
)

// setIOPriority gives the whole process a class of disk priority. The kernel
// keeps it by thread, and a goroutine runs on any thread, so there is no such
// thing as the priority of a task. Threads that are made later inherit it; so
// all that exist get it, until a look at them finds no new one.
func setIOPriority(class string) error {
	var priority uintptr
	switch class {
	case config.IOIdle:
		priority = ioprioIdle
	case config.IOBestEffort:
		priority = ioprioBestEffort
	default:
		return nil // what the service manager gave
	}
	done := map[string]bool{}
	for {
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("setting limits.io_priority: %w", err)
		}
		before := len(done)
		for _, thread := range threads {
			tid, err := strconv.Atoi(thread.Name())
			if err != nil || done[thread.Name()] {
				continue
			}
			_, _, errno := unix.Syscall(unix.SYS_IOPRIO_SET, ioprioWhoProcess, uintptr(tid), priority)
			if errno != 0 && !errors.Is(errno, unix.ESRCH) {
				return fmt.Errorf("setting limits.io_priority to %s: %w", class, errno)
			}
			done[thread.Name()] = true
		}
		if len(done) == before {
			return nil
		}
	}
}
