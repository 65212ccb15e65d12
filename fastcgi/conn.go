package fastcgi

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// conn is one connection. One goroutine, in serve, reads its records; one more
// runs the handler while there is a request.
type conn struct {
	// config
	server *Server
	nc     net.Conn
	raw    syscall.RawConn // nil if nc has none
	limits Limits
	peer   *Peer
	in     recordReader
	w      recordWriter

	// state of the reader
	refused  map[uint16]struct{} // ids whose records are to be passed over
	refusals int
	handlers sync.WaitGroup

	// guarded by mu
	mu        sync.Mutex
	req       *request  // from FCGI_BEGIN_REQUEST until its handler has returned
	last      *request  // the one before
	began     bool      // there has been a request
	finishing int       // replies being completed
	closing   bool      // Shutdown has begun
	ending    bool      // no request will follow: input is thrown away
	deadline  time.Time // of the next read
}

// request is what the reader and the handler's goroutine share.
type request struct {
	// config
	id       uint16
	keepConn bool

	// state of the reader
	params  *buffer // nil from the end of FCGI_PARAMS on
	tooLong bool

	// set when the parameters are complete
	handler http.Handler
	http    *http.Request
	ctx     context.Context
	cancel  context.CancelCauseFunc
	body    body

	// written by the reader, guarded by conn.mu
	started  bool // the handler runs
	stdinEnd bool
}

func newConn(s *Server, nc net.Conn) *conn {
	c := &conn{server: s, nc: nc, limits: s.Limits.withDefaults()}
	c.w.nc, c.w.timeout = nc, c.limits.WriteTimeout
	if sc, ok := nc.(syscall.Conn); ok {
		c.raw, _ = sc.SyscallConn() // without it a hang-up is seen later
	}
	return c
}

// serve owns the connection: it returns when both goroutines have ended.
func (c *conn) serve() {
	defer c.server.remove(c)
	defer c.nc.Close()
	if !c.allowed() {
		return
	}
	br := newReader(c.nc)
	defer freeReader(br)
	c.in = recordReader{br}
	c.awaitFirst()
	c.stop(c.readRecords())
	c.handlers.Wait()
}

// allowed asks AllowPeer.
func (c *conn) allowed() bool {
	peer, err := peerOf(c.nc)
	c.peer = peer
	allow := c.server.AllowPeer
	if allow == nil || peer != nil && allow(*peer) {
		return true
	}
	c.complain("FastCGI peer refused", "err", err)
	return false
}

// complain logs about the peer, at most once a minute for each message.
func (c *conn) complain(msg string, args ...any) {
	key := msg
	if c.peer != nil {
		key += " " + strconv.FormatUint(uint64(c.peer.UID), 10)
		args = append(args, "uid", c.peer.UID, "pid", c.peer.PID)
	}
	c.server.complain(key, msg, args...)
}

// stop ends the connection for the reason that reading ended.
func (c *conn) stop(reason error) {
	c.mu.Lock()
	req, ending := c.req, c.ending
	c.ending = true
	c.mu.Unlock()

	switch {
	case ending: // all was said; who still sends or stays has had its time
	case errors.Is(reason, ErrProtocol):
		c.complain("FastCGI connection closed", "reason", reason.Error())
		if req != nil {
			if req.started {
				req.fail(reason)
			}
			c.kill(req, reason)
			c.abandon(req, reason)
		}
		c.linger()
		_, _ = io.Copy(io.Discard, c.in.br)
		c.nc.Close()
	case errors.Is(reason, net.ErrClosed):
		c.abandon(req, ErrServerClosed)
	case isTimeout(reason):
		if req != nil || !c.began {
			c.complain("FastCGI connection closed", "reason", "parameters not complete in time")
		}
		c.abandon(req, ErrClientGone)
	default:
		if reason != io.EOF && !errors.Is(reason, syscall.ECONNRESET) {
			c.complain("FastCGI connection closed", "reason", reason.Error())
		}
		// The socket stays open for the reply: the front may have closed only
		// its sending half.
		c.abandon(req, ErrClientGone)
	}
}

// kill sends FCGI_END_REQUEST, unless finish has done so meanwhile, and lets no
// byte follow.
func (c *conn) kill(req *request, cause error) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.mu.Lock()
	live := c.req == req
	c.mu.Unlock()
	if live {
		_ = c.w.endLocked(req.id, endStatus{app: appProtocolError}) // the peer may be gone
	}
	if c.w.err == nil {
		c.w.err = cause
	}
}

// abandon cancels req, or frees it if its handler has not been started.
func (c *conn) abandon(req *request, cause error) {
	if req == nil {
		return
	}
	if req.started {
		req.fail(cause)
		return
	}
	c.mu.Lock()
	c.req = nil
	c.mu.Unlock()
	req.params.free()
	req.params = nil
	c.server.release()
}

func (r *request) fail(cause error) {
	r.cancel(cause)
	r.body.fail(cause)
}

// cancel is Shutdown's and Close's: it ends the running request's context.
func (c *conn) cancel(cause error) {
	c.mu.Lock()
	req := c.req
	started := req != nil && req.started
	c.mu.Unlock()
	if started {
		req.fail(cause)
	}
}

// drain makes the running request the last one and closes an idle connection.
func (c *conn) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closing = true
	switch {
	case c.req != nil || c.finishing > 0 || c.ending:
	case c.began:
		c.nc.Close()
	default:
		c.deadline = time.Now().Add(newConnGrace)
		_ = c.nc.SetReadDeadline(c.deadline)
	}
}

// awaitFirst sets the deadline of the first request, unless Shutdown was
// faster and has set a shorter one.
func (c *conn) awaitFirst() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return
	}
	c.deadline = time.Now().Add(c.limits.HeaderTimeout)
	_ = c.nc.SetReadDeadline(c.deadline) // fails on a closed socket only, as the read will
}

// wakeReader interrupts awaitHangUp. It is called with the body's lock held.
func (c *conn) wakeReader() {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.nc.SetReadDeadline(time.Unix(1, 0))
}

// linger tells the front that nothing more comes and gives it some time to see
// it: a socket that is closed with unread input takes the reply with it.
func (c *conn) linger() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lingerLocked()
}

func (c *conn) lingerLocked() {
	if hc, ok := c.nc.(interface{ CloseWrite() error }); ok {
		_ = hc.CloseWrite()
	}
	c.deadline = time.Now().Add(c.limits.LingerTimeout)
	_ = c.nc.SetReadDeadline(c.deadline)
}

func isTimeout(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout()
}
