package transfer

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"gantry/internal/atomicfile"
	"gantry/internal/failpoint"

	"golang.org/x/sys/unix"
)

// op asks the test's hook whether the next operation may happen.
func (s *stage) op(name string) error {
	if s.hook == nil {
		return nil
	}
	return s.hook(name)
}

// write puts a proved piece in its place and starts its way to the disk, so that
// the last sync finds little to do. Pieces may be written at the same time.
func (s *stage) write(e Entry, buf []byte) error {
	err := failpoint.Hit("transfer.piece.write")
	if err == nil {
		err = s.op("write")
	}
	direct := false
	if err == nil {
		direct, err = s.writeAt(buf, e.N*PieceSize)
	}
	if err == nil {
		err = failpoint.HitAfter("transfer.piece.write")
	}
	if err != nil || direct {
		return local(err, "writing piece %d", e.N)
	}
	if err := s.behind.wrote(s.f, Range{e.N * PieceSize, int64(len(buf))}); err != nil {
		return local(s.spoil(err), "writing piece %d", e.N)
	}
	return nil
}

// note remembers that piece e is in the stage, and extends the map when that is
// due.
func (s *stage) note(dir string, e Entry) error {
	s.mu.Lock()
	s.fresh = append(s.fresh, e)
	due := len(s.fresh) >= s.mapEvery() || time.Since(s.since) >= mapTime
	s.mu.Unlock()
	if !due || !s.sync.TryLock() {
		return nil
	}
	defer s.sync.Unlock()
	return s.extend(dir)
}

// mapEvery is how many pieces are written between two extensions of the map. The
// source of a stream waits for them: its room is bounded.
func (s *stage) mapEvery() int {
	if s.Size < 0 {
		return streamMapBytes / PieceSize
	}
	return mapBytes / PieceSize
}

// checkpoint extends the map by everything written.
func (s *stage) checkpoint(dir string) error {
	s.sync.Lock()
	defer s.sync.Unlock()
	return s.extend(dir)
}

// extend makes what was written durable, then says so in the map. sync is held.
func (s *stage) extend(dir string) error {
	s.mu.Lock()
	fresh := s.fresh
	s.fresh, s.since = nil, time.Now()
	s.mu.Unlock()
	if len(fresh) == 0 {
		return nil
	}
	err := s.op("fdatasync")
	if err == nil {
		err = atomicfile.Datasync(s.f, "transfer.map.stagesync")
	}
	if err != nil {
		return local(s.spoil(err), "syncing the stage")
	}
	err = failpoint.Hit("transfer.map.write")
	for _, e := range fresh {
		if err == nil {
			err = s.known.put(e.N, e.Value, slotData)
		}
	}
	if err == nil {
		err = failpoint.HitAfter("transfer.map.write")
	}
	if err == nil {
		err = atomicfile.Datasync(s.known.f, "transfer.map.sync")
	}
	if err != nil {
		return local(err, "extending the piece map")
	}
	if s.durable != nil {
		s.durable(fresh...)
	}
	s.sum().write(dir)
	return nil
}

// spoil remembers that nothing of the stage can be trusted. After a failed sync
// its pages may be neither on disk nor marked as unwritten any more, and no later
// sync can be believed.
func (s *stage) spoil(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spoilt = true
	return err
}

func (s *stage) isSpoilt() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.spoilt
}

// has says whether the map lists piece e with its value. A map that lists it
// with another one is of another state of the source; it is forgotten before the
// first of its pieces is overwritten, or a later run against the older state
// would trust it.
func (s *stage) has(e Entry) (bool, error) {
	if !s.resumed {
		return false, nil
	}
	v, state, err := s.known.get(e.N)
	switch {
	case err != nil:
		return false, local(err, "reading the piece map")
	case state == slotData && !e.Zero && v == e.Value:
		return true, nil
	case state != slotUnknown:
		return false, s.forget()
	}
	return false, nil
}

// forget empties the map, durably. Pieces of this run that it loses are hashed
// again if there is a next run.
func (s *stage) forget() error {
	err := s.known.f.Truncate(0)
	if err == nil {
		err = atomicfile.Datasync(s.known.f, "transfer.map.forget")
	}
	return local(err, "emptying the piece map")
}

// read reads what the stage has in place of piece n; ok is false for a hole.
func (s *stage) read(n int64, buf []byte) (ok bool, err error) {
	off := n * PieceSize
	next, err := seek(s.f, off, unix.SEEK_DATA)
	if errors.Is(err, syscall.ENXIO) || err == nil && next >= off+int64(len(buf)) {
		return false, nil
	}
	if err := s.op("read"); err != nil {
		return false, local(err, "reading the stage")
	}
	_, err = s.f.ReadAt(buf, off)
	if s.Size < 0 && errors.Is(err, io.EOF) {
		return false, nil // the stage of a stream ends where its writers were stopped
	}
	return err == nil, local(err, "reading the stage")
}

// clear makes the pieces of e a hole; a resumed stage may hold the bytes of
// another state of the source there.
func (s *stage) clear(e part) error {
	off, length := e.off(), e.len()
	if !s.resumed || length == 0 {
		return nil
	}
	for n := e.N; n < e.N+e.Count; n++ {
		if _, err := s.has(Entry{N: n, Count: 1, Zero: true}); err != nil {
			return err
		}
	}
	next, err := seek(s.f, off, unix.SEEK_DATA)
	if errors.Is(err, syscall.ENXIO) || err == nil && next >= off+length {
		return nil
	}
	err = s.op("punch")
	if err == nil {
		err = unix.Fallocate(int(s.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, length)
	}
	if errors.Is(err, syscall.EOPNOTSUPP) {
		err = s.zero(off, length)
	}
	return local(err, "clearing pieces from %d", e.N)
}

// zero writes zeros where the file system cannot punch holes.
func (s *stage) zero(off, length int64) error {
	for length > 0 {
		n := min(length, int64(len(zeros)))
		if _, err := s.f.WriteAt(zeros[:n], off); err != nil {
			return err
		}
		off, length = off+n, length-n
	}
	return nil
}

// discard removes the stage, if it is still the recorded file, and all records
// of it. The record goes last: what it names is gone then.
func (s *stage) discard(stages *os.File, dir string) error {
	if err := s.staged.remove(stages); err != nil {
		return err
	}
	for _, name := range []string{pieceMap, countersRecord, resultRecord, stageRecord} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return local(err, "removing the records of the stage")
		}
	}
	return nil
}

// remove unlinks the recorded stage.
func (rec staged) remove(stages *os.File) error {
	f, err := rec.open(stages)
	if err != nil || f == nil {
		return err
	}
	f.Close()
	err = unix.Unlinkat(int(stages.Fd()), rec.Name, 0)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return local(err, "removing the stage")
	}
	return nil
}

func (s *stage) close() {
	if s.f != nil {
		s.f.Close()
	}
	if s.direct != nil {
		s.direct.Close()
	}
	s.behind.close()
	if s.known != nil {
		s.known.close()
	}
}
