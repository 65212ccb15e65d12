package node

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"gantry/api"

	"github.com/stretchr/testify/require"
)

// FuzzPieces: what is accepted is bounded, not negative, and means the same when
// it is written again.
func FuzzPieces(f *testing.F) {
	f.Fuzz(func(t *testing.T, list string) {
		if pieces, err := parsePieces(url.Values{"piece": {list}}); err == nil {
			require.LessOrEqual(t, len(pieces), api.MaxSub)
			again, err := parsePieces(url.Values{"piece": {strings.Trim(strings.ReplaceAll(fmt.Sprint(pieces), " ", ","), "[]")}})
			require.NoError(t, err)
			require.Equal(t, pieces, again)
		}
		ranges, err := parseRanges(list)
		if err != nil {
			return
		}
		require.LessOrEqual(t, len(ranges), api.MaxRanges)
		for _, r := range ranges {
			require.GreaterOrEqual(t, r.At, int64(0))
			require.GreaterOrEqual(t, r.Len, int64(0))
		}
	})
}
