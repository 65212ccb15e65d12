package fastcgi

import (
	"errors"
	"net/http"
	"runtime/debug"
	"time"
)

// outcome is how a handler ended.
type outcome int

const (
	returned outcome = iota
	panicked
	gaveUp // by http.ErrAbortHandler or runtime.Goexit
)

// run is the handler's goroutine.
func (c *conn) run(req *request) {
	w := &response{c: c, req: req, header: make(http.Header), isHead: req.http.Method == http.MethodHead}
	how := gaveUp
	defer func() { c.finish(req, w, how) }() // also after runtime.Goexit
	how = c.invoke(w, req)
}

func (c *conn) invoke(w *response, req *request) (how outcome) {
	how = gaveUp
	defer func() {
		switch v := recover(); v {
		case nil, http.ErrAbortHandler:
		default:
			c.server.logger().Error("FastCGI handler panicked", "request", describe(req.http),
				"panic", v, "stack", string(debug.Stack()))
			how = panicked
		}
	}()
	req.handler.ServeHTTP(w, req.http)
	return returned
}

// finish completes the reply and decides what becomes of the connection.
func (c *conn) finish(req *request, w *response, how outcome) {
	end := endStatus{}
	if how == panicked {
		end.app = appPanic
		if !w.fault() {
			how = gaveUp // part of a reply is out: it must not look like the whole
		}
	}
	head, buf, whole := w.close()
	defer head.free()
	defer buf.free()
	req.body.Close()
	if how != gaveUp && !whole && req.ctx.Err() == nil {
		c.complain("FastCGI reply shorter than its Content-Length", "request", describe(req.http))
	}

	c.w.endDeadline(&w.over)
	c.w.mu.Lock()
	keep := c.detach(req)
	c.server.release() // before the front is told, who may send the next one at once
	stopped, err := w.stopped(), error(nil)
	switch {
	case errors.Is(stopped, ErrProtocol): // the reader does the same, who is first
		err = c.w.endLocked(req.id, endStatus{app: appProtocolError})
	case stopped != nil:
		err = c.w.stdoutLocked(req.id, &end)
	case how == gaveUp || !whole:
		err = http.ErrAbortHandler
	default:
		err = c.w.stdoutLocked(req.id, &end, head.bytes(), buf.bytes())
	}
	c.w.mu.Unlock()

	req.cancel(nil)
	// An error leaves the reply without its end; that the socket ends here is
	// how the front sees it.
	c.settle(req, keep && err == nil)
}

// detach makes room for the next request, before FCGI_END_REQUEST invites it.
// It reports whether there may be one.
func (c *conn) detach(req *request) bool {
	complete := req.body.complete() // before c.mu, which wakeReader takes with the body's lock held
	c.mu.Lock()
	defer c.mu.Unlock()
	c.req, c.last = nil, req
	c.finishing++
	keep := req.keepConn && !c.closing && (req.stdinEnd || complete)
	if !keep {
		c.ending = true
	}
	return keep
}

// settle sets the time that the front has for its next step.
func (c *conn) settle(req *request, keep bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finishing--
	if c.req != nil || c.last != req {
		return // the next request has begun
	}
	if !keep || c.closing {
		c.ending = true
		c.lingerLocked()
		return
	}
	wait := c.limits.IdleTimeout
	if !req.stdinEnd {
		wait = c.limits.LingerTimeout
	}
	c.deadline = time.Now().Add(wait)
	_ = c.nc.SetReadDeadline(c.deadline)
}
