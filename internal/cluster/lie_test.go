package cluster_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"gantry/api"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

// A lie is one way to change the manifest of the sparse source, whose first
// window has pieces 0 to 63 and whose second has 64 and 65.
type lie struct {
	name   string
	ends   []*api.Code // what the copy may fail with; nil: it must be done
	blame  string      // part of the message
	from   string      // only windows that begin there; "": every one
	again  bool        // also when the source is to read a piece again
	once   bool        // the first reply only
	change func(r *rand.Rand, p *reply)
}

// lines changes each line of a manifest.
func lines(change func(r *rand.Rand, line string) string) func(*rand.Rand, *reply) {
	return func(r *rand.Rand, p *reply) {
		var out strings.Builder
		for l := range strings.Lines(string(p.body)) {
			out.WriteString(change(r, l))
		}
		p.body = []byte(out.String())
	}
}

// lineOf changes the lines that begin so.
func lineOf(start string, change func(line string) string) func(*rand.Rand, *reply) {
	return lines(func(_ *rand.Rand, l string) string {
		if strings.HasPrefix(l, start) {
			return change(l)
		}
		return l
	})
}

func replaced(old, new string) func(*rand.Rand, *reply) {
	return func(_ *rand.Rand, p *reply) { p.body = bytes.ReplaceAll(p.body, []byte(old), []byte(new)) }
}

const (
	// Piece 2 is data, and so is piece 64, the first of the second window.
	secondPiece = `{"kind":"piece","n":2,`
	fileLine    = `{"kind":"file",`
)

var (
	value   = strings.Repeat("ab", 32)
	valueOf = func(l string) string {
		i := strings.Index(l, `"value":"`) + len(`"value":"`)
		return l[:i] + value + l[i+64:]
	}
	sizeIs = func(n int64) string { return fmt.Sprintf(`"size":%d`, n) }

	badManifest   = []*api.Code{api.BadManifest}
	sourceChanged = []*api.Code{api.SourceChanged}
)

var manifestLies = []lie{
	{name: "value", ends: sourceChanged, blame: "piece 2 of the source", change: lineOf(secondPiece, valueOf)},
	{name: "value, insisted on", ends: []*api.Code{api.CorruptPiece}, blame: "the source, or the web server", again: true, change: lineOf(secondPiece, valueOf)},
	{name: "values swapped", ends: sourceChanged, blame: "of the source", change: func(_ *rand.Rand, p *reply) {
		replaced(`"n":1,`, `"n":0,`)(nil, p)
		replaced(`"n":2,`, `"n":1,`)(nil, p)
		replaced(`"n":0,`, `"n":2,`)(nil, p)
		ls := slices.Collect(strings.Lines(string(p.body)))
		for i := range ls[:len(ls)-1] {
			if strings.Contains(ls[i], `"n":2,`) && strings.Contains(ls[i+1], `"n":1,`) {
				ls[i], ls[i+1] = ls[i+1], ls[i]
			}
		}
		p.body = []byte(strings.Join(ls, ""))
	}},
	{name: "digest", ends: badManifest, blame: "manifest of the source", change: lineOf(`{"kind":"end",`, func(l string) string {
		i := strings.Index(l, `"b3:`) + 4
		return l[:i] + value + l[i+64:]
	})},
	{name: "no digest", ends: badManifest, blame: "manifest of the source", change: lineOf(`{"kind":"end",`, func(l string) string {
		return strings.Replace(l, `"b3:`, `"md5:`, 1)
	})},
	{name: "size, one less", ends: []*api.Code{api.BadManifest, api.SourceChanged, api.CorruptPiece}, blame: "source", change: replaced(sizeIs(sparseSize), sizeIs(sparseSize-1))},
	{name: "size, one more", ends: []*api.Code{api.BadManifest, api.SourceChanged, api.CorruptPiece}, blame: "source", change: replaced(sizeIs(sparseSize), sizeIs(sparseSize+1))},
	{name: "size, a piece less", ends: badManifest, blame: "source", change: replaced(sizeIs(sparseSize), sizeIs(sparseSize-transfer.PieceSize))},
	{name: "size, a piece more", ends: badManifest, blame: "source", change: replaced(sizeIs(sparseSize), sizeIs(sparseSize+transfer.PieceSize))},
	{name: "size, at the end only", ends: badManifest, blame: "source", change: lineOf(`{"kind":"end",`, func(l string) string {
		return strings.Replace(l, sizeIs(sparseSize), sizeIs(sparseSize+1), 1)
	})},
	{name: "size, in the second window", ends: sourceChanged, blame: "manifest is now of", from: "64", change: replaced(sizeIs(sparseSize), sizeIs(sparseSize-1))},
	{name: "size and data beyond the disk", ends: []*api.Code{api.NoSpace, api.IO, api.BadManifest}, change: lineOf(fileLine, func(l string) string {
		i := strings.Index(l, `"data":`)
		j := i + strings.IndexByte(l[i:], ',')
		l = l[:i] + `"data":4611686018427387` + l[j:] // below 2^53
		return strings.Replace(l, sizeIs(sparseSize), sizeIs(4611686018427387), 1)
	})},
	{name: "size beyond what can be", ends: badManifest, blame: "source", change: replaced(sizeIs(sparseSize), sizeIs(1<<53))},
	{name: "size below zero", ends: badManifest, blame: "source", change: replaced(sizeIs(sparseSize), sizeIs(-1))},
	{name: "other pieces", ends: badManifest, blame: "source", change: replaced(`"piece":4194304`, `"piece":65536`)},
	{name: "line twice", ends: badManifest, blame: "source", change: lineOf(secondPiece, func(l string) string { return l + l })},
	{name: "first line twice", ends: badManifest, blame: "source", change: lineOf(fileLine, func(l string) string { return l + l })},
	{name: "line missing", ends: badManifest, blame: "source", change: lineOf(secondPiece, func(string) string { return "" })},
	{name: "data called zero", ends: badManifest, blame: "source", change: lineOf(secondPiece, func(string) string {
		return `{"kind":"zero","from":2,"count":1}` + "\n"
	})},
	{name: "zero called data", ends: sourceChanged, blame: "piece 0 of the source", change: lineOf(`{"kind":"zero","from":0,`, func(string) string {
		return `{"kind":"piece","n":0,"value":"` + value + `"}` + "\n"
	})},
	{name: "too many zeros", ends: badManifest, blame: "source", change: lineOf(`{"kind":"zero","from":4,`, func(l string) string {
		return `{"kind":"zero","from":4,"count":9007199254740991}` + "\n"
	})},
	{name: "first window again", ends: badManifest, blame: "source", from: "64", change: func(_ *rand.Rand, p *reply) {
		p.body = bytes.ReplaceAll(p.body, []byte(`"n":64,`), []byte(`"n":0,`))
	}},
	{name: "bytes after the end", ends: badManifest, blame: "source", change: func(_ *rand.Rand, p *reply) { p.body = append(p.body, "{}\n"...) }},
	{name: "endless line", ends: badManifest, blame: "source", change: func(_ *rand.Rand, p *reply) {
		p.body, p.endless = []byte(`{"kind":"`), bytes.Repeat([]byte("x"), 1<<10)
	}},
	{name: "endless heartbeats", ends: badManifest, blame: "source", change: func(_ *rand.Rand, p *reply) {
		first, _, _ := bytes.Cut(p.body, []byte("\n"))
		p.body, p.endless = append(first, '\n'), bytes.Repeat([]byte(`{"kind":"heartbeat"}`+"\n"), 100)
	}},
	{name: "no JSON", ends: badManifest, blame: "manifest", change: lineOf(secondPiece, func(l string) string { return "<html>" + l })},
	{name: "member twice", ends: badManifest, blame: "manifest", change: replaced(`"n":2,`, `"n":2,"n":2,`)},
	{name: "member unknown", ends: badManifest, blame: "manifest", change: replaced(`"n":2,`, `"n":2,"path":"/etc/passwd",`)},
	{name: "truncated, in good order", once: true, change: func(r *rand.Rand, p *reply) { p.body = p.body[:r.IntN(len(p.body))] }},
	{name: "broken off", once: true, change: func(r *rand.Rand, p *reply) { p.body, p.broken = p.body[:r.IntN(len(p.body))], true }},
}

// lie copies the sparse source with a manifest that lies.
func (k *corrupting) lie(t *testing.T, i int) {
	if k.firstLie == 0 {
		k.firstLie = 1 + k.rng.IntN(len(manifestLies))
	}
	l := manifestLies[(k.firstLie+i)%len(manifestLies)]
	k.kinds["manifest: "+l.name]++
	target := fmt.Sprintf("lie%d.img", i)
	p := newPlan(k.rng, k.c.Path("alpha", sparse), sparseSize)
	p.lies = &l
	if l.ends != nil {
		k.fails(t, p, sparse, target, l.blame, i%8 == 0, l.ends)
	} else {
		k.m.use(p)
		r := copyTo(t, k.c, sparse, target)
		require.Zero(t, r.code, r.out)
		require.True(t, same(t, k.c.Path("alpha", sparse), k.c.Path("beta", target)))
		k.end(t, p, r, l.name)
	}
	require.Positive(t, p.lied, "%s: never told", l.name)
}
