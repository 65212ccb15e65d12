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
	// RetryFor is how long Follow goes on without a record; 0: api.RetryFor.
	RetryFor time.Duration
}

// A Client makes requests to one node. Its methods may be called from several
// goroutines.
type Client struct {
	config  Config
	control *http.Client
	bulk    *http.Client
	api     string // URL of the API, without slash at the end
	data    string
}

// New returns a client. It connects with the first request.
func New(c Config) *Client {
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
	return &Client{
		config:  c,
		control: httpClient(c),
		bulk:    httpClient(c),
		api:     strings.TrimSuffix(c.Node.URL, "/") + api.Prefix,
		data:    strings.TrimSuffix(data, "/") + api.Prefix,
	}
}

// Node is the name of the node.
func (c *Client) Node() string { return c.config.Node.Name }

// Close closes idle connections. Requests under way are ended by their context.
func (c *Client) Close() {
	c.control.CloseIdleConnections()
	c.bulk.CloseIdleConnections()
}

func httpClient(c Config) *http.Client {
	var http1 http.Protocols
	http1.SetHTTP1(true)
	return &http.Client{
		Transport: &http.Transport{
			DialContext:            c.Dial,
			TLSClientConfig:        c.TLS,
			TLSHandshakeTimeout:    HandshakeTimeout,
			ResponseHeaderTimeout:  HeaderTimeout,
			MaxResponseHeaderBytes: maxHeader,
			MaxIdleConnsPerHost:    8,                // more than the four bulk connections of an import
			IdleConnTimeout:        30 * time.Second, // below the fronts' keep-alive limits
			DisableCompression:     true,
			Protocols:              &http1,
			// ranged bulk replies are copied in TLS records; a larger buffer saves reads
			ReadBufferSize: 64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
