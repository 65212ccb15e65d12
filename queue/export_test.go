package queue

import (
	"bufio"
	"bytes"
	"encoding/binary"
)

// ReadLog looks for damage in a log.
func ReadLog(b []byte) error { return readLog(bufio.NewReader(bytes.NewReader(b))) }

// MakeLog is the log of so many commits of two pages of 512 bytes each.
func MakeLog(commits int, order binary.ByteOrder, salt uint64) []byte {
	put := binary.BigEndian.AppendUint32
	magic := uint32(walMagic)
	if order == binary.BigEndian {
		magic |= 1
	}
	b := put(put(put(put(nil, magic), 3007000), 512), 0)
	b = binary.BigEndian.AppendUint64(b, salt)
	var state [2]uint32
	checksum(&state, order, b)
	b = put(put(b, state[0]), state[1])
	for n := range 2 * commits {
		head := put(put(nil, uint32(n+1)), uint32(n%2*9))
		page := bytes.Repeat([]byte{byte(n)}, 512)
		checksum(&state, order, head)
		checksum(&state, order, page)
		b = binary.BigEndian.AppendUint64(append(b, head...), salt)
		b = append(put(put(b, state[0]), state[1]), page...)
	}
	return b
}
