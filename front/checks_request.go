package front

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"gantry/api"
)

const (
	checkBody   = 1 << 41 // bytes of a body that no front may take: twice the greatest limit
	checkHeader = 40 << 10
	// slowFor is how long an unfinished header is kept open, at most.
	slowFor = 13 * time.Second
	// checkKept is how many requests a connection must serve.
	checkKept = 20
)

// raw makes a TLS connection that ends with ctx.
func (c *checker) raw(ctx context.Context) (net.Conn, func(), error) {
	d := tls.Dialer{Config: c.conf}
	conn, err := d.DialContext(ctx, "tcp", c.host)
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	return conn, func() { stop(); conn.Close() }, nil
}

// bodyLimit announces more than is allowed, and sends nothing of it.
func (c *checker) bodyLimit(ctx context.Context) (string, string, error) {
	conn, done, err := c.raw(ctx)
	if err != nil {
		return "", "", err
	}
	defer done()
	fmt.Fprintf(conn, "POST %srefuse HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n", c.prefix+"/selftest/", c.host, api.TypeBytes, int64(checkBody))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "", "", fmt.Errorf("a body of 2 TiB was announced, and the answer is: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusRequestEntityTooLarge {
		return "", "", fmt.Errorf("a body of 2 TiB is answered with %s instead of 413", resp.Status)
	}
	return "a body beyond the limit is refused at once", resp.Status, nil
}

func (c *checker) headerLimit(ctx context.Context) (string, string, error) {
	line := strings.Repeat("x", checkHeader/8)
	header := map[string]string{}
	for i := range 8 {
		header[fmt.Sprintf("X-Gantry-Check-%d", i)] = line
	}
	_, resp, err := c.echoed(ctx, header)
	switch {
	case resp == nil && ctx.Err() == nil:
		return "headers of 40 kB are refused", "the connection is closed", nil
	case resp == nil:
		return "", "", err
	case resp.StatusCode == http.StatusBadRequest, resp.StatusCode == http.StatusRequestHeaderFieldsTooLarge, resp.StatusCode == http.StatusRequestEntityTooLarge:
		return "headers of 40 kB are refused", resp.Status, nil
	}
	return "", "", fmt.Errorf("headers of 40 kB pass (%s); with the client's certificate they may be more than a FastCGI record holds", resp.Status)
}

// slowHeader never finishes its header.
func (c *checker) slowHeader(ctx context.Context) (string, string, error) {
	if c.kind == Lighttpd {
		return "not tried: lighttpd counts a minute (server.max-read-idle)", "", nil
	}
	conn, done, err := c.raw(ctx)
	if err != nil {
		return "", "", err
	}
	defer done()
	from := time.Now()
	fmt.Fprintf(conn, "GET %sheaders HTTP/1.1\r\nHost: ", c.prefix+"/selftest/")
	conn.SetReadDeadline(from.Add(slowFor))
	_, err = io.Copy(io.Discard, conn) // an answer such as 408, and the end
	detail := "after " + time.Since(from).Round(100*time.Millisecond).String()
	if wait, ok := errors.AsType[net.Error](err); ok && wait.Timeout() {
		return "", detail, errors.New("a client may take its time over a header; that is an attack")
	}
	return "a client that does not finish its header is sent away", detail, nil
}

// status is what a path is answered with, sent as spelled, and whether the
// responder was asked.
func (c *checker) status(ctx context.Context, path string) (status int, asked bool, err error) {
	conn, done, err := c.raw(ctx)
	if err != nil {
		return 0, false, err
	}
	defer done()
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, c.host)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, false, err
	}
	defer resp.Body.Close()
	return resp.StatusCode, ours(resp), nil
}

// outside wants each path to be refused by the front itself.
func (c *checker) outside(ctx context.Context, paths ...string) error {
	for _, p := range paths {
		status, asked, err := c.status(ctx, p)
		switch {
		case err != nil:
			return err
		case asked:
			return fmt.Errorf("%s is asked of the responder", p)
		case status < http.StatusBadRequest || status >= http.StatusInternalServerError:
			return fmt.Errorf("%s is answered with %d instead of 404", p, status)
		}
	}
	return nil
}

func (c *checker) paths(ctx context.Context) (string, string, error) {
	return "all other paths are refused", "", c.outside(ctx, "/", "/healthz", "/index.html", "/node", "/api", c.prefix, "/node/v2/status", "/api/v2/status")
}

func (c *checker) dotSegments(ctx context.Context) (string, string, error) {
	err := c.outside(ctx, c.prefix+"/../../healthz", c.prefix+"/%2e%2e/%2e%2e/healthz", c.prefix+"/..%2f..%2fhealthz")
	return "no path leads out of the node's API", "", err
}

func (c *checker) sendPath(ctx context.Context) (string, string, error) {
	return "nobody gets at files but through the node", "", c.outside(ctx, SendPrefix, SendPrefix+"disks/", SendPrefix+"disks/x", "/-/send/../send/disks/x")
}

// keepAlive counts handshakes.
func (c *checker) keepAlive(ctx context.Context) (string, string, error) {
	conf, made := c.conf.Clone(), 0
	check := conf.VerifyConnection
	conf.VerifyConnection = func(cs tls.ConnectionState) error {
		made++
		if check == nil {
			return nil
		}
		return check(cs)
	}
	tr := c.transport(conf)
	defer tr.CloseIdleConnections()
	for range checkKept {
		resp, err := c.send(ctx, &http.Client{Transport: tr}, http.MethodGet, "headers", nil, 0)
		if err != nil {
			return "", "", err
		}
		_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer))
		resp.Body.Close()
		if err != nil {
			return "", "", err
		}
	}
	detail := fmt.Sprintf("%d requests, %d connections", checkKept, made)
	if made > 2 {
		return "", detail, errors.New("connections are closed after each request, or nearly so")
	}
	return "a connection serves many requests", detail, nil
}
