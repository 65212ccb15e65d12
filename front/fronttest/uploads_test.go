package fronttest_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/front"
	"gantry/front/selftest"
)

// counted counts what the client has sent.
type counted struct {
	io.Reader
	n atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n.Add(int64(n))
	return n, err
}

func (p *peer) upload(t *testing.T, path string, body io.Reader, length int64) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.base+path, body)
	require.NoError(t, err)
	req.ContentLength = length
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := p.http.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp, data
}

// early uploads until an answer comes, and says how much had been sent by then.
// It looks at the socket: after an early answer lighttpd resets the
// connection, and Go's client then now and then tells of its failed write
// instead of the answer that it already has.
//
// length is what the request announces; -1 sends the body chunked. data is what
// came of the answer's body before the reset, if there was one.
func (p *peer) early(t *testing.T, path string, size, length int64) (status int, sent int64, data []byte) {
	t.Helper()
	conn, err := tls.Dial("tcp", p.addr, p.tls)
	require.NoError(t, err)
	defer conn.Close()
	body := &counted{Reader: selftest.NewContent(size)}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.base+path, body)
	require.NoError(t, err)
	req.ContentLength = length
	written := make(chan struct{})
	go func() {
		defer close(written)
		req.Write(conn) // until the front has enough
	}()
	resp, err := http.ReadResponse(bufio.NewReader(conn), req)
	sent = body.n.Load()
	require.NoError(t, err)
	data, _ = io.ReadAll(resp.Body)
	conn.Close() // as every client does that has its answer
	<-written
	return resp.StatusCode, sent, data
}

func refusedEarly(t *testing.T, w *world) string {
	const size = 300_000_000
	status, sent, _ := w.client(t).early(t, "selftest/refuse", size, size)
	t.Logf("%d of %d bytes sent when the answer came", sent, size)
	text := fmt.Sprint(status)
	if sent < size/4 {
		text += ", upload stopped"
	}
	return text
}

// uploadSize is more than all buffers between client and handler hold.
const uploadSize = 24 << 20

func slowUpload(t *testing.T, w *world) string {
	const size = uploadSize
	const pause = 5 * time.Second // longer than a front that takes it needs
	body := &counted{Reader: selftest.NewContent(size)}
	from, all := time.Now(), make(chan time.Duration, 1)
	watched := watchEnd{body, func() { all <- time.Since(from) }}
	resp, data := w.client(t).upload(t, fmt.Sprintf("selftest/slow-read?pause=%s", pause), watched, size)
	require.Equal(t, http.StatusOK, resp.StatusCode, "%s", data)
	got := decode[selftest.Upload](t, data)
	text := "held back"
	took := <-all
	if took < pause*9/10 {
		text = "taken at once"
	}
	t.Logf("client had sent all after %s", took)
	if got.Bytes == size && got.Error == "" {
		text += "; all bytes arrived"
	}
	return text
}

// watchEnd says when the last byte was fetched for sending.
type watchEnd struct {
	*counted
	end func()
}

func (w watchEnd) Read(p []byte) (int, error) {
	n, err := w.counted.Read(p)
	if w.n.Load() == uploadSize && n > 0 {
		w.end()
	}
	return n, err
}

func chunkedUpload(t *testing.T, w *world) string {
	const size = 1 << 20
	status, _, data := w.client(t).early(t, "selftest/echo", size, -1)
	if status != http.StatusOK {
		return fmt.Sprint(status)
	}
	got := decode[selftest.Upload](t, data)
	require.Empty(t, got.Error)
	return fmt.Sprintf("%d, %d bytes", status, got.Bytes)
}

func tooLarge(t *testing.T, w *world) string {
	const size = front.DefaultMaxUpload + 1024
	status, _, _ := w.client(t).early(t, "selftest/echo", size, size)
	return fmt.Sprint(status)
}

// brokenUpload ends the connection in mid-body; the handler must not take the
// part for the whole.
func brokenUpload(t *testing.T, w *world) string {
	const size, part = 8 << 20, 3 << 20
	id := newID()
	r, wr := io.Pipe()
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.client(t).base+"selftest/cancel/start?mode=read&id="+id, r)
	require.NoError(t, err)
	req.ContentLength = size
	uploader := w.client(t)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		if resp, err := uploader.http.Do(req); err == nil {
			resp.Body.Close()
		}
	}()
	_, err = io.Copy(wr, selftest.NewContent(part))
	require.NoError(t, err)
	w.client(t).get(t, "selftest/cancel/ask?until=started&id="+id)
	wr.CloseWithError(io.ErrClosedPipe)
	<-gone
	_, data := w.client(t).get(t, "selftest/cancel/ask?until=ended&id="+id)
	got := decode[selftest.Cancel](t, data)
	t.Logf("%+v", got)
	require.True(t, got.Left)
	if got.Bytes >= size || got.Complete {
		return "body complete"
	}
	return "body incomplete"
}
