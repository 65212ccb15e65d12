package transfer_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	"gantry/api"
	"gantry/transfer"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
)

// text is content that packs well.
func text(size int) []byte {
	return bytes.Repeat([]byte("a line of a log that is like all the others\n"), size/44+1)[:size]
}

func frames(t testing.TB, x transfer.Exporter, ranges []transfer.Range, compress bool) []byte {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, transfer.WriteFrames(context.Background(), x, ranges, compress, &b))
	return b.Bytes()
}

// TestFrames: the ranges come back as they are, packed where it pays and only
// there.
func TestFrames(t *testing.T) {
	data := append(content(1, piece), text(2*piece+5)...)
	x := export(t, data)
	ranges := []transfer.Range{{0, 1}, {transfer.PartSize, transfer.PartSize}, {piece - 10, 100}, {2*piece - 1, piece}, {int64(len(data)) - 1, 1}}
	var want []byte
	for _, r := range ranges {
		want = append(want, data[r.At:r.At+r.Len]...)
	}
	for _, compress := range []bool{false, true} {
		b := frames(t, x, ranges, compress)
		require.Equal(t, compress, len(b) < len(want), "%d bytes of %d", len(b), len(want))
		got, err := io.ReadAll(transfer.NewFrameReader(bytes.NewReader(b), ranges))
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got))
		got, err = io.ReadAll(transfer.NewFrameReader(iotest.OneByteReader(bytes.NewReader(b)), ranges))
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got))
	}
	incompressible := []transfer.Range{{0, piece}}
	require.Greater(t, len(frames(t, x, incompressible, true)), piece, "random bytes were packed")
}

// TestFramesCut: at whatever byte the reply ends, it is never taken for whole.
func TestFramesCut(t *testing.T) {
	x := export(t, append(content(1, 300), text(5000)...))
	ranges := []transfer.Range{{0, 100}, {300, 4000}}
	b := frames(t, x, ranges, true)
	for cut := range b {
		_, err := io.ReadAll(transfer.NewFrameReader(bytes.NewReader(b[:cut]), ranges))
		require.ErrorIs(t, err, io.ErrUnexpectedEOF, "cut at %d of %d", cut, len(b))
	}
}

// frame makes a frame by hand.
func frame(at uint64, n, clen uint32, codec byte, body []byte) string {
	h := make([]byte, 20)
	binary.LittleEndian.PutUint64(h, at)
	binary.LittleEndian.PutUint32(h[8:], n)
	binary.LittleEndian.PutUint32(h[12:], clen)
	h[16] = codec
	return string(h) + string(body)
}

const magic = "gantryF\x01"

// TestFramesHostileSource: frames that lie about at, len, codec and clen,
// bombs, and frames without end are refused, with bounded memory.
func TestFramesHostileSource(t *testing.T) {
	enc, err := zstd.NewWriter(nil)
	require.NoError(t, err)
	defer enc.Close()
	bomb := enc.EncodeAll(make([]byte, 64<<20), nil)
	short := enc.EncodeAll(make([]byte, 99), nil)
	ten := []byte("0123456789")
	ranges := []transfer.Range{{1000, 100}, {5000, 100}}
	first := frame(1000, 100, 100, 0, make([]byte, 100))
	for name, s := range map[string]string{
		"other magic":                     "gantryF\x02" + first,
		"at before":                       magic + frame(999, 10, 10, 0, ten),
		"at after":                        magic + frame(1001, 10, 10, 0, ten),
		"at beyond int64":                 magic + frame(1<<63+1000, 10, 10, 0, ten),
		"len zero":                        magic + frame(1000, 0, 0, 0, nil),
		"len beyond its range":            magic + frame(1000, 101, 101, 0, make([]byte, 101)),
		"len 4 GiB":                       magic + frame(1000, 1<<32-1, 1<<32-1, 0, ten),
		"clen less, not packed":           magic + frame(1000, 10, 9, 0, ten),
		"clen more, not packed":           magic + frame(1000, 10, 11, 0, ten),
		"clen more, packed":               magic + frame(1000, 10, 4000000000, 1, ten),
		"clen zero, packed":               magic + frame(1000, 10, 0, 1, nil),
		"codec unknown":                   magic + frame(1000, 10, 10, 2, ten),
		"reserved bits":                   magic + strings.Replace(frame(1000, 10, 10, 0, ten), "\x00\x00\x000", "\x00\x01\x000", 1),
		"the same again":                  magic + first + first,
		"a range left out":                magic + first + frame(5100, 1, 1, 0, ten[:1]),
		"a bomb":                          magic + frame(1000, 100, 99, 1, bomb[:99]),
		"packed with less than it claims": magic + frame(1000, 100, uint32(len(short)), 1, short),
		"packed with more than it claims": magic + frame(1000, 98, uint32(len(short)), 1, short),
		"no zstd":                         magic + frame(1000, 100, 10, 1, ten),
	} {
		_, err := io.ReadAll(transfer.NewFrameReader(strings.NewReader(s), ranges))
		requireCode(t, api.BadFrames, err)
		_ = name
	}
	big := []transfer.Range{{0, 256 << 10}}
	_, err = io.ReadAll(transfer.NewFrameReader(strings.NewReader(magic+frame(0, 256<<10, uint32(len(bomb)), 1, bomb)), big))
	requireCode(t, api.BadFrames, err)
	// Whatever follows the last byte is not read.
	endless := io.MultiReader(strings.NewReader(magic+first+frame(5000, 100, 100, 0, make([]byte, 100))), endlessReader{})
	got, err := io.ReadAll(transfer.NewFrameReader(endless, ranges))
	require.NoError(t, err)
	require.Len(t, got, 200)
}

type endlessReader struct{}

func (endlessReader) Read(p []byte) (int, error) { return len(p), nil }

func TestFramesRequest(t *testing.T) {
	x := export(t, content(1, 1000))
	for _, bad := range [][]transfer.Range{
		nil, {{0, 0}}, {{-1, 5}}, {{0, 1001}}, {{999, 2}}, {{0, 10}, {9, 1}}, {{10, 1}, {0, 1}}, {{0, 1 << 62}}, {{1 << 62, 1 << 62}},
		make([]transfer.Range, api.MaxRanges+1),
	} {
		requireCode(t, api.BadRange, transfer.WriteFrames(context.Background(), x, bad, false, io.Discard))
	}
	big := make([]transfer.Range, 64)
	for i := range big {
		big[i] = transfer.Range{At: int64(i) << 20, Len: 1 << 20}
	}
	requireCode(t, api.BadRange, transfer.CheckRanges(big, 1<<40)) // 64 MiB together
	require.NoError(t, transfer.CheckRanges(big[:16], 1<<40))
}

// FuzzFrames holds the reader to its word: what it gives has the length of the
// ranges or ends with an error, and honest frames come back.
func FuzzFrames(f *testing.F) {
	ranges := []transfer.Range{{0, 100}, {200, 4000}}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := io.ReadAll(transfer.NewFrameReader(bytes.NewReader(b), ranges))
		require.LessOrEqual(t, len(got), 4100)
		if err == nil {
			require.Len(t, got, 4100)
		}
		r := rand.New(rand.NewPCG(uint64(len(b)), 1))
		_, _ = io.CopyN(io.Discard, transfer.NewFrameReader(bytes.NewReader(b), ranges), r.Int64N(100))
	})
}

// TestPackedImport: on a slow line content that shrinks travels packed, what does
// not shrink as it is; the target is the source either way.
func TestPackedImport(t *testing.T) {
	data := append(text(6*piece+5), content(1, 2*piece)...)
	for compress, less := range map[string]bool{api.CompressAuto: true, api.CompressOff: false} {
		g, src := newTarget(t), &partSource{Source: direct{export(t, data)}}
		im := g.imp(src).SlowLine()
		im.Compress = compress
		res, err := im.Run(context.Background())
		require.NoError(t, err)
		g.holds(t, data)
		require.EqualValues(t, len(data), res.Bytes.Fetched)
		require.Equal(t, less, res.Wire < 3*piece, "%d bytes of %d", res.Wire, len(data))
		require.Equal(t, less, src.frameRequests.Load() > 0)
	}
}
