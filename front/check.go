package front

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"gantry/api"
	"gantry/front/selftest"
)

// Bounds of CheckURL; each request is within those of package selftest.
const (
	checkTimeout = 30 * time.Second // of one check
	checkLines   = 20
	checkEvery   = 50 * time.Millisecond
	checkOrdered = 10_000
	// checkRefused is more than the buffers between client and handler hold,
	// and little enough for a slow line.
	checkRefused = 64 << 20
	checkUpload  = 4 << 20

	// lateLine is when a line counts as held back: far above a network's
	// jitter, far below a second, which people notice.
	lateLine = 200 * time.Millisecond
	// lateCancel is when a handler that works for nobody counts as not told.
	lateCancel = 3 * time.Second
)

// Check is one line of CheckURL's answer.
type Check struct {
	Name   string // short and stable, for scripts: "tls", "lines", …
	OK     bool
	Text   string // one sentence: what was found
	Detail string // the figures behind it; may be empty
}

// checker is one run of CheckURL.
type checker struct {
	base string // https://HOST:PORT
	host string // HOST:PORT
	conf *tls.Config
	http *http.Client
}

// CheckURL tries out a live front with what is harmless there: TLS, the demand
// for a certificate, whether lines come when they are written, whether a
// handler learns that its client left, ranges, refused and accepted uploads,
// header hygiene. base is the front's URL without a path; conf is the
// caller's side of TLS (pki.ClientTLS), whose certificate needs the right
// "selftest". It takes a few seconds and sends at most 64 MiB. If nothing can
// be reached, the list ends with the check that says so.
func CheckURL(ctx context.Context, base string, conf *tls.Config) []Check {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" {
		return []Check{{Name: "url", Text: fmt.Sprintf("%q is no https URL without a path; example: https://192.0.2.10:8443", base)}}
	}
	c := &checker{base: "https://" + u.Host, host: u.Host, conf: conf}
	if u.Port() == "" {
		c.host = net.JoinHostPort(u.Hostname(), "443")
	}
	tr := c.transport(conf)
	defer tr.CloseIdleConnections()
	c.http = &http.Client{Transport: tr}

	var out []Check
	for _, one := range []struct {
		name string
		run  func(context.Context) (text, detail string, err error)
		must bool // without it the rest makes no sense
	}{
		{"tls", c.tls, true}, {"api", c.api, true},
		{"certificate", c.demanded, false}, {"http1", c.http1, false}, {"resumption", c.resumption, false},
		{"lines", c.lines, false}, {"order", c.order, false}, {"cancel", c.cancel, false},
		{"range", c.ranges, false}, {"refusal", c.refusal, false}, {"upload", c.upload, false}, {"headers", c.headers, false},
	} {
		within, stop := context.WithTimeout(ctx, checkTimeout)
		text, detail, err := one.run(within)
		stop()
		if err != nil {
			text = err.Error()
		}
		out = append(out, Check{one.name, err == nil, text, detail})
		if err != nil && one.must {
			break
		}
	}
	return out
}

func (c *checker) transport(conf *tls.Config) *http.Transport {
	// The URL's host may be an address; conf names whom to expect there.
	return &http.Transport{TLSClientConfig: conf, Proxy: nil, DisableCompression: true}
}

// dial makes one TLS connection of its own.
func (c *checker) dial(ctx context.Context, conf *tls.Config) (tls.ConnectionState, error) {
	d := tls.Dialer{Config: conf}
	conn, err := d.DialContext(ctx, "tcp", c.host)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState(), nil
}

// send makes a request below the self tests. The caller closes the body.
func (c *checker) send(ctx context.Context, client *http.Client, method, path string, body io.Reader, length int64) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+selftest.Prefix+path, body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.ContentLength = length
		req.Header.Set("Content-Type", api.TypeBytes)
	}
	return client.Do(req)
}

// ask gets a JSON answer.
func (c *checker) ask(ctx context.Context, path string, v any) error {
	resp, err := c.send(ctx, c.http, http.MethodGet, path, nil, 0)
	if err != nil {
		return err
	}
	return answer(resp, v)
}

// maxAnswer bounds what is read of a short answer: a front may send a page.
const maxAnswer = 256 << 10

func answer(resp *http.Response, v any) error {
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return statusError(resp, data)
	}
	if err := api.DecodeBytes(data, v); err != nil {
		return fmt.Errorf("the answer is not from a gantry node: %w", err)
	}
	return nil
}

func statusError(resp *http.Response, data []byte) error {
	text := fmt.Sprintf("the answer is %s", resp.Status)
	if t := resp.Header.Get("Content-Type"); strings.HasPrefix(t, "text/plain") || t == api.TypeProblem {
		text += ": " + strings.TrimSpace(string(data[:min(len(data), 500)]))
	}
	return errors.New(text)
}

func drawID() string {
	b := make([]byte, 16)
	rand.Read(b) // never fails since Go 1.24
	return hex.EncodeToString(b)
}
