package client

import (
	"context"
	"net"
	"sync"
)

// conns are the connections of a lean client, so that Close ends them all: a
// handshake with a silent node would otherwise go on by itself when nobody waits
// for it any more.
type conns struct {
	dialer func(ctx context.Context, network, addr string) (net.Conn, error)
	life   context.Context // ends with close
	end    context.CancelFunc

	mu   sync.Mutex
	open map[net.Conn]bool // guarded by mu; nil once closed
}

func newConns(dial func(ctx context.Context, network, addr string) (net.Conn, error)) *conns {
	c := &conns{dialer: dial, open: map[net.Conn]bool{}}
	c.life, c.end = context.WithCancel(context.Background())
	return c
}

func (c *conns) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.life, cancel)()
	conn, err := c.dialer(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == nil {
		conn.Close()
		return nil, net.ErrClosed
	}
	tracked := &trackedConn{conn, c}
	c.open[tracked] = true
	return tracked, nil
}

func (c *conns) close() {
	c.end()
	c.mu.Lock()
	open := c.open
	c.open = nil
	c.mu.Unlock()
	for conn := range open {
		conn.Close()
	}
}

type trackedConn struct {
	net.Conn
	conns *conns
}

// Close closes the connection.
func (t *trackedConn) Close() error {
	t.conns.mu.Lock()
	delete(t.conns.open, net.Conn(t))
	t.conns.mu.Unlock()
	return t.Conn.Close()
}
