package transfer

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os"
)

// slots is a file of what is known about each piece, one slot of fixed size per
// piece: the exporter's spool of its manifest, and the importer's map of proved
// pieces with the value that each was proved against. A slot that was never
// written, or is torn, is unknown; so memory does not grow with the size of the
// file and a crash costs no more than the slots it tore.
//
// Layout of slot n, at 40 n: value (32), state (1), zero (3), CRC-32C of
// the piece number (8 bytes, little endian) and the 36 bytes before (4).
type slots struct {
	f    *os.File
	base int64 // where slot 0 begins
}

const slotSize = 40

type slotState byte

const (
	slotUnknown slotState = iota
	slotData              // the value is that of data
	slotZero              // the piece is all zero; value is set too
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func openSlots(path string) (*slots, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the piece map: %w", err)
	}
	return &slots{f: f}, nil
}

func slotSum(n int64, b []byte) uint32 {
	var number [8]byte
	binary.LittleEndian.PutUint64(number[:], uint64(n))
	return crc32.Update(crc32.Checksum(number[:], castagnoli), castagnoli, b[:36])
}

// slotBytes is slot n as it is in the file.
func slotBytes(n int64, v Value, state slotState) (b [slotSize]byte) {
	copy(b[:], v[:])
	b[32] = byte(state)
	binary.LittleEndian.PutUint32(b[36:], slotSum(n, b[:]))
	return b
}

// put writes slot n. Different slots may be written at the same time.
func (s *slots) put(n int64, v Value, state slotState) error {
	b := slotBytes(n, v, state)
	if _, err := s.f.WriteAt(b[:], s.base+n*slotSize); err != nil {
		return fmt.Errorf("writing the piece map: %w", err)
	}
	return nil
}

// get reads slot n.
func (s *slots) get(n int64) (v Value, state slotState, err error) {
	var b [slotSize]byte
	if _, err := s.f.ReadAt(b[:], s.base+n*slotSize); err == io.EOF {
		return v, slotUnknown, nil
	} else if err != nil {
		return v, slotUnknown, fmt.Errorf("reading the piece map: %w", err)
	}
	if st := slotState(b[32]); (st == slotData || st == slotZero) && binary.LittleEndian.Uint32(b[36:]) == slotSum(n, b[:]) {
		copy(v[:], b[:])
		return v, st, nil
	}
	return v, slotUnknown, nil
}

func (s *slots) close() error { return s.f.Close() }
