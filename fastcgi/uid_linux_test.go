package fastcgi_test

import (
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// connectAs connects a socket with the effective uid of one thread, which is
// given up afterwards.
func connectAs(uid int, fd int, path string) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
			result <- errno
			return
		}
		result <- syscall.Connect(fd, &syscall.SockaddrUnix{Name: path})
	}()
	return <-result
}
