package node

import (
	"fmt"
	"testing"

	"gantry/api"

	"github.com/stretchr/testify/require"
)

// FuzzContentRange holds every accepted header to what it says: written out
// again it is the same header, but for leading zeros.
func FuzzContentRange(f *testing.F) {
	f.Fuzz(func(t *testing.T, header string) {
		off, length, total, err := parseContentRange(header)
		if err != nil {
			require.True(t, isCode(err, api.BadRequest))
			require.Zero(t, [3]int64{off, length, total})
			return
		}
		require.GreaterOrEqual(t, off, int64(0))
		require.Positive(t, length)
		require.LessOrEqual(t, off, int64(maxNumber)-length)
		again := fmt.Sprintf("bytes %d-%d/*", off, off+length-1)
		if total >= 0 {
			require.GreaterOrEqual(t, total, off+length)
			again = fmt.Sprintf("bytes %d-%d/%d", off, off+length-1, total)
		}
		off2, length2, total2, err := parseContentRange(again)
		require.NoError(t, err)
		require.Equal(t, [3]int64{off, length, total}, [3]int64{off2, length2, total2})
		require.LessOrEqual(t, len(again), len(header))
	})
}
