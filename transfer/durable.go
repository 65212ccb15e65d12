package transfer

import (
	"sync"
)

// prefix is how many pieces from the first on are durable. Those that are so
// before an earlier one are kept aside; the engine has no more than a few windows
// of them in hand.
type prefix struct {
	mu    sync.Mutex
	upto  int64
	ahead map[int64]int64 // from -> count
}

func (p *prefix) add(from, count int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ahead == nil {
		p.ahead = map[int64]int64{}
	}
	p.ahead[from] = count
	for count := p.ahead[p.upto]; count > 0; count = p.ahead[p.upto] {
		delete(p.ahead, p.upto)
		p.upto += count
	}
}

func (p *prefix) value() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.upto
}

// follow is called with the first line of the manifest: from a stream on the
// source is told what it may forget.
func (r *run) follow(f File) {
	r.stream = f.Stream
	switch {
	case f.Stream && r.DryRun:
		r.done = r.decided.value // no byte of them is asked for
	case f.Stream:
		r.done = r.safe.value
	}
}

// durable says that pieces are in place for good, whatever happens here.
func (r *run) durable(entries ...Entry) {
	for _, e := range entries {
		r.counter.Durable(e.Count * PieceSize) // what the last one lacks is not shown
		if r.stream {
			r.safe.add(e.N, e.Count)
		}
	}
}
