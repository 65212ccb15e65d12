package fastcgi

import "net"

type conn struct {
	server *Server
	nc     net.Conn
	limits Limits
}

func newConn(s *Server, nc net.Conn) *conn {
	return &conn{server: s, nc: nc, limits: s.Limits.withDefaults()}
}

func (c *conn) serve() {
	c.nc.Close()
	c.server.remove(c)
}
func (c *conn) drain()       {}
func (c *conn) cancel(error) {}
