package cluster_test

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"slices"
	"sync"

	"gantry/transfer"
)

// A corruption is one change of a content reply. Those that are not short bring
// a whole piece of other bytes to beta's piece check. The others end before it:
// beta must notice a reply that is no reply.
type corruption struct {
	name  string
	short bool
	// change corrupts the piece at body[a:b]; another is a piece of another
	// range, of the same length. It is only called with a piece that it can
	// corrupt: neighbour says that a full piece must follow in the reply.
	neighbour bool
	change    func(r *rand.Rand, p *reply, a, b int, another []byte)
}

func blockIn(r *rand.Rand, a, b int) int { return a + r.IntN(max(1, (b-a)/4096))*4096 }

var contentKinds = []corruption{
	{name: "one bit flipped", change: func(r *rand.Rand, p *reply, a, b int, _ []byte) {
		p.body[a+r.IntN(b-a)] ^= 1 << r.IntN(8)
	}},
	{name: "block of noise", change: func(r *rand.Rand, p *reply, a, b int, _ []byte) {
		at := blockIn(r, a, b)
		for i := at; i < min(at+4096, b); i++ {
			p.body[i] ^= byte(1 + r.IntN(255))
		}
	}},
	{name: "block of zeros", change: func(r *rand.Rand, p *reply, a, b int, _ []byte) {
		at := blockIn(r, a, b)
		clear(p.body[at:min(at+4096, b)])
	}},
	{name: "halves swapped", change: func(_ *rand.Rand, p *reply, a, b int, _ []byte) {
		half := (b - a) / 2
		copy(p.body[a:b], append(slices.Clone(p.body[a+half:b]), p.body[a:a+half]...))
	}},
	{name: "pieces swapped", neighbour: true, change: func(_ *rand.Rand, p *reply, a, b int, _ []byte) {
		first := slices.Clone(p.body[a:b])
		copy(p.body[a:b], p.body[b:b+transfer.PieceSize])
		copy(p.body[b:], first)
	}},
	{name: "replayed from another range", change: func(_ *rand.Rand, p *reply, a, _ int, another []byte) {
		copy(p.body[a:], another)
	}},
	{name: "begun again in the middle", change: func(r *rand.Rand, p *reply, a, b int, _ []byte) {
		at := 1 + r.IntN(b-a-1)
		copy(p.body[a+at:b], slices.Clone(p.body[a:b-at]))
	}},
	{name: "truncated, the rest moves up", neighbour: true, change: func(r *rand.Rand, p *reply, a, b int, _ []byte) {
		at := a + r.IntN(b-a)
		p.body = slices.Delete(p.body, at, at+1+r.IntN(b-at))
	}},
	{name: "bytes inserted", change: func(r *rand.Rand, p *reply, a, b int, another []byte) {
		at := a + r.IntN(b-a)
		p.body = slices.Insert(p.body, at, another[:1+r.IntN(4096)]...)
	}},
	{name: "ended early, in good order", short: true, change: func(r *rand.Rand, p *reply, a, b int, _ []byte) {
		p.body = p.body[:a+r.IntN(b-a)]
	}},
	{name: "broken off", short: true, change: func(r *rand.Rand, p *reply, a, b int, _ []byte) {
		p.declared, p.body, p.broken = len(p.body), p.body[:a+r.IntN(b-a)], true
	}},
	{name: "wrong length", short: true, change: func(r *rand.Rand, p *reply, a, b int, _ []byte) {
		p.body = p.body[:a+r.IntN(b-a)]
		p.declared = len(p.body)
	}},
	{name: "wrong range", short: true, change: func(_ *rand.Rand, p *reply, a, b int, another []byte) {
		p.header.Set("Content-Range", fmt.Sprintf("bytes 1-%d/%d", len(p.body), bulkSize)) // no request begins there
		copy(p.body[a:b], another)
	}},
}

// deck deals n content corruptions: one in 25 is short, the rest come evenly.
func deck(r *rand.Rand, n int) []corruption {
	var whole, short, out []corruption
	for _, k := range contentKinds {
		if k.short {
			short = append(short, k)
		} else {
			whole = append(whole, k)
		}
	}
	at := r.IntN(len(contentKinds))
	for i := range n {
		if i%25 == 24 {
			out = append(out, short[(at+i/25)%len(short)])
		} else {
			out = append(out, whole[(at+i)%len(whole)])
		}
	}
	r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// A plan is what happens to one copy. Its fields are set before it is used.
type plan struct {
	source string       // path of what alpha has
	size   int64        // of it
	most   int          // how often one piece is corrupted
	only   int64        // the piece to corrupt; -1: any
	cards  []corruption // to be played once each
	lies   *lie

	mu       sync.Mutex
	rng      *rand.Rand       // guarded by mu
	hits     map[int64]int    // guarded by mu; by piece
	waits    map[int64]string // guarded by mu; corrupted pieces that beta has not asked for again
	injected []corruption     // guarded by mu
	looked   int              // guarded by mu; looks at the stage
	lied     int              // guarded by mu; manifest replies changed
	faults   []error          // guarded by mu
}

func newPlan(r *rand.Rand, source string, size int64) *plan {
	return &plan{
		source: source, size: size, most: 2, only: -1,
		rng: rand.New(rand.NewPCG(r.Uint64(), 0)), hits: map[int64]int{}, waits: map[int64]string{},
	}
}

// tamper plays the first card that fits a reply, on one of its pieces.
func (p *plan) tamper(re *reply, off int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	first, count := pieceOf(off), int64(0)
	for n := first; n*transfer.PieceSize < off+int64(len(re.body)); n++ {
		count++
	}
	shift := p.rng.Int64N(count)
	for i := range count {
		n := first + (shift+i)%count
		if p.hits[n] >= p.most || p.only >= 0 && n != p.only {
			continue
		}
		a := int((n - first) * transfer.PieceSize)
		b := min(a+transfer.PieceSize, len(re.body))
		for j, card := range p.cards {
			if card.neighbour && len(re.body) < b+transfer.PieceSize || b-a < 2 {
				continue
			}
			p.cards = slices.Delete(p.cards, j, j+1)
			card.change(p.rng, re, a, b, p.another(n, b-a))
			p.hits[n]++
			p.waits[n] = card.name
			p.injected = append(p.injected, card)
			return
		}
	}
}

// another reads a piece's bytes from another range.
func (p *plan) another(n int64, length int) []byte {
	pieces := p.size / transfer.PieceSize // full ones
	f, err := os.Open(p.source)
	if err != nil {
		p.faults = append(p.faults, err)
		return make([]byte, length)
	}
	defer f.Close()
	buf := make([]byte, max(length, 4096))
	other := (n + 1 + p.rng.Int64N(pieces-1)) % pieces
	if other == n {
		other = (n + 1) % pieces
	}
	if _, err := f.ReadAt(buf, other*transfer.PieceSize); err != nil {
		p.faults = append(p.faults, err)
	}
	return buf
}

// awaits lists the corrupted pieces among those from off to end. A reply that
// was none may be asked for again from an earlier piece on.
func (p *plan) awaits(off, end int64) (pieces []int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for n := range p.waits {
		if pieceOf(off) <= n && n <= pieceOf(end) {
			pieces = append(pieces, n)
		}
	}
	return pieces
}

func (p *plan) inspected(pieces []int64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range pieces {
		if err != nil {
			p.faults = append(p.faults, fmt.Errorf("after %s of piece %d: %w", p.waits[n], n, err))
		}
		delete(p.waits, n)
		p.looked++
	}
}

// lie changes a manifest reply.
func (p *plan) lie(re *reply, q url.Values) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.lies
	if l == nil || rehash(q) && !l.again || l.once && p.lied > 0 || l.from != "" && q.Get("from") != l.from {
		return
	}
	l.change(p.rng, re)
	p.lied++
}
