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
	delay time.Duration     // guarded by mu; of each byte, in each direction
	done  int               // guarded by mu; cuts made
	down  flow              // guarded by mu; from the node to its reader
	up    flow              // guarded by mu; from a reader, or a pusher, to the node
}

// A flow is one direction of all connections together.
type flow struct {
	bytes int64
	cuts  []int64 // values of bytes at which to cut, rising
	least int     // of what is read at once and may be cut: less is a handshake or the end of something
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
		down:    flow{least: proxyBuffer / 4},
		up:      flow{least: proxyBuffer / 8},
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

// Delay lets every byte arrive d later than it was sent, in both directions: a
// long line, whose capacity it does not bound. It holds for new connections.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// Moved is how many bytes went in both directions.
func (p *Proxy) Moved() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.down.bytes + p.up.bytes
}

// Cut makes the proxy break n connections, spread evenly between 20% and 80%
// of the next size bytes from the node to its reader. Each cut hits the
// connection that carries the byte in question and happens in the middle of
// what it carries.
func (p *Proxy) Cut(n int, size int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down.cuts = spread(n, size, p.down.bytes)
}

// CutUp is Cut for what goes to the node: uploads.
func (p *Proxy) CutUp(n int, size int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.up.cuts = spread(n, size, p.up.bytes)
}

// CutAt makes the proxy break a connection at each of the offsets, which rise and
// count from what has gone to the reader so far; up, from what has gone to the
// node.
func (p *Proxy) CutAt(offsets []int64, up bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := &p.down
	if up {
		f = &p.up
	}
	f.cuts = nil
	for _, at := range offsets {
		f.cuts = append(f.cuts, f.bytes+at)
	}
}

// spread lays n cuts between 20% and 80% of size bytes after from.
func spread(n int, size, from int64) (cuts []int64) {
	for i := range n {
		share := 0.2 + 0.6*(float64(i)+0.5)/float64(n)
		cuts = append(cuts, from+int64(share*float64(size)))
	}
	return cuts
}

// Sent is how many bytes went from the node to its reader, and Cuts how many
// connections were cut so far.
func (p *Proxy) Sent() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.down.bytes
}

// Received is how many bytes went to the node.
func (p *Proxy) Received() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.up.bytes
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
	ctx, cancel := context.WithCancel(p.ctx)
	defer cancel()
	late := p.late(ctx, reader, &up)
	up.Go(func() {
		if _, err := io.Copy(counted{node, p}, late); errors.Is(err, errCut) {
			reader.SetLinger(0)
			reader.Close()
			node.SetLinger(0)
			node.Close()
			return
		}
		node.CloseWrite()
	})
	if err := p.forward(reader, p.late(ctx, node, &up)); errors.Is(err, errCut) {
		// A reset, as a router that forgot the connection would send.
		reader.SetLinger(0)
	}
	reader.Close()
	node.Close()
	cancel()
	up.Wait()
}

var errCut = errors.New("cut on purpose")

// forward carries what comes from the node to its reader, counting.
func (p *Proxy) forward(reader net.Conn, node io.Reader) error {
	buf := make([]byte, proxyBuffer)
	for {
		n, err := node.Read(buf)
		if n > 0 {
			if err := p.limiter.WaitN(p.ctx, n); err != nil {
				return err
			}
			if p.count(&p.down, n) {
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

// count adds n bytes to a direction and says whether a cut falls into them.
func (p *Proxy) count(f *flow, n int) (cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f.bytes += int64(n)
	if len(f.cuts) > 0 && f.bytes >= f.cuts[0] && n >= f.least {
		f.cuts = f.cuts[1:]
		p.done++
		return true
	}
	return false
}

// counted counts what is written to the node, and cuts it.
type counted struct {
	io.Writer
	p *Proxy
}

func (c counted) Write(b []byte) (int, error) {
	if c.p.count(&c.p.up, len(b)) {
		c.Writer.Write(b[:len(b)/2]) // so that the request that ends here ends early
		return 0, errCut
	}
	return c.Writer.Write(b)
}

// lateChunks bounds what is under way in one direction of a connection: 16 MiB.
const lateChunks = 256

// A chunk is what one read brought, and when it is due.
type chunk struct {
	bytes []byte
	due   time.Time
}

// late returns r, or what delays it. Its reader goroutine is added to wg and
// ends with the connection.
func (p *Proxy) late(ctx context.Context, r io.Reader, wg *sync.WaitGroup) io.Reader {
	p.mu.Lock()
	delay := p.delay
	p.mu.Unlock()
	if delay == 0 {
		return r
	}
	l := &lateReader{ctx: ctx, chunks: make(chan chunk, lateChunks)}
	wg.Go(func() {
		defer close(l.chunks)
		for {
			buf := make([]byte, proxyBuffer)
			n, err := r.Read(buf)
			if n > 0 {
				select {
				case l.chunks <- chunk{buf[:n], time.Now().Add(delay)}:
				case <-ctx.Done():
					return
				}
			}
			if err != nil {
				return
			}
		}
	})
	return l
}

type lateReader struct {
	ctx    context.Context
	chunks chan chunk
	rest   []byte
}

func (l *lateReader) Read(b []byte) (int, error) {
	if len(l.rest) == 0 {
		c, ok := <-l.chunks
		if !ok {
			return 0, io.EOF
		}
		wait := time.NewTimer(time.Until(c.due))
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-l.ctx.Done():
			return 0, l.ctx.Err()
		}
		l.rest = c.bytes
	}
	n := copy(b, l.rest)
	l.rest = l.rest[n:]
	return n, nil
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
