package transfer

import (
	"sync"
	"sync/atomic"
)

// Bounds of the contents of small files that are held from the time they are hashed until
// they are sent. Up to maxPlanned more are under way between a hasher and the writer.
const (
	maxKeptFile = 32 << 10
	maxKept     = 8 << 20 // of all exports of this process together
)

// keptBytes is how much all exports hold.
var keptBytes atomic.Int64

// treeSmall holds the contents of small files by the number of their record: they are sent as they
// were hashed, without being opened, looked at and read a second time. Each is
// handed out once; whoever asks again, after a cut, reads the file. When there is no room the
// oldest go: a reader who has the files already asks for none. Safe for
// concurrent use; the zero value is ready.
type treeSmall struct {
	mu    sync.Mutex
	files map[int64][]byte
	next  int64 // none before it is held
	last  int64 // the newest
}

// keep takes over the content of record k, which is newer than all before.
func (t *treeSmall) keep(k int64, content []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	size := int64(len(content))
	for keptBytes.Add(size) > maxKept {
		keptBytes.Add(-size)
		if !t.evict() {
			return
		}
	}
	if t.files == nil {
		t.files = map[int64][]byte{}
	}
	if len(t.files) == 0 {
		t.next = k
	}
	t.files[k], t.last = content, k
}

// evict drops the oldest. mu is held.
func (t *treeSmall) evict() bool {
	for ; len(t.files) > 0 && t.next <= t.last; t.next++ {
		if t.remove(t.next) != nil {
			t.next++
			return true
		}
	}
	return false
}

// remove gives up record k. mu is held.
func (t *treeSmall) remove(k int64) []byte {
	content := t.files[k]
	delete(t.files, k)
	keptBytes.Add(-int64(len(content)))
	return content
}

// take hands out the content of record k, nil when it is not held.
func (t *treeSmall) take(k int64) []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.remove(k)
}

// drop gives up everything.
func (t *treeSmall) drop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k := range t.files {
		t.remove(k)
	}
}
