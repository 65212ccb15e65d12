package feedback

import (
	"slices"
	"sync"
)

// Budget bounds the journals of a node together. Every feed holds room for its
// final from Create on, so that an accepted task can always end. When there is
// no room for more, the finished feeds lose their log lines, oldest first,
// before a running one is refused anything. Safe for concurrent use.
type Budget struct {
	max int64 // config

	mu    sync.Mutex
	used  int64   // guarded by mu
	ended []*Feed // guarded by mu; finished feeds that may have log lines, oldest first
}

// NewBudget returns a budget of limit bytes; 0 means MaxBudget.
func NewBudget(limit int64) *Budget {
	if limit <= 0 {
		limit = MaxBudget
	}
	return &Budget{max: limit}
}

// Used returns the bytes in use and reserved.
func (b *Budget) Used() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// take takes n bytes, if there is room. A nil budget has always room.
func (b *Budget) take(n int64) bool {
	if b == nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used+n > b.max {
		return false
	}
	b.used += n
	return true
}

// add adds n bytes that are there already, or gives back -n.
func (b *Budget) add(n int64) {
	if b == nil {
		return
	}
	b.mu.Lock()
	b.used += n
	b.mu.Unlock()
}

// takeOrShed takes n bytes, shortening finished feeds as far as it must.
// Callers hold no lock of a feed.
func (b *Budget) takeOrShed(n int64) bool {
	for !b.take(n) {
		b.mu.Lock()
		if len(b.ended) == 0 {
			b.mu.Unlock()
			return false
		}
		f := b.ended[0]
		b.ended = b.ended[1:]
		b.mu.Unlock()
		f.shed()
	}
	return true
}

// finished says that f can be shortened now.
func (b *Budget) finished(f *Feed) {
	if b == nil {
		return
	}
	b.mu.Lock()
	b.ended = append(b.ended, f)
	b.mu.Unlock()
}

// forget takes f out.
func (b *Budget) forget(f *Feed) {
	if b == nil {
		return
	}
	b.mu.Lock()
	b.ended = slices.DeleteFunc(b.ended, func(g *Feed) bool { return g == f })
	b.mu.Unlock()
}
