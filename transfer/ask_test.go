package transfer_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"

	"gantry/api"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

// Under a low rate nothing is asked for that the sockets on the way do not hold;
// what comes is the same.
func TestLimitedContentIsAskedForInParts(t *testing.T) {
	data := make([]byte, 3<<20)
	for i := range data {
		data[i] = byte(i / 1000)
	}
	ranges := []transfer.Range{{At: 5, Len: 1000}, {At: 2000, Len: 1 << 20}, {At: 2 << 20, Len: 70_000}}
	want := append([]byte("magic"), data[5:1005]...)
	want = append(append(want, data[2000:2000+1<<20]...), data[2<<20:2<<20+70_000]...)
	for rate, most := range map[int64]int64{0: 2 << 20, api.MinBandwidth: 64 << 10, 1 << 20: 128 << 10, 3 << 20: 256 << 10, 100 << 20: 2 << 20} {
		synctest.Test(t, func(t *testing.T) {
			limit := transfer.NewLimit(rate)
			asked, open := 0, 0
			rc, err := transfer.Limits{limit}.Ask(t.Context(), ranges, 5, func(_ context.Context, part []transfer.Range) (io.ReadCloser, error) {
				asked++
				open++
				require.Equal(t, 1, open, "a reply was left open")
				b := []byte("magic")
				var sum int64
				for _, r := range part {
					sum += r.Len
					b = append(b, data[r.At:r.At+r.Len]...)
				}
				require.LessOrEqual(t, sum, most)
				return &closing{bytes.NewReader(b), func() { open-- }}, nil
			})
			require.NoError(t, err)
			got, err := io.ReadAll(rc)
			require.NoError(t, err)
			require.True(t, bytes.Equal(want, got))
			require.NoError(t, rc.Close())
			require.Zero(t, open)
			require.Equal(t, most == 2<<20, asked == 1)
		})
	}
}

type closing struct {
	io.Reader
	close func()
}

func (c *closing) Close() error { c.close(); return nil }

// A later part that is refused, or that ends in its beginning, is an error.
func TestLimitedContentThatEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, second := range []func() (io.ReadCloser, error){
			func() (io.ReadCloser, error) { return nil, api.SourceChanged.Err("changed") },
			func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader([]byte("ma"))), nil },
		} {
			first := true
			rc, err := transfer.Limits{transfer.NewLimit(api.MinBandwidth)}.Ask(t.Context(), []transfer.Range{{At: 0, Len: 1 << 20}}, 5,
				func(_ context.Context, part []transfer.Range) (io.ReadCloser, error) {
					if !first {
						return second()
					}
					first = false
					return io.NopCloser(bytes.NewReader(make([]byte, part[0].Len+5))), nil
				})
			require.NoError(t, err)
			got, err := io.ReadAll(rc)
			require.Error(t, err)
			require.Len(t, got, 64<<10+5)
			require.NoError(t, rc.Close())
		}
		_, err := transfer.Limits{}.Ask(t.Context(), []transfer.Range{{At: 0, Len: 1}}, 0, func(context.Context, []transfer.Range) (io.ReadCloser, error) {
			return nil, errors.New("nobody there")
		})
		require.ErrorContains(t, err, "nobody there")
	})
}
