package node

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzRange holds every accepted header to what it says: the part lies within
// the file, and written out again it means the same part.
func FuzzRange(f *testing.F) {
	f.Fuzz(func(t *testing.T, header string, size int64) {
		if size < 0 {
			return
		}
		s, err := parseRange(header, size)
		if err != nil {
			require.Zero(t, s)
			return
		}
		require.GreaterOrEqual(t, s.off, int64(0))
		require.LessOrEqual(t, s.off, size)
		require.GreaterOrEqual(t, size-s.off, s.length)
		if !s.partial {
			require.Equal(t, span{0, size, false}, s)
			return
		}
		require.Positive(t, s.length)
		again, err := parseRange(fmt.Sprintf("bytes=%d-%d", s.off, s.off+s.length-1), size)
		require.NoError(t, err)
		require.Equal(t, s, again)
		h := http.Header{}
		require.Equal(t, http.StatusPartialContent, s.header(h, size))
		require.Equal(t, fmt.Sprintf("bytes %d-%d/%d", s.off, s.off+s.length-1, size), h.Get("Content-Range"))
	})
}
