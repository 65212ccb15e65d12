package transfer

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
)

// MovesMemory writes n records to path and returns how much the heap grows by their index.
func MovesMemory(path string, n int) (uint64, error) {
	f, err := os.Create(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	for i := range n {
		k := lookRecord{path: fmt.Sprintf("some/where/%08d", i), look: oldFile{ino: uint64(i), size: 1 + int64(i)}}
		binary.BigEndian.PutUint64(k.digest[:], mix(uint64(i)))
		w.Write(k.append(nil))
	}
	if err := w.Flush(); err != nil {
		return 0, err
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	known := openLooks(path)
	defer known.close()
	m := openMoves(known)
	runtime.GC()
	runtime.ReadMemStats(&after)
	for i := range n {
		found := false
		m.each(m.digests, mix(uint64(i)), func(k lookRecord, off int64) bool {
			found = k.look.ino == uint64(i)
			return !found
		})
		if !found {
			return 0, fmt.Errorf("record %d is not found", i)
		}
		if i += 9; i > 3000 {
			break
		}
	}
	runtime.KeepAlive(m)
	return after.HeapAlloc - min(after.HeapAlloc, before.HeapAlloc), nil
}
