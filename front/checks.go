package front

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"gantry/api"
	"gantry/front/selftest"
)

// The checks. Each returns what it found, or an error that says it.

func (c *checker) tls(ctx context.Context) (string, string, error) {
	state, err := c.dial(ctx, c.conf)
	if err != nil {
		return "", "", fmt.Errorf("no connection to %s: %w", c.host, err)
	}
	return "the front is the one expected", tls.CipherSuiteName(state.CipherSuite), nil
}

// api says whether there is a node behind the front that lets us test it.
func (c *checker) api(ctx context.Context) (string, string, error) {
	resp, err := c.send(ctx, c.http, http.MethodGet, "headers", nil, 0)
	if err != nil {
		return "", "", err
	}
	status := resp.StatusCode
	c.kind = kindOf(resp.Header.Get("Server"))
	var h selftest.Headers
	if err := answer(resp, &h); err != nil {
		return "", "", because(status, err)
	}
	c.kind = kindOf(h.Params["SERVER_SOFTWARE"])
	return "a gantry node answers", h.Params["SERVER_SOFTWARE"], nil
}

// kindOf is the front that a Server header or SERVER_SOFTWARE names. With
// server.tag = "" lighttpd has neither.
func kindOf(software string) Kind {
	if software == "" {
		return Lighttpd
	}
	for _, k := range Kinds {
		if strings.HasPrefix(strings.ToLower(software), string(k)) {
			return k
		}
	}
	return ""
}

// because says what to look at when the node did not answer.
func because(status int, err error) error {
	switch status {
	case http.StatusForbidden:
		return &mended{err, mend{
			`ssl.verifyclient.activate, ssl.verifyclient.exportcert = "enable"; or the caller lacks the right selftest`,
			"fastcgi_param SSL_CLIENT_VERIFY, SSL_CLIENT_CERT, HTTPS, and ssl_verify_client on; or the caller lacks the right selftest",
		}}
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return &mended{err, mend{
			`the responder (fcgi-app probe asks it), or "socket" => in fastcgi.server`,
			"the responder (fcgi-app probe asks it), or the socket in fastcgi_pass",
		}}
	}
	return err
}

func (c *checker) http1(ctx context.Context) (string, string, error) {
	conf := c.conf.Clone()
	conf.NextProtos = []string{"h2", "http/1.1"}
	state, err := c.dial(ctx, conf)
	if err != nil {
		return "", "", err
	}
	if state.NegotiatedProtocol == "h2" {
		return "", "", errors.New("the front prefers HTTP/2; node traffic is HTTP/1.1")
	}
	return "HTTP/1.1 only", "", nil
}

// resumption tries what gantry's own clients never do.
func (c *checker) resumption(ctx context.Context) (string, string, error) {
	conf := c.conf.Clone()
	conf.SessionTicketsDisabled = false
	conf.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	check := conf.VerifyConnection
	conf.VerifyConnection = func(cs tls.ConnectionState) error {
		if check == nil || cs.DidResume {
			return nil // judged below
		}
		return check(cs)
	}
	for range 3 {
		tr := c.transport(conf)
		resp, err := c.send(ctx, &http.Client{Transport: tr}, http.MethodGet, "headers", nil, 0)
		if err != nil {
			return "", "", err
		}
		io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer)) // tickets arrive beside it
		resp.Body.Close()
		tr.CloseIdleConnections()
		if resp.TLS.DidResume {
			return "", "", errors.New("the front resumes sessions, so a certificate is not asked for again")
		}
	}
	return "sessions are not resumed", "", nil
}

// stream reads lines and calls each with the time of arrival.
func (c *checker) stream(ctx context.Context, path string, each func(selftest.Line, time.Time) error) error {
	resp, err := c.send(ctx, c.http, http.MethodGet, path, nil, 0)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return statusError(resp, nil)
	}
	for s := bufio.NewScanner(resp.Body); ; {
		if !s.Scan() {
			if s.Err() != nil {
				return s.Err()
			}
			return errors.New("the stream ended before its last line")
		}
		var l selftest.Line
		if err := api.DecodeBytes(s.Bytes(), &l); err != nil {
			return err
		}
		if err := each(l, time.Now()); err != nil || l.Last {
			return err
		}
	}
}

// lines compares intervals, because the two clocks may differ: how much later
// than the fastest line came each?
func (c *checker) lines(ctx context.Context) (string, string, error) {
	var offsets []time.Duration
	err := c.stream(ctx, fmt.Sprintf("lines?n=%d&every=%s", checkLines, checkEvery), func(l selftest.Line, at time.Time) error {
		offsets = append(offsets, at.Sub(l.Time))
		return nil
	})
	if err != nil {
		return "", "", err
	}
	slices.Sort(offsets)
	median, worst := offsets[len(offsets)/2]-offsets[0], offsets[len(offsets)-1]-offsets[0]
	detail := fmt.Sprintf("%d lines: median %s, worst %s later than the fastest", len(offsets), median.Round(time.Microsecond), worst.Round(time.Microsecond))
	if median > lateLine {
		return "", detail, errors.New("lines are held back on the way")
	}
	return "each line arrives when it is written", detail, nil
}

func (c *checker) order(ctx context.Context) (string, string, error) {
	last, from := 0, time.Now()
	err := c.stream(ctx, fmt.Sprintf("lines?n=%d", checkOrdered), func(l selftest.Line, _ time.Time) error {
		if last++; l.N != last {
			return fmt.Errorf("line %d came in the place of line %d", l.N, last)
		}
		return nil
	})
	if err != nil {
		return "", "", err
	}
	return "lines arrive complete and in order", fmt.Sprintf("%d in %s", last, time.Since(from).Round(time.Millisecond)), nil
}

// cancel leaves a silent handler and asks on another connection what became
// of it.
func (c *checker) cancel(ctx context.Context) (string, string, error) {
	id := drawID()
	tr := c.transport(c.conf)
	defer tr.CloseIdleConnections()
	reading, leave := context.WithCancel(ctx)
	defer leave()
	resp, err := c.send(reading, &http.Client{Transport: tr}, http.MethodGet, "cancel/start?mode=silent&id="+id, nil, 0)
	if err != nil {
		return "", "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", "", statusError(resp, nil)
	}
	if _, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil {
		return "", "", err
	}
	from := time.Now()
	leave()
	var a selftest.Cancel
	if err := c.ask(ctx, "cancel/ask?until=ended&id="+id, &a); err != nil {
		return "", "", fmt.Errorf("a handler was not told that its client had left: %w", err)
	}
	took := time.Since(from)
	detail := fmt.Sprintf("after %s, one round trip included", took.Round(100*time.Microsecond))
	if !a.Left || took > lateCancel {
		return "", detail, errors.New("a handler is not told when its client leaves")
	}
	return "a handler learns that its client left", detail, nil
}

func (c *checker) ranges(ctx context.Context) (string, string, error) {
	const from, length = 5_000_001, 70_000
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+c.prefix+"/selftest/"+"range", nil)
	if err != nil {
		return "", "", err
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", from, from+length-1))
	resp, err := c.http.Do(req)
	if err != nil {
		return "", "", err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, length+1))
	switch {
	case err != nil:
		return "", "", err
	case resp.StatusCode != http.StatusPartialContent || len(data) != length:
		return "", "", fmt.Errorf("a range of %d bytes was answered with %s and %d bytes", length, resp.Status, len(data))
	}
	for i, b := range data {
		if b != selftest.Byte(int64(from+i)) {
			return "", "", fmt.Errorf("byte %d of a range is not what belongs there", from+i)
		}
	}
	return "ranges pass unchanged", "", nil
}

// counter counts what was taken for sending.
type counter struct {
	io.Reader
	n atomic.Int64
}

func (r *counter) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.n.Add(int64(n))
	return n, err
}

func (c *checker) refusal(ctx context.Context) (string, string, error) {
	body := &counter{Reader: selftest.NewContent(checkRefused)}
	status, sent, err := c.refused(ctx, body)
	if err != nil {
		return "", "", fmt.Errorf("an early refusal did not arrive: %w", err)
	}
	detail := fmt.Sprintf("%d of %d MiB were sent", sent>>20, checkRefused>>20)
	switch {
	case status == http.StatusRequestEntityTooLarge:
		return "", detail, &mended{errors.New("the front refuses a body of 64 MiB by itself"), mend{"server.max-request-size, as gantry front config prints it", "client_max_body_size, as gantry front config prints it"}}
	case status != http.StatusForbidden:
		return "", detail, fmt.Errorf("a refused upload is answered with %d", status)
	case sent >= checkRefused:
		return "", detail, errors.New("a refused upload is taken to its end")
	}
	return "a refused upload stops early", detail, nil
}

// refused uploads over a connection of its own and returns the status and what
// had been sent when it came. lighttpd resets the connection soon after an
// early answer; net/http then sometimes reports the failed write instead of
// the answer that is already there.
func (c *checker) refused(ctx context.Context, body *counter) (status int, sent int64, err error) {
	d := tls.Dialer{Config: c.conf}
	conn, err := d.DialContext(ctx, "tcp", c.host)
	if err != nil {
		return 0, 0, err
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+c.prefix+"/selftest/"+"refuse", body)
	if err != nil {
		return 0, 0, errors.Join(err, conn.Close())
	}
	req.ContentLength = checkRefused
	req.Header.Set("Content-Type", api.TypeBytes)
	written := make(chan struct{})
	go func() {
		defer close(written)
		req.Write(conn) // meant to fail
	}()
	resp, err := http.ReadResponse(bufio.NewReader(conn), req)
	sent = body.n.Load()
	conn.Close()
	<-written
	if err != nil {
		return 0, sent, err
	}
	// Closing would read the rest of the answer, which went with the connection.
	return resp.StatusCode, sent, nil
}

func (c *checker) upload(ctx context.Context) (string, string, error) {
	from := time.Now()
	resp, err := c.send(ctx, c.http, http.MethodPost, "echo", selftest.NewContent(checkUpload), checkUpload)
	if err != nil {
		return "", "", err
	}
	var u selftest.Upload
	if err := answer(resp, &u); err != nil {
		return "", "", err
	}
	if want := selftest.Digest(checkUpload); u.Bytes != checkUpload || u.Digest != want {
		return "", "", fmt.Errorf("of an upload of %d bytes %d arrived, digest %s instead of %s", checkUpload, u.Bytes, u.Digest, want)
	}
	if u.Length != checkUpload {
		return "", "", &mended{fmt.Errorf("the responder was told a length of %d instead of %d", u.Length, checkUpload),
			mend{"no setenv that changes CONTENT_LENGTH", "fastcgi_param CONTENT_LENGTH $content_length if_not_empty;"}}
	}
	return "uploads arrive whole", fmt.Sprintf("%d MiB in %s", checkUpload>>20, time.Since(from).Round(time.Millisecond)), nil
}
