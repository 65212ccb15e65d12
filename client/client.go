package client

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"gantry/api"
	"gantry/config"
)

// Times and sizes of a client.
const (
	// DialTimeout bounds a TCP connect: longer than a lost SYN twice repeated.
	DialTimeout = 10 * time.Second
	// HandshakeTimeout bounds TLS.
	HandshakeTimeout = 10 * time.Second
	// HeaderTimeout bounds the wait for a reply's header. A node answers within
	// seconds; the slowest is a start that waits for a slow disk.
	HeaderTimeout = 60 * time.Second
	// CallTimeout bounds a short call as a whole.
	CallTimeout = 90 * time.Second
	// maxReply bounds the body of a short reply: a page of api.MaxPageSize
	// names with the longest names, escaped.
	maxReply = 4 << 20
	// MaxLean bounds the body of a short reply to a lean client: what a call to
	// many nodes may cost is bounded for each of them.
	MaxLean = 64 << 10
	// maxHeader bounds a reply's header.
	maxHeader = 64 << 10
)

// Config of a Client.
type Config struct {
	Node config.ClusterNode
	// TLS is the caller's side, from pki.ClientTLS. It must verify the peer.
	TLS *tls.Config
	// Dial connects; nil: a net.Dialer with DialTimeout.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Log receives what is retried, at level debug; nil: nothing.
	Log *slog.Logger
	// Silence is how long a feed may say nothing before it counts as cut;
	// 0: three of the intervals that its hello names.
	Silence time.Duration
	// Lean is for one of very many, whose context has a deadline: small buffers, no
	// times of its own but for the connect, short replies up to MaxLean
	// bytes, and Close ends whatever is under way.
	Lean bool
	// RetryFor is how long Follow goes on without a record; 0: api.RetryFor.
	RetryFor time.Duration
}

// A Client makes requests to one node. Its methods may be called from several
// goroutines.
type Client struct {
	config  Config
	control *http.Client
	bulk    *http.Client
	prefix  string // api.Prefix or api.MasterPrefix
	api     string // URL of the API, without slash at the end
	data    string
	conns   *conns // of a lean client; else nil
}

// New returns a client. It connects with the first request.
func New(c Config) *Client { return newClient(c, api.Prefix) }

func newClient(c Config, prefix string) *Client {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.RetryFor == 0 {
		c.RetryFor = api.RetryFor
	}
	if c.Dial == nil {
		c.Dial = (&net.Dialer{Timeout: DialTimeout, KeepAlive: 15 * time.Second}).DialContext
	}
	data := c.Node.DataURL
	if data == "" {
		data = c.Node.URL
	}
	var lean *conns
	if c.Lean {
		lean = newConns(c.Dial)
		c.Dial = lean.dial
	}
	return &Client{
		conns:   lean,
		prefix:  prefix,
		config:  c,
		control: httpClient(c),
		bulk:    httpClient(c),
		api:     strings.TrimSuffix(c.Node.URL, "/") + prefix,
		data:    strings.TrimSuffix(data, "/") + prefix,
	}
}

// Node is the name of the node.
func (c *Client) Node() string { return c.config.Node.Name }

// Close closes idle connections. Requests under way are ended by their context,
// or by Close where the client is lean.
func (c *Client) Close() {
	if c.conns != nil {
		c.conns.close()
	}
	c.control.CloseIdleConnections()
	c.bulk.CloseIdleConnections()
}

func httpClient(c Config) *http.Client {
	var http1 http.Protocols
	http1.SetHTTP1(true)
	// ranged bulk replies are copied in TLS records; a larger buffer saves reads
	buffer, header := 64<<10, int64(maxHeader)
	handshake, wait := HandshakeTimeout, HeaderTimeout
	if c.Lean {
		buffer, header = 4<<10, 16<<10
		handshake, wait = 0, 0 // the call's own deadline is the only one
	}
	return &http.Client{
		Transport: &http.Transport{
			DialContext:            c.Dial,
			TLSClientConfig:        c.TLS,
			TLSHandshakeTimeout:    handshake,
			ResponseHeaderTimeout:  wait,
			MaxResponseHeaderBytes: header,
			MaxIdleConnsPerHost:    8,                // more than the four bulk connections of an import
			IdleConnTimeout:        30 * time.Second, // below the fronts' keep-alive limits
			DisableCompression:     true,
			Protocols:              &http1,
			ReadBufferSize:         buffer,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
