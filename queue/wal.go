package queue

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The log beside the store has what was committed since it was last folded in: a
// header of 32 bytes, then frames of 24 bytes and a page each
// (https://www.sqlite.org/fileformat2.html#the_write_ahead_log). SQLite takes the
// first frame with a wrong checksum for the end of the log. That is right for what
// a crash tore. It would silently lose what was acknowledged where a disk turned
// a bit in the middle.
const (
	walHeader   = 32
	frameHeader = 24
	maxPageSize = 64 << 10
	walMagic    = 0x377f0682 // the last bit says in which order checksums read bytes
)

// readLog looks for damage in a log. Each commit is synced before the next
// begins, so a crash tears the last one: further commits of the same log behind a
// bad frame were acknowledged.
func readLog(in *bufio.Reader) error {
	var head [walHeader]byte
	if _, err := io.ReadFull(in, head[:]); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil // it was never begun
	} else if err != nil {
		return err
	}
	var order binary.ByteOrder = binary.LittleEndian
	if head[3]&1 == 1 {
		order = binary.BigEndian
	}
	state := [2]uint32{}
	checksum(&state, order, head[:24])
	size := binary.BigEndian.Uint32(head[8:])
	if binary.BigEndian.Uint32(head[:])&^1 != walMagic || state != pair(head[24:]) || size < 512 || size > maxPageSize {
		if _, err := in.ReadByte(); err == io.EOF {
			return nil // a crash tore it
		}
		return fmt.Errorf("%w: its log does not begin like one", ErrDamaged) // the header is synced before a frame follows
	}
	return frames(in, head, int(size), order, state)
}

// frames reads the frames behind the header of a log.
func frames(in io.Reader, head [walHeader]byte, size int, order binary.ByteOrder, state [2]uint32) error {
	frame := make([]byte, frameHeader+size)
	bad := 0 // the first frame that is not sound, from 1
	for n, behind := 1, 0; ; n++ {
		if _, err := io.ReadFull(in, frame); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		} else if err != nil {
			return err
		}
		same := string(frame[8:16]) == string(head[16:24]) // the salts: of this log, not of one before
		if bad == 0 {
			checksum(&state, order, frame[:8])
			checksum(&state, order, frame[frameHeader:])
			if !same || state != pair(frame[16:]) {
				bad = n
			}
		}
		if commit := binary.BigEndian.Uint32(frame[4:]) != 0; bad != 0 && same && commit {
			if behind++; behind > 1 {
				return fmt.Errorf("%w: frame %d of its log is not what was written, and acknowledged commits follow", ErrDamaged, bad)
			}
		}
	}
}

func pair(b []byte) [2]uint32 {
	return [2]uint32{binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])}
}

// checksum goes on with the log's running checksum.
func checksum(s *[2]uint32, order binary.ByteOrder, b []byte) {
	for i := 0; i+8 <= len(b); i += 8 {
		s[0] += order.Uint32(b[i:]) + s[1]
		s[1] += order.Uint32(b[i+4:]) + s[0]
	}
}
