package fastcgi

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"
)

// Application statuses of FCGI_END_REQUEST; fronts log them at most.
const (
	appPanic         = 1
	appProtocolError = 2
)

// errEnding leaves readRecords when a reply was the last one.
var errEnding = errors.New("fastcgi: connection ends")

// readRecords takes records until the socket ends or something is wrong with it.
func (c *conn) readRecords() error {
	for {
		h, err := c.in.next()
		if c.isEnding() {
			_, _ = io.Copy(io.Discard, c.in.br) // until the end or the linger deadline
			return errEnding
		}
		if err != nil {
			if isTimeout(err) && c.startWaiting() {
				continue
			}
			return err
		}
		if err := h.check(); err != nil {
			return err
		}
		if h.id == 0 {
			err = c.management(h)
		} else {
			err = c.application(h)
		}
		if err != nil {
			return err
		}
		if err := c.in.skip(h.padding); err != nil {
			return err
		}
	}
}

func (c *conn) isEnding() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ending
}

// application handles a record that belongs to a request. The content is read
// or passed over, the padding not.
func (c *conn) application(h header) error {
	if h.typ == typeBeginRequest {
		return c.begin(h)
	}
	c.mu.Lock()
	req, last := c.req, c.last
	c.mu.Unlock()
	switch {
	case req != nil && req.id == h.id:
		switch h.typ {
		case typeParams:
			return c.readParams(req, h)
		case typeStdin:
			return c.readStdin(req, h)
		}
		c.abort(req)
		return c.in.skip(h.length)
	case h.typ == typeAbortRequest: // too late, or of a refused request
		return c.in.skip(h.length)
	case h.typ == typeStdin && last != nil && last.id == h.id && !last.stdinEnd:
		// The handler did not wait for the end of its body.
		return c.readStdin(last, h)
	}
	if _, ok := c.refused[h.id]; ok {
		return c.in.skip(h.length)
	}
	return protocolError("record of type %d for request %d, which has not begun", h.typ, h.id)
}

// begin handles FCGI_BEGIN_REQUEST, section 5.1.
func (c *conn) begin(h header) error {
	var b [8]byte
	if h.length != len(b) {
		return protocolError("FCGI_BEGIN_REQUEST of %d bytes", h.length)
	}
	if err := c.in.read(b[:]); err != nil {
		return err
	}
	begin, err := parseBegin(b[:])
	if err != nil {
		return err
	}
	c.mu.Lock()
	req, last := c.req, c.last
	c.mu.Unlock()
	switch {
	case req != nil && req.id == h.id:
		return protocolError("request %d begins twice", h.id)
	case req != nil:
		return c.refuse(h.id, begin, statusCantMultiplex)
	case last != nil && !last.stdinEnd:
		// The rest of the old body could be taken for the new one.
		return protocolError("request %d begins within the body of %d", h.id, last.id)
	case begin.role != roleResponder:
		return c.refuse(h.id, begin, statusUnknownRole)
	case !c.server.acquire(c.limits.Requests):
		c.complain("FastCGI request refused", "reason", "too many requests")
		return c.refuse(h.id, begin, statusOverloaded)
	}
	delete(c.refused, h.id)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.began = true
	c.req = &request{id: h.id, keepConn: begin.keepConn, params: smallBuffer()}
	c.deadline = time.Now().Add(c.limits.HeaderTimeout)
	_ = c.nc.SetReadDeadline(c.deadline)
	return nil
}

// refuse answers a request that will not be served and lets its records pass. A
// front that goes on and on is cut off.
func (c *conn) refuse(id uint16, begin beginBody, status byte) error {
	c.refusals++
	if c.refusals > maxRefused {
		_ = c.w.end(id, endStatus{protocol: statusOverloaded})
		return protocolError("more than %d requests to refuse", maxRefused)
	}
	if c.refused == nil {
		c.refused = make(map[uint16]struct{})
	}
	c.refused[id] = struct{}{}
	if err := c.w.end(id, endStatus{protocol: status}); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.req == nil && !begin.keepConn {
		c.ending = true
		c.lingerLocked()
	}
	return nil
}

// readParams collects FCGI_PARAMS, section 5.2.
func (c *conn) readParams(req *request, h header) error {
	switch {
	case req.params == nil:
		return protocolError("FCGI_PARAMS after its end")
	case h.length == 0:
		return c.prepare(req)
	case req.tooLong || req.params.len()+h.length > c.limits.ParamBytes:
		req.tooLong = true // passed over, so that the answer finds the front in step
		return c.in.skip(h.length)
	}
	n := req.params.len()
	req.params = req.params.grow(h.length)
	return c.in.read(req.params.b[n:])
}

// prepare makes the request, or the refusal, that the parameters describe. The
// handler starts now if there is a body of known length; else the first record
// of FCGI_STDIN, which fronts send at once, says whether there is one at all.
func (c *conn) prepare(req *request) error {
	var params Params
	length, bad := int64(-1), (*refusal)(nil)
	if req.tooLong {
		bad = badParam("more than " + strconv.Itoa(c.limits.ParamBytes) + " bytes")
	} else {
		req.http, length, bad = parseRequest(string(req.params.b), c.limits.Params, c.server.Single, &params)
	}
	req.params.free()
	req.params = nil
	req.handler = c.server.handler()
	if bad != nil {
		req.http, length, req.handler = &http.Request{Method: "GET"}, -1, bad
	}
	req.body.init(c.limits.ReadAhead, length, c.wakeReader)
	req.ctx, req.cancel = context.WithCancelCause(&requestContext{context.Background(), &params, c.peer})
	if length > 0 {
		c.start(req, length)
	}
	return nil
}

// startWaiting starts a request of unknown length whose front is silent about
// its body for too long. It reports whether there was one.
func (c *conn) startWaiting() bool {
	c.mu.Lock()
	req := c.req
	c.mu.Unlock()
	if req == nil || req.http == nil || req.started {
		return false
	}
	c.start(req, req.body.length)
	return true
}

func (c *conn) start(req *request, length int64) {
	r := req.http.WithContext(req.ctx)
	r.ContentLength, r.Body = length, http.NoBody
	if length != 0 {
		r.Body = &req.body
	}
	req.http = r
	c.mu.Lock()
	req.started = true
	c.deadline = time.Time{}
	_ = c.nc.SetReadDeadline(c.deadline)
	c.mu.Unlock()
	c.handlers.Go(func() { c.run(req) })
}

// readStdin passes FCGI_STDIN, section 5.3, on to the body.
func (c *conn) readStdin(req *request, h header) error {
	switch {
	case req.params != nil:
		return protocolError("FCGI_STDIN before the end of FCGI_PARAMS")
	case req.stdinEnd:
		return protocolError("FCGI_STDIN after its end")
	case h.length == 0:
		c.endStdin(req)
		return nil
	case req.body.exceeds(h.length):
		return protocolError("body longer than CONTENT_LENGTH")
	case !req.started:
		c.start(req, req.body.length)
	}
	for left := h.length; left > 0; {
		space, park := req.body.reserve(left)
		if park {
			c.park(req)
			continue
		}
		if space == nil {
			req.body.drop(left)
			return c.in.skip(left)
		}
		n, err := c.in.br.Read(space)
		req.body.commit(n)
		left -= n
		if err != nil {
			return midRecord(err)
		}
	}
	return nil
}

func (c *conn) endStdin(req *request) {
	c.mu.Lock()
	req.stdinEnd = true
	if c.req == nil && c.finishing == 0 && !c.ending { // the handler was faster than this record
		c.deadline = time.Now().Add(c.limits.IdleTimeout)
		_ = c.nc.SetReadDeadline(c.deadline)
	}
	c.mu.Unlock()
	req.body.end()
	if !req.started {
		length := req.body.length
		if length < 0 {
			length = 0
		}
		c.start(req, length)
	}
}

// park waits, with the socket left alone, until the handler has made room or the
// front has hung up.
func (c *conn) park(req *request) {
	gone := false
	if c.raw != nil {
		gone = awaitHangUp(c.raw)
	} else {
		req.body.awaitRoom()
	}
	req.body.unpark()
	c.mu.Lock()
	_ = c.nc.SetReadDeadline(c.deadline) // wakeReader has set another
	c.mu.Unlock()
	if gone {
		req.fail(ErrClientGone)
	}
}

// abort handles FCGI_ABORT_REQUEST, section 5.4. The answer is the end of the
// reply: the handler is told, and FCGI_END_REQUEST follows when it returns.
func (c *conn) abort(req *request) {
	if req.started {
		req.fail(ErrAborted)
		return
	}
	c.abandon(req, ErrAborted)
	_ = c.w.end(req.id, endStatus{}) // a broken socket shows at the next read
	if c.refused == nil {
		c.refused = make(map[uint16]struct{})
	}
	c.refused[req.id] = struct{}{} // the rest of its records passes
}
