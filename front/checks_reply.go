package front

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"gantry/api"
	"gantry/front/selftest"
)

const (
	// silentFor is longer than the interval of heartbeats, with one that is late.
	silentFor = 12 * time.Second
	// unread is how long a client does not read, and buffered what may be in the
	// buffers of two sockets and a front by then.
	unread   = 1500 * time.Millisecond
	buffered = 24 << 20
)

func (c *checker) silence(ctx context.Context) (string, string, error) {
	lines := 0
	err := c.stream(ctx, "quiet?for="+silentFor.String(), func(selftest.Line, time.Time) error { lines++; return nil })
	if err != nil {
		return "", "", fmt.Errorf("after %d of 2 lines with %s between them: %w", lines, silentFor, err)
	}
	return fmt.Sprintf("a handler may be silent for %s", silentFor), "", nil
}

// backpressure reads nothing of a large reply and asks how much was taken.
func (c *checker) backpressure(ctx context.Context) (string, string, error) {
	id := drawID()
	tr := c.transport(c.conf)
	defer tr.CloseIdleConnections()
	resp, err := c.send(ctx, &http.Client{Transport: tr}, http.MethodGet, "flow?id="+id, nil, 0)
	if err != nil {
		return "", "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", "", statusError(resp, nil)
	}
	var f selftest.Flow
	var before int64
	from := time.Now()
	// Until it stands still: on a busy machine a front takes its time.
	for i := range 8 {
		before = f.Taken
		select {
		case <-time.After(unread / 2):
		case <-ctx.Done():
			return "", "", ctx.Err()
		}
		if err := c.ask(ctx, "flow/ask?id="+id, &f); err != nil {
			return "", "", err
		}
		if i > 0 && f.Taken == before || i >= 3 && f.Taken > buffered {
			break
		}
	}
	detail := fmt.Sprintf("%d of %d MiB were taken in %s", f.Taken>>20, selftest.FlowSize>>20, time.Since(from).Round(100*time.Millisecond))
	// Whatever forwards the port, as container engines do, has two more sockets,
	// each of which may hold tens of MiB: then it is enough that no more is taken.
	if f.Taken > buffered && (f.Taken != before || f.Taken >= selftest.FlowSize) {
		return "", detail, errors.New("the front takes what its client does not read, into memory or onto its disk")
	}
	return "a client that does not read slows the handler down", detail, nil
}

// truncation reads a reply that its handler breaks off.
func (c *checker) truncation(ctx context.Context) (string, string, error) {
	const n = 100_000
	from := time.Now()
	resp, err := c.send(ctx, c.http, http.MethodGet, fmt.Sprintf("short?n=%d", n), nil, 0)
	var got int64
	if err == nil {
		defer resp.Body.Close()
		if resp.StatusCode >= http.StatusInternalServerError {
			return "a reply that breaks off is seen to", resp.Status, nil
		}
		got, err = io.Copy(io.Discard, io.LimitReader(resp.Body, n+1))
	}
	took := time.Since(from).Round(time.Millisecond)
	detail := fmt.Sprintf("%d of %d bytes, after %s", got, n, took)
	switch {
	case ctx.Err() != nil:
		return "", detail, errors.New("the client waits for the rest of a reply whose handler has ended")
	case err == nil:
		return "", detail, errors.New("a reply that breaks off looks complete")
	case took > lateCancel:
		return "", detail, errors.New("a reply that breaks off is seen to late")
	}
	return "a reply that breaks off is seen to", detail, nil
}

func (c *checker) compression(ctx context.Context) (string, string, error) {
	for _, path := range []string{"lines?n=200", "headers", "range"} {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+c.prefix+"/selftest/"+path, nil)
		if err != nil {
			return "", "", err
		}
		req.Header.Set("Accept-Encoding", "gzip, deflate, br, zstd")
		resp, err := c.http.Do(req)
		if err != nil {
			return "", "", err
		}
		_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, selftest.RangeSize+1))
		resp.Body.Close()
		if e := resp.Header.Get("Content-Encoding"); e != "" {
			return "", "", fmt.Errorf("replies are compressed (%s); a compressor holds lines back", e)
		}
		if err != nil {
			return "", "", err
		}
	}
	return "nothing is compressed", "", nil
}

// errors wants the text of the responder, whatever it is.
func (c *checker) errors(ctx context.Context) (string, string, error) {
	resp, err := c.send(ctx, c.http, http.MethodGet, "no-such-test", nil, 0)
	if err != nil {
		return "", "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound || !ours(resp) {
		return "", "", fmt.Errorf("an error of the responder arrives as %s, %s", resp.Status, resp.Header.Get("Content-Type"))
	}
	return "the responder's errors arrive as they are", "", nil
}

// ours tells a responder's answer from a front's page, which is HTML.
func ours(resp *http.Response) bool {
	t := resp.Header.Get("Content-Type")
	return strings.HasPrefix(t, "text/plain") || strings.HasPrefix(t, api.TypeProblem) || strings.HasPrefix(t, api.TypeJSON)
}

func (c *checker) head(ctx context.Context) (string, string, error) {
	resp, err := c.send(ctx, c.http, http.MethodHead, "range", nil, 0)
	if err != nil {
		return "", "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.ContentLength != selftest.RangeSize || resp.Header.Get("ETag") == "" {
		return "", "", fmt.Errorf("HEAD is answered with %s, length %d, ETag %q", resp.Status, resp.ContentLength, resp.Header.Get("ETag"))
	}
	return "HEAD is answered as GET, without a body", "", nil
}

// methods asks for a task that does not exist.
func (c *checker) methods(ctx context.Context) (string, string, error) {
	for _, method := range []string{http.MethodPut, http.MethodDelete} {
		req, err := http.NewRequestWithContext(ctx, method, c.base+c.things()+api.NewID(), nil)
		if err != nil {
			return "", "", err
		}
		resp, err := c.http.Do(req)
		if err != nil {
			return "", "", err
		}
		resp.Body.Close()
		if !ours(resp) {
			return "", "", fmt.Errorf("%s is answered by the front: %s", method, resp.Status)
		}
	}
	return "PUT and DELETE reach the responder", "", nil
}

// connections holds many feeds at once, each on a connection of its own.
func (c *checker) connections(ctx context.Context) (string, string, error) {
	const n = 40
	tr := c.transport(c.conf)
	tr.DisableKeepAlives = true
	defer tr.CloseIdleConnections()
	client := &http.Client{Transport: tr}
	// The feeds last longer than this check does, so that none ends and makes room.
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	for i := range n {
		resp, err := c.send(ctx, client, http.MethodGet, "quiet?for="+selftest.MaxWait.String(), nil, 0)
		if err != nil {
			return "", "", fmt.Errorf("feed %d of %d: %w", i+1, n, err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return "", "", fmt.Errorf("feed %d of %d: %w", i+1, n, statusError(resp, nil))
		}
		if _, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil {
			return "", "", fmt.Errorf("feed %d of %d: %w", i+1, n, err)
		}
	}
	return fmt.Sprintf("%d feeds at once", n), "", nil
}
