package fastcgi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

// Server serves Handler on FastCGI sockets. Set the fields before Serve; the
// methods may be called from any goroutine.
type Server struct {
	// Handler answers the requests; nil means http.DefaultServeMux.
	Handler http.Handler
	// Logger gets refusals, broken connections and panics; nil discards them.
	Logger *slog.Logger
	// AllowPeer decides who may connect, by the credentials of the peer's
	// process; nil allows everybody. It is called once per connection. A refused
	// connection, and one whose peer is unknown, is closed at once.
	AllowPeer func(Peer) bool
	// Single names parameters that carry identity beyond those that always do:
	// SSL_*, REMOTE_USER and AUTH_TYPE. A request in which such a parameter
	// comes twice is answered with 403.
	Single func(name string) bool
	// Limits bounds what a peer can cost; the zero value means the defaults.
	Limits Limits

	// state
	throttle throttle

	// guarded by mu
	mu        sync.Mutex
	closing   bool
	requests  int
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}
	waiting   []chan struct{} // closed when conns is empty
}

// Serve accepts connections on l until l fails or Shutdown or Close is called;
// then it returns ErrServerClosed. It closes l. Requests may still be running
// when it returns: Shutdown waits for them.
func (s *Server) Serve(l net.Listener) error {
	defer l.Close()
	if !s.track(l) {
		return ErrServerClosed
	}
	defer s.untrack(l)
	var pause time.Duration
	for {
		nc, err := l.Accept()
		if err != nil {
			if s.isClosing() {
				return ErrServerClosed
			}
			// Out of descriptors, for one: existing requests will free some.
			if !passing(err) {
				return fmt.Errorf("accepting a connection: %w", err)
			}
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.logger().Warn("FastCGI accept fails", "err", err, "retry", pause)
			time.Sleep(pause)
			continue
		}
		pause = 0
		s.admit(nc)
	}
}

// passing reports errors of accept(2) after which it may be tried again.
func passing(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// admit starts the connection's goroutine or closes the socket.
func (s *Server) admit(nc net.Conn) {
	c := newConn(s, nc)
	s.mu.Lock()
	ok := !s.closing && len(s.conns) < c.limits.Conns
	if ok {
		if s.conns == nil {
			s.conns = make(map[*conn]struct{})
		}
		s.conns[c] = struct{}{}
	}
	closing := s.closing
	s.mu.Unlock()
	if !ok {
		if !closing {
			s.complain("connections", "FastCGI connection refused", "reason", "too many connections")
		}
		nc.Close()
		return
	}
	go c.serve() // removes itself from conns, which Shutdown watches
}

// Shutdown closes the listeners and the idle connections and waits until every
// request has been answered; then it returns nil. When ctx ends first, the
// remaining requests are cancelled with ErrServerClosed, after
// Limits.StopTimeout their sockets are closed, and the error of ctx is
// returned. A handler that ignores both is left behind and counted in the error.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stopAccepting()
	empty := s.empty()
	for _, c := range s.open() {
		c.drain()
	}
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
	}
	for _, c := range s.open() {
		c.cancel(ErrServerClosed)
	}
	grace := time.NewTimer(s.Limits.withDefaults().StopTimeout)
	defer grace.Stop()
	select {
	case <-empty:
		return fmt.Errorf("waiting for requests: %w", ctx.Err())
	case <-grace.C:
	}
	left := s.open()
	for _, c := range left {
		c.nc.Close()
	}
	return fmt.Errorf("waiting for requests: %d left behind: %w", len(left), ctx.Err())
}

// Close closes the listeners and every socket and cancels the requests with
// ErrServerClosed. It waits for no handler.
func (s *Server) Close() error {
	s.stopAccepting()
	for _, c := range s.open() {
		c.cancel(ErrServerClosed)
		c.nc.Close()
	}
	return nil
}

func (s *Server) stopAccepting() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
	for l := range s.listeners {
		l.Close()
	}
}

func (s *Server) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

func (s *Server) track(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	if s.listeners == nil {
		s.listeners = make(map[net.Listener]struct{})
	}
	s.listeners[l] = struct{}{}
	return true
}

func (s *Server) untrack(l net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
}

// open returns the connections that are open now.
func (s *Server) open() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		list = append(list, c)
	}
	return list
}

// empty returns a channel that is closed when no connection is open.
func (s *Server) empty() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	ch := make(chan struct{})
	if len(s.conns) == 0 {
		close(ch)
	} else {
		s.waiting = append(s.waiting, ch)
	}
	return ch
}

// remove forgets a connection whose goroutines have all ended.
func (s *Server) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if len(s.conns) > 0 {
		return
	}
	for _, ch := range s.waiting {
		close(ch)
	}
	s.waiting = nil
}

// acquire takes one of the slots for running requests.
func (s *Server) acquire(limit int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.requests >= limit {
		return false
	}
	s.requests++
	return true
}

func (s *Server) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests--
}

func (s *Server) handler() http.Handler {
	if s.Handler == nil {
		return http.DefaultServeMux
	}
	return s.Handler
}
