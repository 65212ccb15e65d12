package fastcgi

import "time"

// Limits bounds what one peer can cost. A field that is zero or negative takes
// its default, the constant of the same name; there is no "unlimited".
type Limits struct {
	// ParamBytes bounds the encoded FCGI_PARAMS stream of one request, in
	// bytes. Values over MaxParamBytes are cut to it.
	ParamBytes int
	// Params bounds the number of parameters of one request.
	Params int
	// Conns bounds the open connections. One more is closed at once.
	Conns int
	// Requests bounds the requests running at the same time. One more is
	// answered with FCGI_OVERLOADED.
	Requests int
	// ReadAhead bounds the body bytes held for a handler that is not reading.
	ReadAhead int
	// HeaderTimeout is the time for a new connection, or one on which a request
	// began, to send the last parameter.
	HeaderTimeout time.Duration
	// IdleTimeout is the time that a connection kept open by FCGI_KEEP_CONN may
	// wait for its next request.
	IdleTimeout time.Duration
	// WriteTimeout is the time within which the front must take one write of at
	// most four records. A handler can shorten it by SetWriteDeadline.
	WriteTimeout time.Duration
	// LingerTimeout is the time for which input is thrown away after an answer
	// that came before the end of the body.
	LingerTimeout time.Duration
	// StopTimeout is the time that handlers have between the moment when
	// Shutdown cancels them and the closing of their sockets.
	StopTimeout time.Duration
}

// The defaults, and the reason of each.
const (
	// DefaultParamBytes holds four times the 16 KiB or so that lighttpd and
	// nginx let through by default, with a certificate in PEM beside it.
	DefaultParamBytes = 64 << 10
	// MaxParamBytes is the bound that no configuration can lift: the
	// parameters of a request live as long as it does.
	MaxParamBytes = 256 << 10
	// DefaultParams is three times what a browser behind nginx with every
	// SSL_ variable produces.
	DefaultParams = 256
	// DefaultConns leaves room for idle kept connections beside the requests.
	DefaultConns = 2048
	// DefaultRequests is the usual worker_connections of nginx.
	DefaultRequests = 1024
	// DefaultReadAhead covers a pause of 0.25 ms at 1 GB/s, which keeps the
	// front's pipe full, and costs 256 MiB if every request is an upload that
	// nobody reads.
	DefaultReadAhead = 256 << 10
	// DefaultHeaderTimeout is generous: fronts send all parameters in one write.
	DefaultHeaderTimeout = 10 * time.Second
	// DefaultIdleTimeout is longer than the 60 s of nginx's upstream
	// keepalive_timeout, so that the front closes first and no request is lost
	// to a connection that is closing.
	DefaultIdleTimeout = 90 * time.Second
	// DefaultWriteTimeout is twice nginx's send_timeout, so that the front,
	// which knows its client, gives up first. 256 KiB in 120 s is 2 KB/s.
	DefaultWriteTimeout = 120 * time.Second
	// DefaultLingerTimeout is nginx's own lingering_timeout.
	DefaultLingerTimeout = 5 * time.Second
	// DefaultStopTimeout lets a handler write a last line.
	DefaultStopTimeout = 5 * time.Second

	// newConnGrace is what a connection that has not begun a request gets when
	// Shutdown starts: its first bytes may be on their way.
	newConnGrace = time.Second
	// maxRefused bounds the FCGI_BEGIN_REQUESTs refused on one connection.
	maxRefused = 64
)

func (l Limits) withDefaults() Limits {
	for _, f := range []struct {
		field *int
		value int
	}{
		{&l.ParamBytes, DefaultParamBytes}, {&l.Params, DefaultParams}, {&l.Conns, DefaultConns},
		{&l.Requests, DefaultRequests}, {&l.ReadAhead, DefaultReadAhead},
	} {
		if *f.field <= 0 {
			*f.field = f.value
		}
	}
	for _, f := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&l.HeaderTimeout, DefaultHeaderTimeout}, {&l.IdleTimeout, DefaultIdleTimeout},
		{&l.WriteTimeout, DefaultWriteTimeout}, {&l.LingerTimeout, DefaultLingerTimeout},
		{&l.StopTimeout, DefaultStopTimeout},
	} {
		if *f.field <= 0 {
			*f.field = f.value
		}
	}
	l.ParamBytes = min(l.ParamBytes, MaxParamBytes)
	return l
}
