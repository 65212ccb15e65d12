package transfer

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// hugePage is the size of a large page of memory; where there are none of this
// size, buffers are ordinary ones.
const hugePage = 2 << 20

// pieceBuffer returns room for a piece, in large pages if the kernel has some: a
// write past the page cache then names two ranges of memory to the disk instead of
// a thousand. The caller gives it back when nobody reads or writes it any more.
func pieceBuffer() (buf []byte, free func()) {
	m, err := unix.Mmap(-1, 0, PieceSize+hugePage, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return make([]byte, PieceSize), func() {}
	}
	at := -uintptr(unsafe.Pointer(unsafe.SliceData(m))) % hugePage
	buf = m[at : at+PieceSize : at+PieceSize]
	_ = unix.Madvise(buf, unix.MADV_HUGEPAGE) // only advice
	return buf, func() { _ = unix.Munmap(m) }
}
