package front

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/yookoala/gofast"
)

// maxStderr is what is kept of a responder's error stream for the log. gofast
// alone would keep all of it.
const maxStderr = 4 << 10

// gateway hands requests to a responder with gofast, wrapped for what gofast
// leaves open: it does not flush, hides that a responder died, reads an upload
// to its end although the answer is there, ends a broken upload like a complete
// one, has no deadlines, and pools dead sockets.
type gateway struct {
	socket, token string
	logf          func(format string, args ...any)
}

// silence is when an exchange is given up in which the socket was not even
// read: gofast keeps still for ever after a reply that it cannot parse.
const silence = handlerIdle + clientWriteIdle

func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, giveUp := context.WithCancel(r.Context())
	defer giveUp()
	x := &exchange{
		w: w, rc: http.NewResponseController(w), client: r.Context(), r: r.WithContext(ctx), giveUp: giveUp,
		noBody: r.Method == http.MethodHead, want: -1, bodyDone: r.Body == http.NoBody,
	}
	dial := func() (net.Conn, error) {
		d := net.Dialer{Timeout: dialTimeout}
		c, err := d.DialContext(ctx, "unix", g.socket)
		if err != nil {
			return nil, err
		}
		x.conn = &scanConn{Conn: c, end: x.replyEnded, watch: time.AfterFunc(silence, giveUp)}
		return x.conn, nil
	}
	client, err := gofast.SimpleClientFactory(dial)()
	if err != nil {
		g.logf("embedded front: dialling the responder: %v", err)
		http.Error(w, "no responder", http.StatusBadGateway)
		return
	}
	defer client.Close()
	defer x.conn.watch.Stop()
	// The answer may begin while the body is still being read, and may be the
	// reason to stop reading it. Not before: where nobody is dialled nobody reads
	// the body, and net/http would trip over its own reading.
	if err := x.rc.EnableFullDuplex(); err != nil {
		g.logf("embedded front: full duplex: %v", err)
	}
	// A client that leaves closes the responder's socket at once: the only
	// cancel signal that FastCGI servers give.
	defer context.AfterFunc(ctx, func() { x.conn.Close() })()
	g.exchange(client, x)
}

func (g *gateway) exchange(client gofast.Client, x *exchange) {
	req := gofast.NewRequest(x.r)
	req.Params = g.params(x.r)
	req.Stdin = &uploadBody{x: x}
	reply, err := client.Do(req)
	if err != nil {
		g.logf("embedded front: %v", err)
		http.Error(x.w, "no responder", http.StatusBadGateway)
		return
	}
	// Returns when gofast's goroutines have ended: both pipes are closed.
	stderr := &boundedText{}
	err = reply.WriteTo(x, stderr)
	if x.client.Err() != nil {
		return // nobody is listening, and the noise below has one cause
	}
	if stderr.Len() > 0 {
		g.logf("embedded front: responder's error stream: %q", stderr.String())
	}
	switch {
	case !x.wrote:
		g.logf("embedded front: no reply: %v", err)
		http.Error(x.w, "the responder gave no reply", http.StatusBadGateway)
	case err != nil, !x.conn.whole(), x.want >= 0 && x.got != x.want:
		// A reply that is not whole must not look whole: the connection breaks.
		g.logf("embedded front: reply cut after %d bytes (of %d, -1 unknown): %v", x.got, x.want, err)
		panic(http.ErrAbortHandler)
	}
}

// exchange is one request with its reply. Its methods are what gofast writes
// the reply to.
type exchange struct {
	w      http.ResponseWriter
	rc     *http.ResponseController
	client context.Context // ends when the client leaves
	r      *http.Request   // its context also ends by giveUp
	giveUp context.CancelFunc
	conn   *scanConn
	noBody bool // the reply has none, whatever its Content-Length says

	wrote     bool
	got, want int64 // bytes of the reply's body; want < 0: not announced

	replied  atomic.Bool // the responder has ended the request
	bodyMu   sync.Mutex  // guards bodyDone against the read deadline
	bodyDone bool
}

func (x *exchange) Header() http.Header { return x.w.Header() }

func (x *exchange) WriteHeader(code int) {
	h := x.w.Header()
	if code == http.StatusInternalServerError && len(h) == 0 {
		x.giveUp() // gofast's own word for "no headers"; it reads no further
		return
	}
	// Orders to a front that sends files: this one does not, and the client
	// has no business with paths.
	for name := range h {
		if name == "X-Sendfile" || strings.HasPrefix(name, "X-Accel-") {
			h.Del(name)
		}
	}
	x.noBody = x.noBody || code == http.StatusNoContent || code == http.StatusNotModified
	if n, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64); err == nil && !x.noBody {
		x.want = n
	}
	x.wrote = true
	x.deadline()
	x.w.WriteHeader(code)
	x.rc.Flush()
}

// deadline gives the client time for the next write.
func (x *exchange) deadline() { x.rc.SetWriteDeadline(time.Now().Add(clientWriteIdle)) }

// Write passes on what one FastCGI record brought, at once.
func (x *exchange) Write(p []byte) (int, error) {
	if !x.wrote {
		return 0, errors.New("reply without headers")
	}
	x.deadline()
	n, err := x.w.Write(p)
	x.got += int64(n)
	if err == nil {
		err = x.rc.Flush()
	}
	if err != nil {
		x.conn.Close() // the handler has no reader any more
	}
	return n, err
}

// ReadFrom exists because io.Copy would otherwise go through gofast's header
// buffer, 1 KiB at a time.
func (x *exchange) ReadFrom(r io.Reader) (int64, error) {
	buf := make([]byte, 64<<10) // one FastCGI record
	var sum int64
	for {
		n, err := r.Read(buf)
		if n > 0 {
			m, werr := x.Write(buf[:n])
			sum += int64(m)
			if werr != nil {
				return sum, werr
			}
		}
		if err == io.EOF {
			return sum, nil
		}
		if err != nil {
			return sum, err
		}
	}
}

// replyEnded is called when the responder has said its last word, or is gone.
// An upload that is still running has lost its purpose.
func (x *exchange) replyEnded() {
	x.replied.Store(true)
	x.bodyMu.Lock()
	defer x.bodyMu.Unlock()
	if !x.bodyDone {
		x.rc.SetReadDeadline(time.Unix(1, 0)) // wakes a Read that waits for the client
	}
}

// mayRead says whether the body is still wanted, and gives the client time.
func (x *exchange) mayRead() error {
	x.bodyMu.Lock()
	defer x.bodyMu.Unlock()
	switch {
	case x.bodyDone:
		return io.EOF
	case x.replied.Load():
		return errors.New("upload stopped: the responder has answered")
	}
	x.rc.SetReadDeadline(time.Now().Add(bodyIdle))
	return nil
}

// bodyEnded leaves the connection to net/http, which from here on watches for
// the client's leaving.
func (x *exchange) bodyEnded() {
	x.bodyMu.Lock()
	defer x.bodyMu.Unlock()
	x.bodyDone = true
	if !x.replied.Load() {
		x.rc.SetReadDeadline(time.Time{})
	}
}

// uploadBody is the request's body as gofast reads it.
type uploadBody struct{ x *exchange }

// Read never returns 0 bytes without an error: gofast takes that for the end.
func (b *uploadBody) Read(p []byte) (int, error) {
	for {
		err := b.x.mayRead()
		if err == io.EOF {
			return 0, io.EOF
		}
		var n int
		if err == nil {
			n, err = b.x.r.Body.Read(p)
		}
		switch {
		case err == io.EOF:
			b.x.bodyEnded()
			if n == 0 {
				return 0, io.EOF
			}
			return n, nil // the next Read says EOF
		case err != nil:
			return b.broken(err)
		case n > 0:
			return n, nil
		}
	}
}

// broken closes the socket before gofast can send the empty STDIN record that
// would make a truncated body look complete.
func (b *uploadBody) broken(err error) (int, error) {
	if !b.x.replied.Load() {
		b.x.conn.Close()
	}
	return 0, err
}

func (b *uploadBody) Close() error { return nil } // net/http closes the body

// boundedText keeps the beginning of what is written to it.
type boundedText struct{ strings.Builder }

func (t *boundedText) Write(p []byte) (int, error) {
	if room := maxStderr - t.Len(); room > 0 {
		t.Builder.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// scanConn is a responder's socket. It sets deadlines, asks the responder to
// close after one request, and watches for the record that ends the reply.
type scanConn struct {
	net.Conn
	end func() // called once, when the reply has ended or the socket failed

	watch  *time.Timer
	once   sync.Once
	sent   bool // the first record is out
	head   [8]byte
	filled int // of head
	skip   int // bytes of content and padding still to come
	status endStatus
	sawEnd atomic.Bool
}

// endStatus collects the content of FCGI_END_REQUEST, section 5.5.
type endStatus struct {
	content [8]byte
	filled  int
}

// ok is true for application status 0, FCGI_REQUEST_COMPLETE.
func (e *endStatus) ok() bool { return e.filled == 8 && [5]byte(e.content[:5]) == [5]byte{} }

const (
	typeEndRequest = 3 // FastCGI specification, section 8: FCGI_END_REQUEST
	flagsOffset    = 8 + 2
)

// whole says whether the reply ended as it should. A responder whose handler
// panicked ends it with another status than 0.
func (c *scanConn) whole() bool { return c.sawEnd.Load() && c.status.ok() }

func (c *scanConn) Write(p []byte) (int, error) {
	if !c.sent && len(p) > flagsOffset {
		// gofast sets FCGI_KEEP_CONN always; with one socket per request the
		// responder shall close it.
		p = bytes.Clone(p) // the caller's own
		p[flagsOffset] = 0
		c.sent = true
	}
	c.SetWriteDeadline(time.Now().Add(handlerIdle))
	n, err := c.Conn.Write(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.Close()
	}
	return n, err
}

func (c *scanConn) Read(p []byte) (int, error) {
	c.watch.Reset(silence)
	c.SetReadDeadline(time.Now().Add(handlerIdle))
	n, err := c.Conn.Read(p)
	c.scan(p[:n])
	if c.sawEnd.Load() {
		c.Close() // gofast reads no further, and a blocked Write ends
	}
	if err != nil || c.sawEnd.Load() {
		c.once.Do(c.end)
	}
	return n, err
}

// scan follows the record headers (FastCGI specification, section 3.3).
func (c *scanConn) scan(p []byte) {
	for len(p) > 0 && !c.sawEnd.Load() {
		if c.skip > 0 {
			n := min(c.skip, len(p))
			if c.head[1] == typeEndRequest {
				c.status.filled += copy(c.status.content[c.status.filled:], p[:n])
			}
			c.skip -= n
			p = p[n:]
		} else {
			n := copy(c.head[c.filled:], p)
			c.filled += n
			p = p[n:]
			if c.filled < len(c.head) {
				return
			}
			c.filled = 0
			c.skip = int(c.head[4])<<8 + int(c.head[5]) + int(c.head[6])
		}
		if c.skip == 0 && c.head[1] == typeEndRequest {
			c.sawEnd.Store(true)
		}
	}
}
