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
	"slices"
	"strings"
	"time"

	"gantry/api"

	"golang.org/x/sync/errgroup"
)

// Bounds of CheckURL; each request is within those of package selftest.
const (
	checkTimeout = 18 * time.Second // of one check
	// atOnce is how many checks that measure no time run side by side.
	atOnce       = 8
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
	Name   string `json:"name"` // short and stable, for scripts: "tls", "lines", …
	OK     bool   `json:"ok"`
	Text   string `json:"text"`            // one sentence: what was found
	Detail string `json:"detail,omitzero"` // the figures behind it
	Remedy string `json:"remedy,omitzero"` // of a failed one: the line of the front's configuration that mends it
}

// checker is one run of CheckURL.
type checker struct {
	base string // https://HOST:PORT
	// prefix is the API's path: api.Prefix or api.MasterPrefix.
	prefix string
	host   string // HOST:PORT
	conf   *tls.Config
	http   *http.Client

	kind Kind // as the front's parameters tell; "" until then
}

// CheckURL tries out a live front with what is harmless there; Checks lists
// what. base is the front's URL without a path; conf is the caller's side of
// TLS (pki.ClientTLS), whose certificate needs the right "selftest". only names
// the checks to run; none: all. It takes less than 20 s and moves at most
// 200 MiB. If nothing can be reached, the list ends with the check that says so.
func CheckURL(ctx context.Context, base string, conf *tls.Config, only ...string) []Check {
	return checkURL(ctx, base, api.Prefix, conf, only)
}

// CheckMasterURL is CheckURL for the front of a master.
func CheckMasterURL(ctx context.Context, base string, conf *tls.Config, only ...string) []Check {
	return checkURL(ctx, base, api.MasterPrefix, conf, only)
}

func checkURL(ctx context.Context, base, prefix string, conf *tls.Config, only []string) []Check {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" {
		return []Check{{Name: "url", Text: fmt.Sprintf("%q is no https URL without a path; example: https://192.0.2.10:8443", base)}}
	}
	c := &checker{base: "https://" + u.Host, prefix: prefix, host: u.Host, conf: conf}
	if u.Port() == "" {
		c.host = net.JoinHostPort(u.Hostname(), "443")
	}
	tr := c.transport(conf)
	defer tr.CloseIdleConnections()
	c.http = &http.Client{Transport: tr}
	return c.all(ctx, func(name string) bool { return len(only) == 0 || slices.Contains(only, name) })
}

// all runs the checks: first those without which the rest makes no sense, then
// those that measure time, one by one, then the others side by side.
func (c *checker) all(ctx context.Context, wanted func(string) bool) []Check {
	out := make([]Check, len(checklist))
	for i, one := range checklist {
		if one.when == first {
			if out[i] = c.run(ctx, one); !out[i].OK {
				return out[:i+1]
			}
		}
	}
	for i, one := range checklist {
		if one.when == alone && wanted(one.name) {
			out[i] = c.run(ctx, one)
		}
	}
	var group errgroup.Group
	group.SetLimit(atOnce)
	for i, one := range checklist {
		if one.when == beside && wanted(one.name) {
			group.Go(func() error { out[i] = c.run(ctx, one); return nil })
		}
	}
	group.Wait()
	return slices.DeleteFunc(out, func(one Check) bool { return !wanted(one.Name) })
}

// run runs one check.
func (c *checker) run(ctx context.Context, one checkItem) Check {
	ctx, stop := context.WithTimeout(ctx, checkTimeout)
	defer stop()
	text, detail, err := one.run(c, ctx)
	if err == nil {
		return Check{Name: one.name, OK: true, Text: text, Detail: detail}
	}
	remedy := one.mend
	if special, ok := errors.AsType[*mended](err); ok {
		remedy = special.mend
	}
	return Check{Name: one.name, Text: err.Error(), Detail: detail, Remedy: remedy.line(c.kind)}
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

// things is the path of what the API keeps by id.
func (c *checker) things() string {
	if c.prefix == api.MasterPrefix {
		return c.prefix + "/jobs/"
	}
	return c.prefix + "/tasks/"
}

// send makes a request below the self tests. The caller closes the body.
func (c *checker) send(ctx context.Context, client *http.Client, method, path string, body io.Reader, length int64) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+c.prefix+"/selftest/"+path, body)
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
