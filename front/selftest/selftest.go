// Package selftest has the handlers with which a live front is tried out:
// by "gantry front check", and by the conformance suite front/fronttest.
//
//	h := selftest.New(selftest.Options{})
//	router.PathPrefix(selftest.Prefix).Handler(h) // behind the right "selftest"
//
// Below Prefix:
//
//	GET  lines?n=20&every=50ms        n numbered lines, each flushed
//	GET  quiet?for=12s                a line, silence, a line
//	GET  cancel/start?id=&mode=silent works until the client leaves; mode=write: and writes
//	POST cancel/start?id=&mode=read   the same, reading the body
//	GET  cancel/ask?id=&until=ended   what became of it; waits up to MaxWait
//	POST echo                         counts and digests the body
//	POST refuse                       403 without reading the body
//	POST slow-read?pause=2s           rests before it reads the body
//	GET  headers                      what of identity and headers arrived
//	GET  big?n=1048576                n bytes of Content
//	GET  short?n=100000               promises n bytes and ends after half of them
//	GET  flow?id=                     FlowSize bytes, as fast as they are taken
//	GET  flow/ask?id=                 how many of them the front has taken
//	GET  range                        RangeSize bytes of Content with an ETag; one range
//	GET  die?how=…&id=&for=3s         three lines, then a bad end; only with Options.Danger
//	GET  die/now?id=                  lets it come to that
//
// It is not a benchmark and not a debugging door: every answer is bounded in
// bytes and time, reads no file, and shows only what the caller sent.
package selftest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"lukechampine.com/blake3"

	"gantry/api"
	"gantry/fastcgi"
)

// Prefix is the path below which the handlers answer.
const Prefix = api.Prefix + "/selftest/"

// Limits of one request, so that the right "selftest" is no right to wear a
// node out.
const (
	// MaxLines is ten times what the conformance suite counts.
	MaxLines = 100_000
	// MaxWait bounds every pause: longer than three heartbeats, shorter than
	// the silence that any front bears.
	MaxWait = 45 * time.Second
	// MaxBytes bounds bodies both ways: a fair upload to time, not to fill a
	// disk with (lighttpd spools).
	MaxBytes = 1 << 30
	// MaxRequests is how many requests run at the same time.
	MaxRequests = 64
	// FlowSize is more than all buffers between handler and client hold.
	FlowSize = 64 << 20
	// RangeSize is the length of what "range" serves.
	RangeSize = 8 << 20
	// RangeETag is its entity tag.
	RangeETag = `"gantry-selftest-1"`
)

// Options of New.
type Options struct {
	// Danger mounts the handler that ends badly. For tests only.
	Danger bool
}

type handlers struct {
	running chan struct{} // one token per request
	watched watches
	flows   flows
}

// New returns the handlers; it expects the whole path, Prefix included.
func New(o Options) http.Handler {
	h := &handlers{running: make(chan struct{}, MaxRequests)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+Prefix+"lines", h.lines)
	mux.HandleFunc("GET "+Prefix+"quiet", h.quiet)
	mux.HandleFunc(Prefix+"cancel/start", h.cancelStart)
	mux.HandleFunc("GET "+Prefix+"cancel/ask", h.cancelAsk)
	mux.HandleFunc("POST "+Prefix+"echo", h.echo)
	mux.HandleFunc("POST "+Prefix+"refuse", h.refuse)
	mux.HandleFunc("POST "+Prefix+"slow-read", h.slowRead)
	mux.HandleFunc("GET "+Prefix+"headers", h.headers)
	mux.HandleFunc("GET "+Prefix+"big", h.big)
	mux.HandleFunc("GET "+Prefix+"short", h.short)
	mux.HandleFunc("GET "+Prefix+"flow", h.flow)
	mux.HandleFunc("GET "+Prefix+"flow/ask", h.flowAsk)
	mux.HandleFunc("GET "+Prefix+"range", h.ranged)
	if o.Danger {
		mux.HandleFunc("GET "+Prefix+"die", h.die)
		mux.HandleFunc("GET "+Prefix+"die/now", h.dieNow)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case h.running <- struct{}{}:
			defer func() { <-h.running }()
			mux.ServeHTTP(w, r)
		default:
			http.Error(w, fmt.Sprintf("%d self tests are running; try again later", MaxRequests), http.StatusServiceUnavailable)
		}
	})
}

// stream begins a reply with the headers of a feed.
func stream(w http.ResponseWriter) *http.ResponseController {
	h := w.Header()
	h.Set("Content-Type", api.TypeFeed)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Accel-Buffering", "no")
	return http.NewResponseController(w)
}

func line(w io.Writer, rc *http.ResponseController, v any) error {
	if _, err := w.Write(append(api.Encode(v), '\n')); err != nil {
		return err
	}
	return rc.Flush()
}

// A Line is one line of "lines" and "quiet".
type Line struct {
	N    int       `json:"n"`
	Time time.Time `json:"t"` // when it was written
	Last bool      `json:"last"`
}

func (h *handlers) lines(w http.ResponseWriter, r *http.Request) {
	n, ok1 := number(w, r, "n", MaxLines)
	every, ok2 := pause(w, r, "every")
	if !ok1 || !ok2 {
		return
	}
	if time.Duration(n)*every > MaxWait {
		http.Error(w, fmt.Sprintf("n times every: at most %s", MaxWait), http.StatusBadRequest)
		return
	}
	rc := stream(w)
	for i := 1; i <= int(n); i++ {
		if !rest(r, every) || line(w, rc, Line{i, time.Now(), i == int(n)}) != nil {
			return
		}
	}
}

func (h *handlers) quiet(w http.ResponseWriter, r *http.Request) {
	d, ok := pause(w, r, "for")
	if !ok {
		return
	}
	rc := stream(w)
	if line(w, rc, Line{1, time.Now(), false}) == nil && rest(r, d) {
		line(w, rc, Line{2, time.Now(), true})
	}
}

// rest pauses; false means that the client has left.
func rest(r *http.Request, d time.Duration) bool {
	if d == 0 {
		return r.Context().Err() == nil
	}
	select {
	case <-time.After(d):
		return true
	case <-r.Context().Done():
		return false
	}
}

// Upload is the answer to "echo" and "slow-read".
type Upload struct {
	Bytes  int64  `json:"bytes"`
	Digest string `json:"digest"` // b3: and 64 hex digits
	Length int64  `json:"length"` // as announced by the front, -1: not at all
	Error  string `json:"error,omitzero"`
}

func (h *handlers) echo(w http.ResponseWriter, r *http.Request) {
	n, digest, err := digest(http.MaxBytesReader(w, r.Body, MaxBytes))
	u := Upload{Bytes: n, Digest: digest, Length: r.ContentLength}
	if err != nil {
		u.Error = err.Error()
	}
	reply(w, u)
}

func digest(r io.Reader) (int64, string, error) {
	sum := blake3.New(32, nil)
	n, err := io.Copy(sum, r)
	return n, "b3:" + hex.EncodeToString(sum.Sum(nil)), err
}

// Digest is what "echo" answers for the first n bytes of Content.
func Digest(n int64) string {
	_, text, _ := digest(NewContent(n)) // Content never fails
	return text
}

// refuse leaves at least the tail of a large body unread.
func (h *handlers) refuse(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "refused before the body was read", http.StatusForbidden)
}

func (h *handlers) slowRead(w http.ResponseWriter, r *http.Request) {
	if d, ok := pause(w, r, "pause"); ok && rest(r, d) {
		h.echo(w, r)
	}
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", api.TypeJSON)
	w.Header().Set("Cache-Control", "no-store")
	w.Write(append(api.Encode(v), '\n'))
}

// Headers is the answer to "headers".
type Headers struct {
	// Params are the parameters of the front that matter here; a certificate
	// as the SHA-256 of its DER.
	Params map[string]string `json:"params"`
	// HTTP are the headers as they arrived, by Go's canonical name.
	HTTP map[string][]string `json:"http"`
	// Token says whether the front presented GANTRY_FRONT_TOKEN.
	Token bool `json:"token"`
}

// shown are the front's parameters that the caller knows anyway.
var shown = []string{
	"SSL_CLIENT_VERIFY", "SSL_PROTOCOL", "HTTPS", "SERVER_PROTOCOL", "REQUEST_METHOD", "REQUEST_URI",
	"SERVER_ADDR", "SERVER_PORT", "SERVER_SOFTWARE", "CONTENT_LENGTH", "CONTENT_TYPE",
}

// hidden headers carry secrets of other routes.
var hidden = []string{"Authorization", "Cookie", api.TicketHeader}

func (h *handlers) headers(w http.ResponseWriter, r *http.Request) {
	answer := Headers{Params: map[string]string{}, HTTP: r.Header.Clone()}
	for _, name := range hidden {
		delete(answer.HTTP, name)
	}
	if p := fastcgi.ParamsFrom(r.Context()); p != nil {
		for _, name := range shown {
			if v, ok := p.Get(name); ok {
				answer.Params[name] = v
			}
		}
		if v, ok := p.Get("SSL_CLIENT_CERT"); ok {
			answer.Params["SSL_CLIENT_CERT"] = "no certificate"
			if block, rest := pem.Decode([]byte(v)); block != nil && strings.TrimSpace(string(rest)) == "" {
				answer.Params["SSL_CLIENT_CERT"] = fmt.Sprintf("sha256:%x", sha256.Sum256(block.Bytes))
			}
		}
		_, answer.Token = p.Get("GANTRY_FRONT_TOKEN")
	}
	reply(w, answer)
}

func (h *handlers) big(w http.ResponseWriter, r *http.Request) {
	n, ok := number(w, r, "n", MaxBytes)
	if !ok {
		return
	}
	w.Header().Set("Content-Type", api.TypeBytes)
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	io.Copy(w, NewContent(n))
}

// ranged behaves like the content of an export: one range, or the whole.
func (h *handlers) ranged(w http.ResponseWriter, r *http.Request) {
	if strings.Contains(r.Header.Get("Range"), ",") {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", RangeSize))
		http.Error(w, "one range at a time", http.StatusRequestedRangeNotSatisfiable)
		return
	}
	w.Header().Set("Content-Type", api.TypeBytes)
	w.Header().Set("ETag", RangeETag)
	http.ServeContent(w, r, "", time.Time{}, NewContent(RangeSize))
}

// die ends badly. "nofinal" returns as if all were said; "short" breaks its
// Content-Length; "panic" panics. It waits until the client has its three lines
// and says so with "die/now", but not for longer than "for": a front that has sent
// nothing yet may make a whole reply of what it has, one that buffers bulk sends
// nothing before the end.
func (h *handlers) die(w http.ResponseWriter, r *http.Request) {
	patience, ok := pause(w, r, "for")
	if !ok {
		return
	}
	if patience == 0 {
		patience = MaxWait
	}
	watch := h.watchOf(w, r)
	if watch == nil {
		return
	}
	how := r.URL.Query().Get("how")
	rc := stream(w)
	if how == "short" { // bulk, not a feed
		w.Header().Del("X-Accel-Buffering")
		w.Header().Set("Content-Type", api.TypeBytes)
		w.Header().Set("Content-Length", "1000")
	}
	for i := 1; i <= 3; i++ {
		line(w, rc, Line{i, time.Now(), false})
	}
	select {
	case <-watch.started:
	case <-time.After(patience):
	case <-r.Context().Done():
	}
	if how == "panic" {
		panic("self test: told to panic")
	}
}

func (h *handlers) dieNow(w http.ResponseWriter, r *http.Request) {
	if watch := h.watchOf(w, r); watch != nil {
		watch.once.Do(func() { close(watch.started) })
	}
}

func number(w http.ResponseWriter, r *http.Request, name string, most int64) (int64, bool) {
	n, err := strconv.ParseInt(r.URL.Query().Get(name), 10, 64)
	if err != nil || n < 0 || n > most {
		http.Error(w, fmt.Sprintf("%s: want a number from 0 to %d", name, most), http.StatusBadRequest)
		return 0, false
	}
	return n, true
}

func pause(w http.ResponseWriter, r *http.Request, name string) (time.Duration, bool) {
	s := r.URL.Query().Get(name)
	if s == "" {
		return 0, true
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d > MaxWait {
		http.Error(w, fmt.Sprintf("%s: want a duration from 0s to %s, as in 50ms", name, MaxWait), http.StatusBadRequest)
		return 0, false
	}
	return d, true
}
