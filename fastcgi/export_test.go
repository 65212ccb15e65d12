package fastcgi

import (
	"net"
	"net/http"
)

// What the external tests need of the inside.

func (s *Server) ServeConn(nc net.Conn) {
	c := newConn(s, nc)
	s.mu.Lock()
	if s.conns == nil {
		s.conns = make(map[*conn]struct{})
	}
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	c.serve()
}

// Draining reports whether Shutdown has told every connection.
func (s *Server) Draining() bool {
	for _, c := range s.open() {
		c.mu.Lock()
		closing := c.closing
		c.mu.Unlock()
		if !closing {
			return false
		}
	}
	return true
}

func EncodePairs(pairs ...string) (b []byte) {
	for i := 0; i+1 < len(pairs); i += 2 {
		b = appendPair(b, pairs[i], pairs[i+1])
	}
	return b
}

func DecodePairs(s string, limit int) (flat []string, err error) {
	pairs, err := decodePairs(s, limit)
	for _, p := range pairs {
		flat = append(flat, p.name, p.value)
	}
	return flat, err
}

// ParseRequest is what happens to the content of FCGI_PARAMS; refused is the
// answer's status, 0 if there is a request.
func ParseRequest(content string, limit int) (r *http.Request, p *Params, length int64, refused int) {
	p = new(Params)
	r, length, bad := parseRequest(content, limit, nil, p)
	if bad != nil {
		return nil, nil, 0, bad.status
	}
	return r, p, length, 0
}

// Throttle is the bound of the log.
type Throttle struct{ throttle }

func (t *Throttle) Allow(key string) bool { return t.allow(key) }
func (t *Throttle) Keys() int             { return len(t.seen) }

const ThrottleKeys, ThrottleWindow = throttleKeys, throttleWindow
