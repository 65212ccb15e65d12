package transfer

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"sync"
)

// links finds the first name of a file that has several, by device and inode. It is a table
// in a file, because a tree may have more of them than memory is for. It is made
// anew at each start. May be used concurrently.
type links struct {
	mu    sync.Mutex
	path  string
	f     *os.File
	slots uint64 // a power of two
	used  uint64
}

// A slot: device, inode, value + 1; 0 is free.
const (
	linkSlot  = 24
	linkSlots = 1 << 12 // of a new table
)

func openLinks(path string) (*links, error) {
	l := &links{path: path}
	return l, l.make(linkSlots)
}

// make begins an empty table.
func (l *links) make(slots uint64) error {
	f, err := os.OpenFile(l.path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err == nil {
		err = os.Remove(l.path) // nobody looks for it after a crash
	}
	if err != nil {
		return fmt.Errorf("making the table of links: %w", err)
	}
	l.f, l.slots, l.used = f, slots, 0
	return nil
}

// find returns the value of a key, and the slot where it is or would be.
func (l *links) find(dev, ino uint64) (value int64, at uint64, err error) {
	for at = mix(ino+dev*0x9e3779b97f4a7c15) & (l.slots - 1); ; at = (at + 1) & (l.slots - 1) {
		var b [linkSlot]byte
		if _, err := l.f.ReadAt(b[:], int64(at*linkSlot)); err != nil && err != io.EOF {
			return -1, 0, fmt.Errorf("reading the table of links: %w", err)
		}
		v := int64(binary.LittleEndian.Uint64(b[16:]))
		if v == 0 || binary.LittleEndian.Uint64(b[:]) == dev && binary.LittleEndian.Uint64(b[8:]) == ino {
			return v - 1, at, nil
		}
	}
}

// mix spreads keys over the table (the finalizer of MurmurHash3). Inodes come in dense rows: unmixed, rows that
// fall onto each other are searched from end to end.
func mix(x uint64) uint64 {
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// get returns the value of a key, -1 when it has none.
func (l *links) get(dev, ino uint64) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v, _, err := l.find(dev, ino)
	return v, err
}

// put gives a key a value of at least 0.
func (l *links) put(dev, ino uint64, value int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.used >= l.slots/2 {
		if err := l.grow(); err != nil {
			return err
		}
	}
	return l.set(dev, ino, value)
}

func (l *links) set(dev, ino uint64, value int64) error {
	old, at, err := l.find(dev, ino)
	if err != nil {
		return err
	}
	if old < 0 {
		l.used++
	}
	var b [linkSlot]byte
	binary.LittleEndian.PutUint64(b[:], dev)
	binary.LittleEndian.PutUint64(b[8:], ino)
	binary.LittleEndian.PutUint64(b[16:], uint64(value+1))
	if _, err := l.f.WriteAt(b[:], int64(at*linkSlot)); err != nil {
		return fmt.Errorf("writing the table of links: %w", err)
	}
	return nil
}

// grow makes a table of twice the length.
func (l *links) grow() error {
	old, slots := l.f, l.slots
	defer old.Close()
	if err := l.make(2 * slots); err != nil {
		return err
	}
	block := make([]byte, linkSlots*linkSlot)
	for at := uint64(0); at < slots; at += linkSlots {
		n, err := old.ReadAt(block, int64(at*linkSlot))
		if err != nil && err != io.EOF {
			return fmt.Errorf("reading the table of links: %w", err)
		}
		for b := block[:n]; len(b) >= linkSlot; b = b[linkSlot:] {
			if v := int64(binary.LittleEndian.Uint64(b[16:])); v != 0 {
				if err := l.set(binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:]), v-1); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (l *links) close() error { return l.f.Close() }
