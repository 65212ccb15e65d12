package queue

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"time"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sum is the CRC-32C of a row: SQLite proves its pages' structure, not what is
// in them, and a disk that turned a bit must not be believed.
func sum(values ...any) int64 {
	var space [1024]byte
	b := space[:0]
	for _, v := range values {
		switch v := v.(type) {
		case int64:
			b = binary.BigEndian.AppendUint64(b, uint64(v))
		case string:
			b = append(binary.AppendUvarint(b, uint64(len(v))), v...)
		case []byte:
			b = append(binary.AppendUvarint(b, uint64(len(v))), v...)
		default:
			panic(fmt.Sprintf("queue: sum of %T", v))
		}
	}
	return int64(crc32.Checksum(b, castagnoli))
}

// micros is a time as it is stored; 0 for the zero time.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// moment is the time that micros stored.
func moment(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMicro(n).UTC()
}
