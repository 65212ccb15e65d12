package fastcgi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// response is the http.ResponseWriter of one request. What is written waits in
// buf until Flush, until a record is full or until the handler returns.
//
// The lock is not there for handlers that write from several goroutines (their
// lines would mix) but for those that forget one: a write after the end must not
// reach the next request on the connection.
type response struct {
	// config
	c      *conn
	req    *request
	isHead bool

	over bool // done, for SetWriteDeadline; guarded by c.w.deadlineMu

	// guarded by mu
	mu      sync.Mutex
	header  http.Header
	status  int   // 0 before WriteHeader
	length  int64 // the handler's Content-Length, -1 without one
	written int64
	head    *buffer // header lines, until they are sent
	buf     *buffer // body not yet sent
	sent    bool    // something is on the wire
	done    bool    // the handler has returned
}

var errDone = errors.New("fastcgi: write after the handler returned")

// Header returns the header lines that WriteHeader will send.
func (w *response) Header() http.Header { return w.header }

// WriteHeader fixes status and header. Interim replies (1xx) are not sent: CGI
// has no place for them.
func (w *response) WriteHeader(status int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writeHeader(status)
}

func (w *response) writeHeader(status int) {
	if status < 100 || status > 999 {
		panic(fmt.Sprintf("fastcgi: invalid status %d", status)) // as net/http does
	}
	if w.status != 0 || w.done || status < 200 {
		return
	}
	w.status, w.length = status, -1
	if s := w.header.Get("Content-Length"); s != "" {
		if n, err := strconv.ParseUint(s, 10, 63); err == nil && bodyAllowed(status) {
			w.length = int64(n)
		} else if err != nil {
			w.header.Del("Content-Length")
		}
	}
	w.head = smallBuffer()
	w.head.b = appendHeader(w.head.b, status, w.header)
}

// appendHeader writes the header block of RFC 3875, section 6, without the empty
// line at its end.
func appendHeader(b []byte, status int, h http.Header) []byte {
	text := http.StatusText(status)
	if text == "" {
		text = "Status"
	}
	b = append(b, "Status: "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(append(append(b, ' '), text...), "\r\n"...)
	for name, values := range h {
		if !token(name) || hopByHop(name) || name == "Content-Length" && status == http.StatusNoContent {
			continue
		}
		for _, v := range values {
			b = append(append(b, name...), ": "...)
			b = appendClean(b, v)
			b = append(b, "\r\n"...)
		}
	}
	return b
}

// appendClean replaces what could end a header line, or make the front refuse
// the reply, by spaces.
func appendClean(b []byte, v string) []byte {
	for i := range len(v) {
		c := v[i]
		if c < ' ' && c != '\t' || c == 0x7f {
			c = ' '
		}
		b = append(b, c)
	}
	return b
}

// hopByHop names what is the front's to say: RFC 9110, section 7.6.1, and the
// Status line of CGI.
func hopByHop(name string) bool {
	switch http.CanonicalHeaderKey(name) {
	case "Status", "Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return false
}

func bodyAllowed(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}

// Write buffers p or sends it, with what is buffered, without copying.
func (w *response) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.admit(len(p)); err != nil || len(p) == 0 {
		return 0, err
	}
	w.written += int64(len(p))
	if w.isHead {
		return len(p), nil
	}
	if err := w.buffer(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// buffer keeps p for later if everything unsent still fits in one record, and
// sends it with the rest if not.
func (w *response) buffer(p []byte) error {
	total := w.head.len() + w.buf.len() + len(p)
	if w.head != nil {
		total += len("\r\n") // which send adds
	}
	if total <= maxContent {
		w.buf = w.buf.append(p)
		return nil
	}
	// A short rest waits, so that a copy loop does not send a tiny record after
	// every full one.
	keep := total % alignedContent
	if keep > smallSize || keep >= len(p) {
		keep = 0
	}
	if err := w.send(nil, p[:len(p)-keep]); err != nil {
		return err
	}
	if keep > 0 {
		w.buf = w.buf.append(p[len(p)-keep:])
	}
	return nil
}

// ReadFrom makes io.Copy read straight into records, without a buffer of its own.
// Short reads are buffered as by Write.
func (w *response) ReadFrom(src io.Reader) (n int64, err error) {
	b := bigBuffer()
	defer b.free()
	for {
		m, err := src.Read(b.b[:alignedContent])
		if m > 0 {
			werr := w.copied(b.b[:m])
			if werr != nil {
				return n, werr
			}
			n += int64(m)
		}
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

func (w *response) copied(p []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.admit(len(p)); err != nil {
		return err
	}
	w.written += int64(len(p))
	switch {
	case w.isHead:
		return nil
	case len(p) < smallSize:
		return w.buffer(p)
	}
	return w.send(nil, p)
}

// admit decides whether n body bytes may be written.
func (w *response) admit(n int) error {
	if w.done {
		return errDone
	}
	if w.status == 0 {
		w.writeHeader(http.StatusOK)
	}
	switch {
	case n > 0 && !bodyAllowed(w.status):
		return http.ErrBodyNotAllowed
	case w.length >= 0 && w.written+int64(n) > w.length:
		return http.ErrContentLength
	}
	return w.stopped()
}

// stopped returns why nobody wants a reply any more. The loss of the client is
// no such reason: it may have closed only its sending half.
func (w *response) stopped() error {
	if w.req.ctx.Err() == nil {
		return nil
	}
	if err := context.Cause(w.req.ctx); errors.Is(err, ErrAborted) || errors.Is(err, ErrProtocol) {
		return err
	}
	return nil
}

// send puts header, buffer and p on the wire.
func (w *response) send(end *endStatus, p []byte) error {
	if w.head != nil {
		w.head.b = append(w.head.b, "\r\n"...)
	}
	head, buf := w.head, w.buf
	w.head, w.buf, w.sent = nil, nil, true
	defer head.free()
	defer buf.free()
	return w.c.w.stdout(w.req.id, end, head.bytes(), buf.bytes(), p)
}

// FlushError sends what is buffered as one record where it fits.
func (w *response) FlushError() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.admit(0); err != nil {
		return err
	}
	return w.send(nil, nil)
}

// Flush is FlushError for those who do not want to know.
func (w *response) Flush() { _ = w.FlushError() }

// SetReadDeadline bounds reads of the request body.
func (w *response) SetReadDeadline(t time.Time) error {
	w.req.body.setDeadline(t)
	return nil
}

// SetWriteDeadline bounds writes of this reply, within Limits.WriteTimeout for
// each. A write that fails by it ends the connection.
func (w *response) SetWriteDeadline(t time.Time) error {
	return w.c.w.setDeadline(t, &w.over)
}

// EnableFullDuplex has nothing to do.
func (w *response) EnableFullDuplex() error { return nil }

// fault makes the reply a 500. It reports false if something was sent already.
func (w *response) fault() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.sent {
		return false
	}
	w.head.free()
	w.buf.free()
	w.head, w.buf, w.status, w.written = nil, nil, 0, 0
	clear(w.header)
	w.header.Set("Content-Type", "text/plain; charset=utf-8")
	w.writeHeader(http.StatusInternalServerError)
	const text = "internal error\n"
	if w.written = int64(len(text)); !w.isHead {
		w.buf = w.buf.append([]byte(text))
	}
	return true
}

// close takes the response from the handler and returns what is left to send.
// It reports false if the reply must not look complete.
func (w *response) close() (head, buf *buffer, whole bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.status == 0 {
		w.writeHeader(http.StatusOK)
	}
	w.done = true
	head, buf = w.head, w.buf
	w.head, w.buf = nil, nil
	if head != nil {
		if w.length < 0 && bodyAllowed(w.status) && (!w.isHead || w.written > 0) {
			head.b = append(strconv.AppendInt(append(head.b, "Content-Length: "...), w.written, 10), "\r\n"...)
		}
		head.b = append(head.b, "\r\n"...)
	}
	return head, buf, w.isHead || w.length < 0 || w.written == w.length
}

// describe is for the log: a request line without its query, which may be secret.
func describe(r *http.Request) string {
	uri, _, _ := strings.Cut(r.RequestURI, "?")
	return r.Method + " " + uri
}
