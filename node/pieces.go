package node

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"gantry/api"
	"gantry/transfer"
)

// again reads piece=K&rehash=1, the piece to read again, or piece=K,K,…&sub=65536,
// the pieces whose parts are asked for; how is "" when it is neither.
func again(r *http.Request) (pieces []int64, how string, err error) {
	q := r.URL.Query()
	if !q.Has("piece") && !q.Has("rehash") && !q.Has("sub") {
		return nil, "", nil
	}
	pieces, err = parsePieces(q)
	switch {
	case err != nil:
		return nil, "", err
	case q.Get("sub") == strconv.Itoa(transfer.PartSize) && !q.Has("rehash"):
		return pieces, "sub", nil
	case q.Get("rehash") == "1" && !q.Has("sub") && len(pieces) == 1:
		return pieces, "rehash", nil
	}
	return nil, "", api.BadRequest.Err(fmt.Sprintf("piece: allowed is one number with rehash=1, or up to %d with sub=%d", api.MaxSub, transfer.PartSize))
}

// sub writes the values of parts, where the kind of export has them.
func (e *exporter) sub(ctx context.Context, pieces []int64, w io.Writer) error {
	x, ok := e.x.(transfer.Parter)
	if !ok {
		return api.BadRequest.Err("sub: this kind of export has no parts")
	}
	return x.Sub(ctx, pieces, w)
}

// servePieces streams ranges as frames.
func (n *Node) servePieces(w http.ResponseWriter, r *http.Request) error {
	t, err := n.readableExport(r)
	if err != nil {
		return err
	}
	ranges, err := parseRanges(r.URL.Query().Get("r"))
	if err != nil {
		return err
	}
	packed, err := number(r, "zstd", 0, 0, 1)
	if err != nil {
		return err
	}
	return n.useExport(r.Context(), t, func(ctx context.Context, e *exporter) error {
		if err := e.x.Check(); err != nil {
			return err
		}
		err := transfer.WriteFrames(ctx, e.x, ranges, packed == 1, e.limited(ctx, w, &framed{w: w, e: e, t: t}))
		if err != nil {
			err = cmpCause(ctx, err)
		}
		return err
	})
}

// framed counts what is sent, and sends the header with the first frame: an
// error before it is answered with problem JSON.
type framed struct {
	w     http.ResponseWriter
	e     *exporter
	t     *task
	begun bool
}

func (f *framed) Write(p []byte) (int, error) {
	if !f.begun {
		f.begun = true
		h := f.w.Header()
		h.Set("Content-Type", api.TypeFrames)
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
	}
	n, err := f.w.Write(p)
	f.e.sent.Add(int64(n))
	f.t.touch()
	return n, err
}
