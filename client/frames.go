package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"gantry/api"
	"gantry/transfer"
)

// Sub returns manifest lines with the values of the parts of pieces.
func (c *Client) Sub(ctx context.Context, task string, pieces []int64, ticket string) (io.ReadCloser, error) {
	return c.manifest(ctx, task, ticket, url.Values{"piece": {numbers(pieces)}, "sub": {strconv.Itoa(transfer.PartSize)}})
}

func numbers(pieces []int64) string {
	list := make([]string, len(pieces))
	for i, n := range pieces {
		list[i] = strconv.FormatInt(n, 10)
	}
	return strings.Join(list, ",")
}

// Frames returns ranges of an export as frames, for a transfer.FrameReader;
// compress lets the source pack what is worth it. That the reply ends in good
// order means nothing: only the frames tell whether it is whole.
func (c *Client) Frames(ctx context.Context, task, ticket string, ranges []transfer.Range, compress bool) (io.ReadCloser, error) {
	list := make([]string, len(ranges))
	for i, r := range ranges {
		list[i] = fmt.Sprintf("%d-%d", r.At, r.Len)
	}
	q := url.Values{"r": {strings.Join(list, ",")}}
	if compress {
		q.Set("zstd", "1")
	}
	return c.stream(ctx, call{
		method: http.MethodGet, path: taskPath(task, "/pieces"), query: q, ticket: ticket, accept: api.TypeFrames, bulk: true,
	})
}
