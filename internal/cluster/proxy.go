package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// proxyBuffer is what a Proxy forwards at once: some TLS records.
	proxyBuffer = 64 << 10
	// proxyBurst lets a limited line catch up when timers fire late.
	proxyBurst = 1 << 20
)

// A Proxy carries TCP connections to a node's bulk port, and cuts or slows
// them: a bad line. It knows nothing of what it carries.
type Proxy struct {
	// config
	listener net.Listener
	target   string
	limiter  *rate.Limiter
	ctx      context.Context
	stop     context.CancelFunc
	running  sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool // guarded by mu
	sent  int64             // guarded by mu; bytes from the node to its reader
	cuts  []int64           // guarded by mu; values of sent at which to cut, rising
	done  int               // guarded by mu; cuts made
}

// NewProxy listens on a free loopback port for connections to target,
// host:port.
func NewProxy(target string) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting proxy: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	p := &Proxy{
		listener: l, target: target, ctx: ctx, stop: stop,
		limiter: rate.NewLimiter(rate.Inf, proxyBurst),
		conns:   map[net.Conn]bool{},
	}
	p.running.Go(p.accept)
	return p, nil
}

// Addr is where the proxy listens, host:port.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Limit bounds all connections together, in bytes per second from the node to
// its reader; 0 ends the bound.
func (p *Proxy) Limit(bytesPerSecond int64) {
	if bytesPerSecond <= 0 {
		p.limiter.SetLimit(rate.Inf)
		return
	}
	p.limiter.SetLimit(rate.Limit(bytesPerSecond))
}

// Cut makes the proxy break n connections, spread evenly between 20% and 80%
// of the next size bytes from the node to its reader. Each cut hits the
// connection that carries the byte in question and happens in the middle of
// what it carries.
func (p *Proxy) Cut(n int, size int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cuts = nil
	for i := range n {
		share := 0.2 + 0.6*(float64(i)+0.5)/float64(n)
		p.cuts = append(p.cuts, p.sent+int64(share*float64(size)))
	}
}

// Sent is how many bytes went from the node to its reader, and Cuts how many
// connections were cut so far.
func (p *Proxy) Sent() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sent
}

// Cuts is described at Sent.
func (p *Proxy) Cuts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}

// Close ends every connection and waits for it.
func (p *Proxy) Close() error {
	p.stop()
	err := p.listener.Close()
	p.mu.Lock()
	for c := range p.conns {
		c.Close()
	}
	p.mu.Unlock()
	p.running.Wait()
	return err
}

func (p *Proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			if p.ctx.Err() != nil {
				return
			}
			select { // no descriptor left, or the like
			case <-time.After(10 * time.Millisecond):
			case <-p.ctx.Done():
			}
			continue
		}
		p.running.Go(func() { p.carry(c.(*net.TCPConn)) })
	}
}

// carry joins one reader to the node until either side is done.
func (p *Proxy) carry(reader *net.TCPConn) {
	defer p.hold(reader)()
	dialer := net.Dialer{Timeout: 5 * time.Second}
	conn, err := dialer.DialContext(p.ctx, "tcp", p.target)
	if err != nil {
		return // the reader sees a broken connection, as if the node were away
	}
	node := conn.(*net.TCPConn)
	defer p.hold(node)()

	var up sync.WaitGroup
	up.Go(func() {
		io.Copy(node, reader)
		node.CloseWrite()
	})
	if err := p.down(reader, node); errors.Is(err, errCut) {
		// A reset, as a router that forgot the connection would send.
		reader.SetLinger(0)
	}
	reader.Close()
	node.Close()
	up.Wait()
}

var errCut = errors.New("cut on purpose")

// down forwards from the node to its reader, counting.
func (p *Proxy) down(reader, node net.Conn) error {
	buf := make([]byte, proxyBuffer)
	for {
		n, err := node.Read(buf)
		if n > 0 {
			if err := p.limiter.WaitN(p.ctx, n); err != nil {
				return err
			}
			if p.count(n) {
				// Half of it, so that the reply that ends here ends early.
				reader.Write(buf[:n/2])
				return errCut
			}
			if _, err := reader.Write(buf[:n]); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
	}
}

// count adds n bytes and says whether a cut falls into them. Only full buffers
// are cut: a small read is a handshake or the end of something.
func (p *Proxy) count(n int) (cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent += int64(n)
	if len(p.cuts) > 0 && p.sent >= p.cuts[0] && n >= proxyBuffer/4 {
		p.cuts = p.cuts[1:]
		p.done++
		return true
	}
	return false
}

// hold notes a connection for Close; the returned function closes it.
func (p *Proxy) hold(c net.Conn) func() {
	p.mu.Lock()
	p.conns[c] = true
	p.mu.Unlock()
	if p.ctx.Err() != nil {
		c.Close()
	}
	return func() {
		c.Close()
		p.mu.Lock()
		delete(p.conns, c)
		p.mu.Unlock()
	}
}
