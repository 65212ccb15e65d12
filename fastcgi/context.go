package fastcgi

import (
	"context"
	"errors"
)

// Causes of a request context that ended before its handler returned, to be
// compared with errors.Is against context.Cause. A body that was cut off
// returns the cause too, together with io.ErrUnexpectedEOF.
var (
	// ErrClientGone says that the front closed the socket or its sending half,
	// which is how lighttpd and nginx pass on that the client has left.
	ErrClientGone = errors.New("fastcgi: client gone")
	// ErrAborted says that FCGI_ABORT_REQUEST arrived.
	ErrAborted = errors.New("fastcgi: request aborted")
	// ErrServerClosed says that Shutdown ran out of patience or Close was
	// called. Serve returns it after either.
	ErrServerClosed = errors.New("fastcgi: server closed")
	// ErrProtocol says that the front broke the record protocol, for example
	// by a body longer than CONTENT_LENGTH.
	ErrProtocol = errors.New("fastcgi: protocol error")
)

// Peer is the process at the other end of a unix socket, as it was when it
// connected (unix(7), SO_PEERCRED).
type Peer struct {
	UID, GID uint32
	PID      int32
}

type contextKey int

const (
	paramsKey contextKey = iota
	peerKey
)

// ParamsFrom returns the parameters of the request that ctx belongs to, or nil.
// A nil *Params holds none.
func ParamsFrom(ctx context.Context) *Params {
	p, _ := ctx.Value(paramsKey).(*Params)
	return p
}

// PeerFrom returns the process that the request came from, false if it is
// unknown: not a unix socket, or not Linux.
func PeerFrom(ctx context.Context) (Peer, bool) {
	p, ok := ctx.Value(peerKey).(*Peer)
	if !ok || p == nil {
		return Peer{}, false
	}
	return *p, true
}

// requestContext carries both values in one allocation.
type requestContext struct {
	context.Context
	params *Params
	peer   *Peer
}

func (c *requestContext) Value(key any) any {
	switch key {
	case paramsKey:
		return c.params
	case peerKey:
		return c.peer
	}
	return c.Context.Value(key)
}
