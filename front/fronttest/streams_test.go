package fronttest_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/api"
	"gantry/front/selftest"
)

// reply is a stream of lines as it came.
type reply struct {
	lines   []selftest.Line
	arrived []time.Time
	err     error // nil: clean end
}

func (r reply) end() string {
	if r.err != nil {
		return "broken"
	}
	return "clean end"
}

// lines reads a whole stream. It calls each after each line.
func (p *peer) lines(t *testing.T, path string, each ...func(n int)) reply {
	t.Helper()
	resp, err := p.request(t.Context(), http.MethodGet, path, nil)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	var r reply
	for s := bufio.NewReader(resp.Body); ; {
		text, err := s.ReadBytes('\n')
		if err != nil {
			if !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || len(text) > 0 {
				r.err = err
			}
			return r
		}
		r.arrived = append(r.arrived, time.Now())
		r.lines = append(r.lines, decode[selftest.Line](t, text))
		for _, f := range each {
			f(len(r.lines))
		}
	}
}

func lineLatency(t *testing.T, w *world) string {
	r := w.client(t).lines(t, "selftest/lines?n=60&every=20ms")
	require.Len(t, r.lines, 60)
	var late []time.Duration
	for i, l := range r.lines {
		late = append(late, r.arrived[i].Sub(l.Time))
	}
	slices.Sort(late)
	t.Logf("median %s, 95%% %s", late[30], late[57])
	if late[30] > 10*time.Millisecond {
		return fmt.Sprintf("median after %s", late[30])
	}
	return "at once"
}

func manyLines(t *testing.T, w *world) string {
	const n = 10_000
	r := w.client(t).lines(t, fmt.Sprintf("selftest/lines?n=%d", n))
	for i, l := range r.lines {
		require.Equal(t, i+1, l.N)
		require.Equal(t, i+1 == n, l.Last)
	}
	return fmt.Sprintf("%d in order, %s", len(r.lines), r.end())
}

func quiet(t *testing.T, w *world) string {
	pause := api.HeartbeatInterval + api.HeartbeatInterval/5
	r := w.client(t).lines(t, "selftest/quiet?for="+pause.String())
	require.Len(t, r.lines, 2)
	require.GreaterOrEqual(t, r.arrived[1].Sub(r.arrived[0]), pause-time.Second)
	return "both lines, " + r.end()
}

// leaves starts a request, ends the connection, and asks on another what
// became of it.
func leaves(mode string) func(t *testing.T, w *world) string {
	return func(t *testing.T, w *world) string {
		leaver, asker := w.client(t), w.client(t)
		id := newID()
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		method, body := http.MethodGet, io.Reader(nil)
		more, stalled := io.Pipe()
		defer more.Close()
		if mode == "read" {
			method, body = http.MethodPost, more
			go stalled.Write(make([]byte, 1<<20))
		}
		req, err := http.NewRequestWithContext(ctx, method, leaver.base+"selftest/cancel/start?mode="+mode+"&id="+id, body)
		require.NoError(t, err)
		if mode == "read" {
			req.ContentLength = 10 << 20
		}
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			resp, err := leaver.http.Do(req)
			if err != nil {
				return
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}()
		asker.get(t, "selftest/cancel/ask?until=started&id="+id)
		left := time.Now()
		leave()
		patience, stop := context.WithTimeout(t.Context(), 15*time.Second)
		defer stop()
		data := asker.ask(patience, "selftest/cancel/ask?until=ended&id="+id)
		took := time.Since(left)
		if data == nil {
			stalled.Close()
			return "context not ended after " + took.String()
		}
		stalled.Close() // Go's client waits for the body's reader
		<-gone
		answer := decode[selftest.Cancel](t, data)
		t.Logf("%s after %s: %s", answer.State, took, answer.Cause)
		require.True(t, answer.Left, "%+v", answer)
		text := "context ended within 1s"
		if took > time.Second {
			text = "context ended after " + took.String()
		}
		if mode == "read" && answer.Bytes < 10<<20 {
			text += ", body incomplete"
		}
		return text
	}
}

// ask is get for an answer that may never come.
func (p *peer) ask(ctx context.Context, path string) []byte {
	resp, err := p.request(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil
	}
	return data
}

func dies(how string) func(t *testing.T, w *world) string {
	return func(t *testing.T, w *world) string {
		p, other, id := w.client(t), w.client(t), newID()
		r := p.lines(t, "selftest/die?for=3s&how="+how+"&id="+id, func(n int) {
			if n == 3 {
				other.get(t, "selftest/die/now?id="+id)
			}
		})
		text := fmt.Sprintf("%d lines, %s", len(r.lines), r.end())
		if resp, _ := p.get(t, "selftest/headers"); resp.StatusCode == http.StatusOK && w.responder.running() {
			text += "; responder lives"
		}
		return text
	}
}

// killed: the responder's process is gone with kill -9, then another comes.
func killed(t *testing.T, w *world) string {
	p := w.client(t)
	stream, err := p.request(t.Context(), http.MethodGet, "selftest/quiet?for=40s", nil)
	require.NoError(t, err)
	defer stream.Body.Close()
	s := bufio.NewReader(stream.Body)
	_, err = s.ReadString('\n')
	require.NoError(t, err)
	// The client has the first line. Killed before the front has sent a byte,
	// even lighttpd would make a whole reply of what it has.
	w.responder.kill()
	end := "clean end"
	if rest, err := io.ReadAll(s); err != nil || len(rest) > 0 {
		end = "broken"
	}
	resp, _ := p.get(t, "selftest/headers")
	text := fmt.Sprintf("%s; then %d", end, resp.StatusCode)
	w.startResponder(t)
	from := time.Now()
	served := eventually(5*time.Second, func() bool {
		resp, _ := p.get(t, "selftest/headers")
		return resp.StatusCode == http.StatusOK
	})
	t.Logf("served %s after the responder", time.Since(from))
	if served {
		text += "; then served"
	}
	return text
}

// killedDownload: a reply with a length must not end like a whole one, and
// must not leave the client waiting for the rest.
func killedDownload(t *testing.T, w *world) string {
	const size = 256 << 20
	resp, err := w.client(t).request(t.Context(), http.MethodGet, fmt.Sprintf("selftest/big?n=%d", size), nil)
	require.NoError(t, err)
	defer resp.Body.Close()
	_, err = io.ReadFull(resp.Body, make([]byte, 1<<20))
	require.NoError(t, err)
	w.responder.kill()
	from := time.Now()
	n, err := io.Copy(io.Discard, resp.Body)
	took := time.Since(from)
	t.Logf("%d more bytes in %s: %v", n, took, err)
	switch {
	case err == nil:
		return "clean end"
	case took > 2*time.Second:
		return fmt.Sprintf("broken after %s", took)
	}
	return "broken within 2s"
}

// stopsReading takes the first bytes of a large reply and then nothing.
func stopsReading(t *testing.T, w *world) string {
	const size = 256 << 20
	p := w.client(t)
	resp, err := p.request(t.Context(), http.MethodGet, fmt.Sprintf("selftest/big?n=%d", size), nil)
	require.NoError(t, err)
	defer resp.Body.Close()
	_, err = io.ReadFull(resp.Body, make([]byte, 1<<20))
	require.NoError(t, err)
	// A second of other requests: time enough to spool hundreds of megabytes.
	other := w.client(t)
	served := other.lines(t, "selftest/lines?n=100&every=10ms")
	if len(served.lines) != 100 || served.err != nil {
		return "others not served"
	}
	spooled := folderSize(w.o.Dir)
	t.Logf("%d bytes in the front's folder", spooled)
	if spooled > 16<<20 {
		return fmt.Sprintf("others served, %d MiB spooled", spooled>>20)
	}
	return "others served, next to nothing spooled"
}

func folderSize(dir string) int64 {
	var sum int64
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, ".log") {
			return nil // files come and go
		}
		if info, err := d.Info(); err == nil {
			sum += info.Size()
		}
		return nil
	})
	return sum
}
