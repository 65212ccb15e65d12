package transfer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gantry/api"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

// produced is a Producer of bytes.
type produced struct {
	io.Reader
	finish  error
	stopped atomic.Int32
	given   atomic.Int64
}

func (p *produced) Read(b []byte) (int, error) {
	if p.stopped.Load() > 0 {
		return 0, errors.New("stopped")
	}
	n, err := p.Reader.Read(b)
	p.given.Add(int64(n))
	return n, err
}

func (p *produced) Finish() error { return p.finish }
func (p *produced) Stop()         { p.stopped.Add(1) }

// served is a Source that calls an Exporter, through a pipe as over a network.
type served struct{ x transfer.Exporter }

func (s served) Window(ctx context.Context, from, n, done int64) (io.ReadCloser, error) {
	return pipe(func(w io.Writer) error { return s.x.Window(ctx, from, n, done, w) }), nil
}

func (s served) Content(ctx context.Context, off, length int64) (io.ReadCloser, error) {
	return s.x.Content(ctx, off, length)
}

func (s served) Rehash(ctx context.Context, n int64) (io.ReadCloser, error) {
	return pipe(func(w io.Writer) error { return s.x.Rehash(ctx, n, w) }), nil
}

func (s served) Sub(context.Context, []int64) (io.ReadCloser, error) {
	return nil, api.BadRequest.Err("no parts")
}

func (s served) Frames(ctx context.Context, ranges []transfer.Range, compress bool) (io.ReadCloser, error) {
	return pipe(func(w io.Writer) error { return transfer.WriteFrames(ctx, s.x, ranges, compress, w) }), nil
}

// smallStream has room for so many pieces.
func smallStream(t testing.TB, p transfer.Producer, pieces int64) *transfer.Stream {
	t.Helper()
	x, err := transfer.OpenSmallStream(p, t.TempDir(), pieces)
	require.NoError(t, err)
	t.Cleanup(func() { x.Close() })
	return x
}

// mixed is content with zero pieces, a part of one at the end included.
func mixed(size int) []byte {
	data := content(uint64(size), size)
	for n := 1; n*piece < size; n += 3 {
		clear(data[n*piece : min(size, (n+1)*piece)])
	}
	return data
}

func TestStream(t *testing.T) {
	for _, size := range []int{0, 1, piece - 1, piece, piece + 1, 2 * piece, 2*piece + 1, 9*piece + 777, 23 * piece} {
		for _, room := range []int64{2, 8, 256} {
			t.Run(fmt.Sprintf("%d bytes, room for %d pieces", size, room), func(t *testing.T) {
				data := mixed(size)
				x := smallStream(t, &produced{Reader: bytes.NewReader(data)}, room)
				g := newTarget(t)
				res, err := g.imp(served{x}).Run(t.Context())
				require.NoError(t, err)
				g.holds(t, data)
				require.Equal(t, b3sum(t, g.path()), res.Digest)
				require.Equal(t, res.Digest, x.Digest())
				require.EqualValues(t, size, res.Size)
				require.EqualValues(t, size, x.Size())
			})
		}
	}
}

// TestStreamWaits: the producer is read no further than the spool has room, and
// goes on with what the reader is done with.
func TestStreamWaits(t *testing.T) {
	p := &produced{Reader: bytes.NewReader(content(1, 12*piece))}
	x := smallStream(t, p, 4)
	read := func(from, done int64) transfer.Window {
		rc, err := served{x}.Window(t.Context(), from, 64, done)
		require.NoError(t, err)
		defer rc.Close()
		w, err := transfer.ReadWindow(rc, from, 64, func(transfer.File, transfer.Entry) error { return nil })
		require.NoError(t, err)
		return w
	}
	require.EqualValues(t, 4, read(0, 0).Next)
	require.LessOrEqual(t, p.given.Load(), int64(6*piece), "one piece in hand, one begun")
	require.EqualValues(t, 4, read(4, 0).Next, "an empty window")
	require.EqualValues(t, 6, read(4, 2).Next)
	_, err := x.Content(t.Context(), piece, 10)
	requireCode(t, api.BadRange, err)
	requireCode(t, api.BadRange, x.Window(t.Context(), 0, 64, 7, io.Discard))
	rc, err := x.Content(t.Context(), 2*piece+3, piece)
	require.NoError(t, err)
	got, err := io.ReadAll(rc)
	require.NoError(t, err)
	require.Equal(t, content(1, 12*piece)[2*piece+3:][:piece], got)
}

// TestStreamCutAndResumed: values stay when content is forgotten, so a reader that was
// killed begins again at the first piece.
func TestStreamCutAndResumed(t *testing.T) {
	data := mixed(20*piece + 9)
	x := smallStream(t, &produced{Reader: bytes.NewReader(data)}, 6)
	g := newTarget(t)
	for cut := 1; ; cut++ {
		ctx, cancel := context.WithCancel(t.Context())
		f := &faulty{Source: served{x}, content: func(k int, off, length int64) *fault {
			if k == 4 && cut < 4 {
				cancel()
			}
			if k%2 == 0 {
				return &fault{cut: length/2 + 1}
			}
			return nil
		}}
		res, err := g.imp(f).Run(ctx)
		cancel()
		if err != nil {
			requireCode(t, api.CancelledBy, err)
			continue
		}
		require.Equal(t, 4, cut)
		g.holds(t, data)
		require.Equal(t, b3sum(t, g.path()), res.Digest)
		require.LessOrEqual(t, f.bytes.Load(), int64(len(data)), "nothing that was durable is fetched again")
		return
	}
}

func TestStreamOntoWhatIsThere(t *testing.T) {
	data := mixed(9*piece + 1)
	for name, there := range map[string][]byte{
		"equal": data, "shorter": data[:8*piece], "longer": append(bytes.Clone(data), 0), "zeros at the end": append(bytes.Clone(data), make([]byte, piece)...),
	} {
		t.Run(name, func(t *testing.T) {
			x := smallStream(t, &produced{Reader: bytes.NewReader(data)}, 3)
			g := newTarget(t)
			require.NoError(t, os.WriteFile(g.path(), there, 0o600))
			res, err := g.imp(served{x}).Run(t.Context())
			if name == "equal" {
				require.NoError(t, err)
				require.Equal(t, api.TargetThere, res.Target)
			} else {
				requireCode(t, api.Exists, err)
			}
			g.holds(t, there)
		})
	}
}

// TestStreamReplaces: an old copy gives what it has, and a dry run reads the whole
// manifest although nothing becomes durable.
func TestStreamReplaces(t *testing.T) {
	data := mixed(9*piece + 1)
	old := bytes.Clone(data)
	copy(old[2*piece:], "changed")
	for _, dry := range []bool{true, false} {
		x := smallStream(t, &produced{Reader: bytes.NewReader(data)}, 3)
		g := newTarget(t)
		require.NoError(t, os.WriteFile(g.path(), old, 0o600))
		im := g.imp(served{x})
		im.Mode, im.DryRun = api.ModeReplace, dry
		res, err := im.Run(t.Context())
		require.NoError(t, err)
		require.Equal(t, dry, res.DryRun)
		require.Equal(t, x.Digest(), res.Digest)
		g.holds(t, map[bool][]byte{true: old, false: data}[dry])
	}
}

// TestStreamProducerFails: whatever came before, the end is never said.
func TestStreamProducerFails(t *testing.T) {
	for name, p := range map[string]*produced{
		"at the end":    {Reader: bytes.NewReader(content(1, 5*piece)), finish: api.Stalled.Err("no")},
		"when empty":    {Reader: strings.NewReader(""), finish: api.Stalled.Err("no")},
		"while reading": {Reader: io.MultiReader(bytes.NewReader(content(1, 5*piece)), failing{api.Stalled.Err("no")})},
	} {
		t.Run(name, func(t *testing.T) {
			x := smallStream(t, p, 3)
			g := newTarget(t)
			_, err := g.imp(served{x}).Run(t.Context())
			requireCode(t, api.Stalled, err)
			require.NoFileExists(t, g.path())
			require.Empty(t, x.Digest())
			require.Positive(t, p.stopped.Load())
		})
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// TestStreamClosed: closing ends a producer that is read from and one that has no
// room.
func TestStreamClosed(t *testing.T) {
	r, w := io.Pipe()
	x, err := transfer.OpenSmallStream(&blocked{PipeReader: r}, t.TempDir(), 2)
	require.NoError(t, err)
	require.NoError(t, x.Close())
	_, err = w.Write([]byte("x"))
	require.Error(t, err)
	x, err = transfer.OpenSmallStream(&produced{Reader: bytes.NewReader(content(1, 9*piece))}, t.TempDir(), 2)
	require.NoError(t, err)
	require.NoError(t, x.Close())
}

type blocked struct {
	*io.PipeReader
	once sync.Once
}

func (b *blocked) Finish() error { return nil }
func (b *blocked) Stop()         { b.once.Do(func() { b.CloseWithError(errors.New("stopped")) }) }

// TestStreamLeavesNothing: the spool has no name.
func TestStreamLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	x, err := transfer.OpenSmallStream(&produced{Reader: bytes.NewReader(content(1, 3*piece))}, dir, 4)
	require.NoError(t, err)
	defer x.Close()
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	require.Empty(t, left)
}

// TestStreamLies: what a source of a stream must not say.
func TestStreamLies(t *testing.T) {
	v := transfer.HashPiece(make([]byte, piece), 0, false)
	first, digest := string(transfer.StreamBytes()), transfer.FormatDigest(v)
	entry := func(n int64) string {
		return string(transfer.EntryBytes(transfer.Entry{N: n, Count: 1, Value: v}))
	}
	for name, s := range map[string]string{
		"an end without a piece":       first + string(transfer.EndBytes(0, digest)),
		"a size of fewer pieces":       first + entry(0) + entry(1) + string(transfer.EndBytes(piece, digest)),
		"a size of more pieces":        first + entry(0) + string(transfer.EndBytes(piece+1, digest)),
		"a negative size":              first + entry(0) + string(transfer.EndBytes(-1, digest)),
		"a size beyond all":            first + entry(0) + string(transfer.EndBytes(transfer.MaxSize+1, digest)),
		"a gap":                        first + entry(1),
		"two first lines":              first + first,
		"a window that ends elsewhere": first + entry(0) + string(transfer.WindowBytes(2)),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := transfer.ReadWindow(strings.NewReader(s), 0, 64, func(transfer.File, transfer.Entry) error { return nil })
			requireCode(t, api.BadManifest, err)
		})
	}
	t.Run("empty windows for ever", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		_, err := newTarget(t).imp(emptyWindows{}).Run(ctx)
		requireCode(t, api.BadManifest, err)
	})
}

type emptyWindows struct{ transfer.Source }

func (emptyWindows) Window(_ context.Context, from, n, done int64) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(string(transfer.StreamBytes()) + string(transfer.WindowBytes(from)))), nil
}
