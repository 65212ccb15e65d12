package transfer

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Cache is a folder of what was computed and can be computed again: the values
// of the pieces of files, by the state that the file was in, and those of zero
// pieces. Nothing in it is durable: every entry is checked by its sums when it
// is read, and one that is torn, damaged or of another version counts as absent.
// Its methods may be called concurrently. A nil *Cache is one that keeps nothing.
//
// An entry tells of a file by device, inode, birth time, size, mtime and ctime.
// Whoever believes it believes that a file with all of these unchanged has the
// same bytes. Programs that write through a mapping, a disk that changes bytes
// by itself, and a clock that was set back can break that; so it is believed only
// where somebody asked for it (trust_mtime).
type Cache struct {
	dir   string
	max   int64
	age   time.Duration // settleTime, less in tests
	zeros *slots

	mu sync.Mutex // one entry is made at a time
}

const (
	cacheVersion = 1
	// cacheHeader is the first part of an entry: JSON and spaces.
	cacheHeader = 512
	cacheNew    = "new-"
	cacheSuffix = ".values"
	zeroTable   = "zeros.v1"
)

// settleTime is how long before now a file must have been written last: two
// writes within one tick of the file system's clock have the same time.
const settleTime = 2 * time.Second

// cached is the header of an entry: the state of the file.
type cached struct {
	V      int       `json:"v"`
	Dev    uint64    `json:"dev"`
	Ino    uint64    `json:"ino"`
	Btime  time.Time `json:"btime"`
	Size   int64     `json:"size"`
	MTime  time.Time `json:"mtime"`
	CTime  time.Time `json:"ctime"`
	Pieces int64     `json:"pieces"`
}

// OpenCache opens the cache in dir, making the folder when it is not there.
// Entries take at most limit bytes (40 for each piece of 4 MiB); the oldest go
// first. The values of zero pieces take up to 160 MiB more.
func OpenCache(dir string, limit int64) (*Cache, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the cache: %w", err)
	}
	left, err := filepath.Glob(filepath.Join(dir, cacheNew+"*"))
	for _, path := range left { // of a crash
		err = errors.Join(err, os.Remove(path))
	}
	c := &Cache{dir: dir, max: limit, age: settleTime}
	if err == nil {
		c.zeros, err = openSlots(filepath.Join(dir, zeroTable))
	}
	if err != nil {
		return nil, fmt.Errorf("opening the cache: %w", err)
	}
	return c, nil
}

// Close releases the cache. What uses it afterwards finds nothing in it.
func (c *Cache) Close() error {
	if c == nil {
		return nil
	}
	return c.zeros.close()
}

func (c *Cache) path(id identity) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %d %d", id.dev, id.ino, id.btime.UnixNano()))
	return filepath.Join(c.dir, hex.EncodeToString(sum[:16])+cacheSuffix)
}

func headerOf(id identity) []byte {
	b, err := json.Marshal(cached{cacheVersion, id.dev, id.ino, id.btime, id.size, id.mtime, id.ctime, Pieces(id.size)})
	if err != nil || len(b) >= cacheHeader {
		panic("cache header does not marshal") // numbers and times only
	}
	b = append(b, bytes.Repeat([]byte{' '}, cacheHeader-1-len(b))...)
	return append(b, '\n')
}

// settled says whether whoever writes to a file with these times from now on
// cannot leave them as they are.
func (c *Cache) settled(t ...time.Time) bool {
	if c == nil {
		return false // what nobody keeps
	}
	limit := time.Now().Add(-c.age)
	return !slices.ContainsFunc(t, func(t time.Time) bool { return t.After(limit) })
}

// record keeps the values of a file in state id, which get returns by number. Of
// the times only those that an unseen write would change have to be settled: that
// is the caller's business, see settled.
func (c *Cache) record(id identity, get func(n int64) (Value, slotState, error)) error {
	pieces := Pieces(id.size)
	if c == nil || cacheHeader+pieces*slotSize > c.max {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	f, err := os.CreateTemp(c.dir, cacheNew)
	if err != nil {
		return fmt.Errorf("making an entry of the cache: %w", err)
	}
	err = writeCached(f, id, pieces, get)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), c.path(id)) // not synced on purpose: a torn one is known by its sum
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("making an entry of the cache: %w", err)
	}
	return c.trim()
}

func writeCached(f *os.File, id identity, pieces int64, get func(n int64) (Value, slotState, error)) error {
	sum := sha256.New()
	buf := bufio.NewWriter(f)
	w := io.MultiWriter(buf, sum)
	if _, err := w.Write(headerOf(id)); err != nil {
		return err
	}
	for n := range pieces {
		v, state, err := get(n)
		if err == nil && state == slotUnknown {
			err = fmt.Errorf("piece %d has no value", n)
		}
		if err != nil {
			return err
		}
		slot := slotBytes(n, v, state)
		if _, err := w.Write(slot[:]); err != nil {
			return err
		}
	}
	if _, err := buf.Write(sum.Sum(nil)); err != nil {
		return err
	}
	return buf.Flush()
}

// lookup returns the values of a file in state id, or nil. The caller closes
// them.
func (c *Cache) lookup(id identity) *slots {
	if c == nil {
		return nil
	}
	f, err := os.Open(c.path(id))
	if err != nil {
		return nil
	}
	if !soundCached(f, id) {
		f.Close()
		return nil
	}
	return &slots{f: f, base: cacheHeader}
}

// soundCached says whether f is whole and tells of that state.
func soundCached(f *os.File, id identity) bool {
	length := cacheHeader + Pieces(id.size)*slotSize
	info, err := f.Stat()
	if err != nil || info.Size() != length+sha256.Size {
		return false
	}
	sum := sha256.New()
	r := io.NewSectionReader(f, 0, length)
	header := make([]byte, cacheHeader)
	if _, err := io.ReadFull(r, header); err != nil || !bytes.Equal(header, headerOf(id)) {
		return false
	}
	sum.Write(header)
	if _, err := io.Copy(sum, r); err != nil {
		return false
	}
	stated := make([]byte, sha256.Size)
	_, err = f.ReadAt(stated, length)
	return (err == nil || errors.Is(err, io.EOF)) && bytes.Equal(stated, sum.Sum(nil))
}

// forget drops what is known of the file, in whatever state.
func (c *Cache) forget(id identity) error {
	if c == nil {
		return nil
	}
	if err := os.Remove(c.path(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("dropping an entry of the cache: %w", err)
	}
	return nil
}

// trim removes the oldest entries over the limit. mu is held.
func (c *Cache) trim() error {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return fmt.Errorf("reading the cache: %w", err)
	}
	var sum int64
	var infos []fs.FileInfo
	for _, e := range entries {
		if info, err := e.Info(); err == nil && strings.HasSuffix(e.Name(), cacheSuffix) {
			sum += info.Size()
			infos = append(infos, info)
		}
	}
	slices.SortFunc(infos, func(a, b fs.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	for _, info := range infos {
		if sum <= c.max {
			break
		}
		if err := os.Remove(filepath.Join(c.dir, info.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("trimming the cache: %w", err)
		}
		sum -= info.Size()
	}
	return nil
}

// zeroLimit is the number of pieces whose values are kept: those of 16 TiB. A
// source that claims a greater hole must not fill the disk with its constants.
const zeroLimit = 1 << 22

// zero is [ZeroValue] from the table. A value is bound to its offset, so there is
// one for every whole piece; each is computed once.
func (c *Cache) zero(index, length int64, whole bool) Value {
	if c == nil || whole || length != PieceSize || index >= zeroLimit {
		return ZeroValue(index, length, whole)
	}
	if v, state, err := c.zeros.get(index); err == nil && state == slotZero {
		return v
	}
	v := ZeroValue(index, length, whole)
	_ = c.zeros.put(index, v, slotZero) // a disk that is full costs time, nothing else
	return v
}

// A recorder gathers the values of one file for a cache. A nil one drops them.
type recorder struct {
	cache *Cache
	slots *slots // in a file without a name
}

// recorder begins to gather the values of a file of size bytes. What cannot be
// kept is no reason to fail.
func (c *Cache) recorder(size int64) *recorder {
	if c == nil || size < 0 || cacheHeader+Pieces(size)*slotSize > c.max {
		return nil
	}
	f, err := os.CreateTemp(c.dir, cacheNew)
	if err != nil {
		return nil
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil
	}
	return &recorder{cache: c, slots: &slots{f: f}}
}

// put adds the value of piece n.
func (r *recorder) put(n int64, v Value, zero bool) {
	if r == nil {
		return
	}
	state := slotData
	if zero {
		state = slotZero
	}
	_ = r.slots.put(n, v, state) // a value that is missing keeps record from recording
}

// record keeps what was gathered as that of the file in state id.
func (r *recorder) record(id identity) error {
	if r == nil {
		return nil
	}
	return r.cache.record(id, r.slots.get)
}

func (r *recorder) close() {
	if r != nil {
		r.slots.close()
	}
}
