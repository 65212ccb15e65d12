package cluster_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"gantry/api"
	"gantry/feedback"
	"gantry/front"
	"gantry/internal/cluster"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

var corruptions = flag.Int("corruptions", 60, "how many corruptions TestCorruptionInsideTLS injects")

// Sources of TestCorruptionInsideTLS.
const (
	bulk = "bulk.img" // many pieces, each corrupted twice at most
	few  = "few.img"  // for copies that fail
	// sparse has two windows of manifest, and few of its pieces are data.
	sparse = "sparse.img"

	bulkSize   = 11*transfer.PieceSize + 12345
	fewSize    = 4*transfer.PieceSize + 1
	sparseSize = 65*transfer.PieceSize + 4321
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
	{name: "wrong range", short: true, change: func(r *rand.Rand, p *reply, a, b int, another []byte) {
		p.header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", bulkSize-len(p.body), bulkSize-1, bulkSize+1))
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
		if i%25 == 12 {
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

// A copied is what a copy's feed said.
type copied struct {
	code      int
	err       *feedback.Error // nil: done
	wrong     int             // pieces that failed the check
	cut       int             // content replies that were none
	published bool
	out       string
}

// copyTo copies with the CLI and reads the feed that it prints.
func copyTo(t *testing.T, c *cluster.Cluster, source, target string, flags ...string) copied {
	t.Helper()
	code, out, stderr := gantry(t, c, append([]string{"copy", "alpha:disks/" + source, "beta:disks/" + target, "--json"}, flags...)...)
	r := copied{code: code, out: out + stderr}
	for line := range strings.Lines(out) {
		rec, err := feedback.Decode([]byte(strings.TrimSuffix(line, "\n")))
		require.NoError(t, err, line)
		switch body := rec.Body.(type) {
		case *feedback.Error:
			r.err = body
		case *feedback.Task:
			inner, err := feedback.Decode(body.Record)
			require.NoError(t, err)
			switch said := inner.Body.(type) {
			case *feedback.Log:
				switch {
				case strings.Contains(said.Text, "arrived with other content"), strings.Contains(said.Text, "arrived wrong 3 times"):
					r.wrong++
				case strings.HasPrefix(said.Text, "content: connection lost"):
					r.cut++
				}
			case *feedback.State:
				r.published = r.published || said.State == api.StatePublishing
			}
		}
	}
	return r
}

// corrupting is the campaign.
type corrupting struct {
	c                     *cluster.Cluster
	m                     *middle
	rng                   *rand.Rand
	kinds                 map[string]int
	content, whole, wrong int // injected; of these not short; reached the piece check
	looks                 int // at the stage
	ends                  map[string]int
	copies                int
	firstLie              int // where in manifestLies this run begins, from 1
}

// TestCorruptionInsideTLS: whatever somebody who holds a front's certificate
// makes of the bytes and the manifest, no byte that is not the source's reaches
// the disk, and a copy is done with the source's digest or fails, publishes
// nothing, and names who is at fault.
//
// A case is one changed reply; one copy carries many.
func TestCorruptionInsideTLS(t *testing.T) {
	k := &corrupting{rng: rand.New(rand.NewPCG(theSeed(t), 1)), kinds: map[string]int{}, ends: map[string]int{}}
	k.c = newCluster(t, cluster.Options{Front: installedFront()}, func(c *cluster.Cluster) {
		random(t, c, bulk, k.rng.Uint64(), bulkSize)
		random(t, c, few, k.rng.Uint64(), fewSize)
		require.NoError(t, c.CreateFile("alpha", sparse, func(f *os.File) error { return fillSparse(f, k.rng) }))
		k.m = newMiddle(t, c)
	})
	lies := *corruptions / 6
	content := *corruptions - lies
	stubborn := max(2, content/30)
	for left := content - 3*stubborn; left > 0; {
		left -= k.passing(t, left)
	}
	for i := range stubborn {
		k.stubborn(t, i)
	}
	for i := range lies {
		k.lie(t, i)
	}
	t.Logf("corruptions: %d injected in %d copies: %d of content, %d (%.1f%%) reached the piece check, %d were no whole reply; %d manifests; the stage was looked at %d times",
		k.content+lies, k.copies, k.content, k.wrong, 100*float64(k.wrong)/float64(k.content), k.content-k.whole, lies, k.looks)
	t.Logf("kinds: %v; ends: %v", k.kinds, k.ends)
	require.GreaterOrEqual(t, k.content+lies, *corruptions)
	require.GreaterOrEqual(t, k.wrong*100, k.content*95, "too few corruptions reached the piece check")
}

// installedFront is a web server that is there.
func installedFront() front.Kind {
	for _, kind := range []front.Kind{front.Nginx, front.Lighttpd} {
		if _, err := front.Program(kind); err == nil {
			return kind
		}
	}
	return front.EmbeddedServer
}

// fillSparse makes data at both ends of the second piece boundary and in the
// second window.
func fillSparse(f *os.File, r *rand.Rand) error {
	err := f.Truncate(sparseSize)
	for _, n := range []int64{1, 2, 3, 64} {
		data := make([]byte, transfer.PieceSize)
		rand.NewChaCha8([32]byte{byte(r.Uint32()), byte(n)}).Read(data)
		_, werr := f.WriteAt(data, n*transfer.PieceSize)
		err = errors.Join(err, werr)
	}
	return err
}

// end checks a plan's copy: the stage's blocks, and who saw what.
func (k *corrupting) end(t *testing.T, p *plan, r copied, what string) {
	t.Helper()
	k.copies++
	k.m.use(nil)
	require.NoError(t, errors.Join(p.faults...), what)
	whole := 0
	for _, card := range p.injected {
		k.kinds[card.name]++
		if !card.short {
			whole++
		}
	}
	if p.lies == nil { // sound pieces fail the check against a manifest that lies
		k.content, k.whole, k.wrong = k.content+len(p.injected), k.whole+whole, k.wrong+r.wrong
		require.Equal(t, whole, r.wrong, "%s: pieces that failed the check\n%s", what, r.out)
		require.GreaterOrEqual(t, r.cut, len(p.injected)-whole, "%s: replies that were none\n%s", what, r.out)
	}
	k.looks += p.looked
	name := string(api.Done)
	if r.err != nil {
		name = r.err.Code
	}
	k.ends[name]++
}

// passing copies the bulk file and corrupts pieces on the way, none three
// times: the copy must be done, with the source's bytes.
func (k *corrupting) passing(t *testing.T, most int) int {
	p := newPlan(k.rng, k.c.Path("alpha", bulk), bulkSize)
	p.cards = deck(k.rng, min(most, 22))
	k.m.use(p)
	r := copyTo(t, k.c, bulk, bulk)
	require.True(t, same(t, k.c.Path("alpha", bulk), k.c.Path("beta", bulk)), "code %d: other bytes were published", r.code)
	require.Zero(t, r.code, r.out)
	require.Empty(t, p.waits, "corrupted, and never asked for again")
	k.end(t, p, r, "passing")
	require.NotEmpty(t, p.injected)
	require.Equal(t, len(p.injected), p.looked, "looks at the stage")
	require.NoError(t, os.Remove(k.c.Path("beta", bulk)))
	return len(p.injected)
}

// stubborn corrupts one piece every time: the copy must fail, name the guilty
// side, and leave the old file; without the corruption the same command is done.
func (k *corrupting) stubborn(t *testing.T, i int) {
	p := newPlan(k.rng, k.c.Path("alpha", few), fewSize)
	p.most, p.only = 3, k.rng.Int64N(transfer.Pieces(fewSize)-1)
	blame := "something between source and target changes them"
	p.cards = []corruption{contentKinds[0], contentKinds[1], contentKinds[2]}
	if i%2 == 1 { // the same other bytes each time
		blame = "the source, or the web server that sends its files"
		flip := corruption{name: "the same bit flipped", change: func(_ *rand.Rand, p *reply, a, b int, _ []byte) { p.body[b-1] ^= 4 }}
		p.cards = []corruption{flip, flip, flip}
	}
	k.fails(t, p, few, fmt.Sprintf("stubborn%d.img", i), blame, true, []*api.Code{api.CorruptPiece})
	require.Equal(t, 2, p.looked, "looks at the stage")
}

// fails copies onto an old file, or to a new one: the copy must fail with one
// of the codes and change nothing.
func (k *corrupting) fails(t *testing.T, p *plan, source, target, blame string, again bool, codes []*api.Code) {
	var flags []string
	replace := k.copies%2 == 0
	if replace {
		flags = append(flags, "--replace")
		require.NoError(t, k.c.CreateFile("beta", target, func(f *os.File) error {
			return cluster.Fill(t.Context(), f, cluster.Random(1, oldSize))
		}))
	}
	k.m.use(p)
	r := copyTo(t, k.c, source, target, flags...)
	what := fmt.Sprintf("%s, replace %v", target, replace)
	require.NotZero(t, r.code, "%s: done\n%s", what, r.out)
	require.NotNil(t, r.err, "%s\n%s", what, r.out)
	require.True(t, slices.ContainsFunc(codes, func(c *api.Code) bool { return c.Name == r.err.Code }), "%s: %v", what, r.err)
	require.ErrorContains(t, r.err, blame, what)
	require.False(t, r.published, what)
	require.NoError(t, k.m.sound(p.source), what)
	k.end(t, p, r, what)
	k.looks++
	path := k.c.Path("beta", target)
	if replace {
		old, err := io.ReadAll(cluster.Random(1, oldSize))
		require.NoError(t, err)
		is, err := os.ReadFile(path)
		require.NoError(t, err)
		require.True(t, bytes.Equal(old, is), "%s: the old file was changed", what)
	} else {
		require.NoFileExists(t, path, what)
	}
	if again {
		r := copyTo(t, k.c, source, target, flags...)
		require.Zero(t, r.code, "%s, without the corruption\n%s", what, r.out)
		require.True(t, same(t, k.c.Path("alpha", source), path), what)
	}
	if replace || again {
		require.NoError(t, os.Remove(path))
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
