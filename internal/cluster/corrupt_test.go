package cluster_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
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
	t.Parallel()
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
	for cards := deck(k.rng, content-3*stubborn); len(cards) > 0; {
		cards = k.passing(t, cards)
	}
	for i := range stubborn {
		k.stubborn(t, i)
	}
	for i := range lies {
		k.lie(t, i)
	}
	t.Logf("kinds: %v; ends: %v", k.kinds, k.ends)
	t.Logf("cases: %d in %d copies: %d of content, %d (%.1f%%) reached the piece check, %d were no whole reply; %d manifests; the stage was looked at %d times",
		k.content+lies, k.copies, k.content, k.wrong, 100*float64(k.wrong)/float64(k.content), k.content-k.whole, lies, k.looks)
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

// fillSparse makes data of some pieces in the first window and of one in the
// second.
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

// plainly: what arrives slowly is asked for in frames, which this middle does
// not know.
var plainly = []string{"--compress", "off"}

// passing copies the bulk file and corrupts pieces on the way, none three
// times: the copy must be done, with the source's bytes. It returns the cards
// that were not played.
func (k *corrupting) passing(t *testing.T, cards []corruption) []corruption {
	p := newPlan(k.rng, k.c.Path("alpha", bulk), bulkSize)
	hand := min(len(cards), 22) // two for each full piece
	p.cards = slices.Clone(cards[:hand])
	k.m.use(p)
	r := copyTo(t, k.c, bulk, bulk, plainly...)
	require.True(t, same(t, k.c.Path("alpha", bulk), k.c.Path("beta", bulk)), "code %d: other bytes were published", r.code)
	require.Zero(t, r.code, r.out)
	require.Empty(t, p.waits, "corrupted, and never asked for again")
	k.end(t, p, r, "passing")
	require.NotEmpty(t, p.injected)
	require.Equal(t, len(p.injected), p.looked, "looks at the stage")
	require.NoError(t, os.Remove(k.c.Path("beta", bulk)))
	return append(p.cards, cards[hand:]...)
}

// stubborn corrupts one piece every time: the copy must fail, name the guilty
// side, and leave the old file; without the corruption the same command is done.
func (k *corrupting) stubborn(t *testing.T, i int) {
	p := newPlan(k.rng, k.c.Path("alpha", few), fewSize)
	// Piece 0 may come by the parts that the old file has not, which is another
	// way; the last one is a single byte.
	p.most, p.only = 3, 1+k.rng.Int64N(transfer.Pieces(fewSize)-2)
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
	flags := slices.Clone(plainly)
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
