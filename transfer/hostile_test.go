package transfer_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"gantry/api"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

var (
	cases = flag.Int("transfer.cases", 40, "hostile sources to try")
	seed  = flag.Uint64("transfer.seed", 1, "seed of the first of them")
)

// soundStage checks that every 4 KiB block of a file is a hole or equals the
// source.
func soundStage(t testing.TB, path string, source []byte) {
	t.Helper()
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	require.NoError(t, err)
	defer f.Close()
	got, err := io.ReadAll(f)
	require.NoError(t, err)
	for off := 0; off < len(got); off += 4096 {
		end := min(off+4096, len(got))
		if end <= len(source) && bytes.Equal(got[off:end], source[off:end]) {
			continue
		}
		next, err := unix.Seek(int(f.Fd()), int64(off), unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) || err == nil && next >= int64(end) {
			continue
		}
		t.Fatalf("block at %d is neither a hole nor the source's", off)
	}
}

// hostile is one case: what the source does, and how the import may end.
type hostile struct {
	name  string
	src   *faulty
	ends  []*api.Code // nil: must be done
	blame string      // part of the message
	bad   bool        // tampered content reaches the piece check
}

// rewrite changes the lines of every manifest reply.
func rewrite(change func(line string) string) func(int, int64, io.ReadCloser) io.ReadCloser {
	return func(_ int, _ int64, rc io.ReadCloser) io.ReadCloser {
		b, err := io.ReadAll(rc)
		rc.Close()
		var out strings.Builder
		for l := range strings.Lines(string(b)) {
			out.WriteString(change(l))
		}
		return io.NopCloser(io.MultiReader(strings.NewReader(out.String()), errReader{err}))
	}
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) {
	if e.err == nil {
		return 0, io.EOF
	}
	return 0, e.err
}

// newHostile draws a case for a source of data whose piece k is not zero.
func newHostile(r *rand.Rand, x *transfer.Export, data []byte, k int64) hostile {
	src := &faulty{Source: direct{x}}
	off := k * piece
	within := func(o, l int64) bool { return o <= off && off < o+l }
	pos := r.Int64N(transfer.PieceLen(k, int64(len(data))))
	once := false
	always := r.IntN(2) == 0
	flipAt := func(o int64, bit byte) *fault {
		return &fault{flip: func(b []byte, at int64) {
			if i := off + pos - o - at; i >= 0 && i < int64(len(b)) {
				b[i] ^= bit
			}
		}}
	}
	tamper := func(make func(o, l int64) *fault) {
		src.content = func(n int, o, l int64) *fault {
			if !within(o, l) || once && !always {
				return nil
			}
			once = true
			return make(o, l)
		}
	}
	h := hostile{src: src, bad: true}
	corrupt := func(name, blame string) hostile {
		h.name = name
		if always {
			h.name, h.ends, h.blame = name+" always", []*api.Code{api.CorruptPiece}, blame
		}
		return h
	}
	value := func(l string) bool { return strings.Contains(l, fmt.Sprintf(`"n":%d,`, k)) }
	lie := strings.Repeat("ab", 32)
	switch r.IntN(13) {
	case 0:
		tamper(func(o, l int64) *fault { return flipAt(o, 1<<r.IntN(8)) })
		if always { // another bit each time
			bit := byte(1)
			tamper(func(o, l int64) *fault { bit <<= 1; return flipAt(o, bit) })
		}
		return corrupt("flipped bits", "something between source and target")
	case 1:
		tamper(func(o, l int64) *fault { return flipAt(o, 0x40) })
		return corrupt("same flipped bit", "the source, or the web server")
	case 2:
		tamper(func(o, l int64) *fault {
			if o > 0 {
				return &fault{at: -o} // the beginning of the file again
			}
			return &fault{at: 1} // or its neighbour's bytes
		})
		return corrupt("replayed or swapped", "")
	case 3:
		cut := 1 + r.Int64N(pos+1)
		always = false
		h.bad = false
		tamper(func(o, l int64) *fault { return &fault{cut: cut} })
		return corrupt("truncated, ended properly", "")
	case 4:
		always, h.bad = false, false
		tamper(func(o, l int64) *fault { return &fault{cut: 1 + pos/2, broken: errors.New("reset")} })
		return corrupt("broken", "")
	case 5:
		always, h.bad = false, false
		src.content = func(n int, o, l int64) *fault { return &fault{endless: true} }
		return corrupt("endless", "")
	case 6: // the manifest lies about a value, and reading again tells the truth
		src.window = rewrite(func(l string) string {
			if value(l) {
				i := strings.Index(l, `"value":"`) + 9
				return l[:i] + lie + l[i+64:]
			}
			return l
		})
		h.name, h.ends, h.blame = "value lied about", []*api.Code{api.SourceChanged}, "reads otherwise"
		return h
	case 7: // and it lies again
		change := func(l string) string {
			if value(l) {
				i := strings.Index(l, `"value":"`) + 9
				return l[:i] + lie + l[i+64:]
			}
			return l
		}
		src.window = rewrite(change)
		src.rehash = func(n int, rc io.ReadCloser) io.ReadCloser { return rewrite(change)(n, 0, rc) }
		h.name, h.ends, h.blame = "value lied about twice", []*api.Code{api.CorruptPiece}, "the source, or the web server"
		return h
	case 8:
		src.window = rewrite(func(l string) string { return strings.Replace(l, `"digest":"b3:`, `"digest":"b3:`+"00", 1) })
		if always {
			src.window = rewrite(func(l string) string {
				if i := strings.Index(l, `"digest":"b3:`); i > 0 {
					return l[:i] + `"digest":"b3:` + lie + `"}` + "\n"
				}
				return l
			})
		}
		h.name, h.ends, h.blame = "digest lied about", []*api.Code{api.BadManifest}, "manifest of the source"
		return h
	case 9:
		size := strconv.Itoa(len(data))
		other := strconv.Itoa(len(data) + 1 - 2*r.IntN(2))
		src.window = rewrite(func(l string) string { return strings.Replace(l, `"size":`+size, `"size":`+other, 1) })
		h.name, h.ends = "size lied about", []*api.Code{api.BadManifest, api.BadRange, api.SourceChanged, api.CorruptPiece, api.PeerLost}
		return h
	case 10:
		src.window = rewrite(func(l string) string {
			return strings.Replace(l, fmt.Sprintf(`"n":%d,`, k), fmt.Sprintf(`"n":%d,`, k+1-2*int64(r.IntN(2))), 1)
		})
		h.name, h.ends, h.bad = "piece numbers lied about", []*api.Code{api.BadManifest}, false
		return h
	case 11:
		src.window = rewrite(func(l string) string {
			if value(l) {
				return fmt.Sprintf(`{"kind":"zero","from":%d,"count":1}`+"\n", k)
			}
			return l
		})
		h.name, h.ends, h.bad = "data called zero", []*api.Code{api.BadManifest}, false
		return h
	default:
		cut := r.IntN(400)
		n := 0
		src.window = func(_ int, _ int64, rc io.ReadCloser) io.ReadCloser {
			if n++; n > 1 {
				return rc
			}
			b, _ := io.ReadAll(rc)
			rc.Close()
			return io.NopCloser(bytes.NewReader(b[:min(cut, len(b)-1)]))
		}
		h.name, h.bad = "manifest truncated", false
		return h
	}
}

// TestHostileSource: whatever a source does, no byte that is not the file's
// reaches the disk, and the import is done or says who is at fault.
func TestHostileSource(t *testing.T) {
	count, reached := map[string]int{}, 0
	for i := range *cases {
		s := *seed + uint64(i)
		r := rand.New(rand.NewPCG(s, 0))
		data := content(s, 4*piece+1+r.IntN(piece))
		k := r.Int64N(transfer.Pieces(int64(len(data))))
		if z := r.Int64N(5); z != k && r.IntN(2) == 0 {
			clear(data[z*piece : min(int64(len(data)), (z+1)*piece)])
		}
		h := newHostile(r, export(t, data), data, k)
		count[h.name]++
		if h.bad {
			reached++
		}
		if !t.Run(fmt.Sprintf("%d %s", s, h.name), func(t *testing.T) { h.try(t, data) }) {
			t.Logf("again with -transfer.cases=1 -transfer.seed=%d", s)
		}
	}
	t.Logf("hostile sources: %d tried, %d of them with content that fails the piece check: %v", *cases, reached, count)
}

func (h hostile) try(t *testing.T, data []byte) {
	g, n := newTarget(t), &notes{}
	im := g.imp(h.src)
	im.Report, im.RetryFor = n, 1 // with -size lies- the range is refused for ever
	if len(h.ends) == 0 {
		im.RetryFor = api.RetryFor
	}
	_, err := im.Run(context.Background())
	soundStage(t, filepath.Join(g.dir, transfer.StageDir, "task.stage"), data)
	if h.ends == nil {
		require.NoError(t, err)
		g.holds(t, data)
		return
	}
	require.Error(t, err)
	require.NoFileExists(t, g.path())
	var names []string
	for _, c := range h.ends {
		names = append(names, c.Name)
	}
	require.Contains(t, names, code(err), "%v", err)
	require.ErrorContains(t, err, h.blame)
	require.Empty(t, n.states)

	// With an honest source the same task ends well.
	_, err = g.imp(h.src.Source).Run(context.Background())
	require.NoError(t, err)
	g.holds(t, data)
}
