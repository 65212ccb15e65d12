package fronttest_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"gantry/front"
)

// row is one thing that happens, and what comes of it.
type row struct {
	name    string
	observe func(t *testing.T, w *world) string // a few words, the same every time
	want    expected
	why     string // of a difference; in full
	// alone: before the parallel rows, because it measures time.
	alone bool
	// own: with servers of its own, because it ends some of them.
	own bool
}

// expected has a value per front.
type expected map[front.Kind]string

func all(s string) expected { return each(s, s, s) }

func each(lighttpd, nginx, embedded string) expected {
	return expected{front.Lighttpd: lighttpd, front.Nginx: nginx, front.EmbeddedServer: embedded}
}

func TestConformance(t *testing.T) {
	for _, kind := range front.Kinds {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, kind)
			for _, r := range table {
				if r.alone {
					t.Run(r.name, func(t *testing.T) { r.check(t, w) })
				}
			}
			for _, r := range table {
				if r.alone {
					continue
				}
				t.Run(r.name, func(t *testing.T) {
					t.Parallel()
					if r.own {
						r.check(t, newWorld(t, kind))
						return
					}
					r.check(t, w)
				})
			}
		})
	}
}

func (r row) check(t *testing.T, w *world) {
	got := r.observe(t, w)
	require.Equal(t, r.want[w.kind], got, "%s: %s", w.kind, r.why)
}

// A reader of the table must be able to trust that what has no explanation is
// the same everywhere.
func TestDifferencesAreExplained(t *testing.T) {
	names := map[string]bool{}
	for _, r := range table {
		require.False(t, names[r.name], "%s stands twice", r.name)
		names[r.name] = true
		values := map[string]bool{}
		for _, kind := range front.Kinds {
			require.NotEmpty(t, r.want[kind], "%s says nothing about %s", r.name, kind)
			values[r.want[kind]] = true
		}
		if len(values) > 1 {
			require.Greater(t, len(r.why), 60, "%s differs between fronts; say why", r.name)
		} else {
			require.Empty(t, r.why, "%s is the same everywhere", r.name)
		}
	}
}

var table = []row{
	// Streams.
	{name: "each line arrives when it is written", alone: true, observe: lineLatency, want: all("at once")},
	{name: "10,000 lines arrive in order", observe: manyLines, want: all("10000 in order, clean end")},
	{name: "handler is quiet for longer than the heartbeat", observe: quiet, want: all("both lines, clean end")},
	{name: "client leaves while the handler is silent", alone: true, observe: leaves("silent"), want: all("context ended within 1s")},
	{name: "client leaves while the handler writes", alone: true, observe: leaves("write"), want: all("context ended within 1s")},
	{name: "client leaves while the handler reads", alone: true, observe: leaves("read"), want: all("context ended within 1s, body incomplete")},
	{name: "handler returns without a final", observe: dies("nofinal"), want: all("3 lines, clean end; responder lives")},
	{
		name: "handler panics after three lines", observe: dies("panic"),
		want: each("3 lines, broken; responder lives", "3 lines, clean end; responder lives", "3 lines, broken; responder lives"),
		why: "The responder closes its socket without FCGI_END_REQUEST, all that FastCGI has for a reply that is not whole: a non-zero application " +
			"status reaches no client. nginx takes the end of the socket for the end of a reply that is sent line by line.",
	},
	{
		name: "handler writes less than its Content-Length", observe: dies("short"), want: all("3 lines, broken; responder lives"),
	},
	{
		name: "responder is killed in mid-stream", own: true, observe: killed,
		want: each("broken; then 503; then served", "clean end; then 502; then served", "broken; then 502; then served"),
		why: "In a reply that is sent line by line (X-Accel-Buffering: no) nginx takes the end of the socket for the end of the reply, even without " +
			"FCGI_END_REQUEST, and finishes the chunked coding: this is why the end of a reply means nothing without a final record. lighttpd " +
			"with stream-response-body = 2 and the embedded front break it. Without a responder lighttpd answers 503, the others 502.",
	},
	{name: "responder is killed in the middle of a download", own: true, observe: killedDownload, want: all("broken within 2s")},
	{name: "client stops reading", own: true, observe: stopsReading, want: all("others served, next to nothing spooled")},

	// Uploads.
	{name: "upload of 300 MB is refused early", observe: refusedEarly, want: all("403, upload stopped")},
	{
		name: "handler rests before it reads an upload of 24 MiB", alone: true, observe: slowUpload,
		want: each("taken at once; all bytes arrived", "held back; all bytes arrived", "held back; all bytes arrived"),
		why: "lighttpd reads a body at the client's speed whatever stream-request-body says, and spools it to server.upload-dirs; that is what " +
			"server.max-request-size bounds. nginx with fastcgi_request_buffering off and the embedded front let the client wait.",
	},
	{
		name: "upload without a Content-Length", observe: chunkedUpload,
		want: each("411", "200, 1048576 bytes", "411"),
		why: "FastCGI announces a length. lighttpd answers 411 itself when it streams bodies; the embedded front does too, because gofast would " +
			"end a broken chunked body like a complete one. nginx passes the body on without a length; the responder's routes ask for one.",
	},
	{name: "upload larger than the limit", observe: tooLarge, want: all("413")},
	{name: "client leaves in the middle of an upload", observe: brokenUpload, want: all("body incomplete")},

	// Ranges.
	{name: "D61 range, two ranges, If-Range and HEAD on a streamed reply", observe: rangesStreamed, want: all(
		"one 206 right; If-Range same 206 right; If-Range other 200 right; two 416; past the end 416; HEAD 200 of 8388608")},
	{
		name: "D61 range, two ranges, If-Range and HEAD on a file sent by the front", observe: rangesSent,
		want: each(
			"one 206 right; If-Range same 206 right; If-Range other 200 right; two 206; past the end 416; HEAD 200 of 8388608; type kept",
			"one 206 right; If-Range same 206 right; If-Range other 200 right; two 206; past the end 416; HEAD 200 of 8388608; type kept",
			"one 206 right; If-Range same 206 right; If-Range other 200 right; two 206; past the end 416; HEAD 200 of 8388608; type kept",
		),
	},
	{
		name: "E68 file sent by the front: symbolic link, way out, missing", observe: sendRefusals,
		want: each("link 403; way out 403; missing 404; direct 404", "link 403; way out 404; missing 404; direct 404", "link 404; way out 404; missing 404; direct 404"),
		why: "None of them sends a byte of what lies outside. lighttpd says 403 for a link and for a path outside x-sendfile-docroot, nginx 403 for " +
			"a link and 404 for a path that leaves its internal location. The embedded front sends no files; the responder opens them below " +
			"a held root and finds nothing.",
	},

	// Headers, parameters, paths.
	{name: "B27 B28 B29 identity headers, Proxy and twins from the client", observe: hostileHeaders, want: each(
		"identity untouched; no HTTP_PROXY; twin twice, or refused", "identity untouched; no HTTP_PROXY; twin dropped", "identity untouched; no HTTP_PROXY; twin dropped"),
		why: "A header name with an underscore becomes the same parameter as its twin with a hyphen. nginx and the embedded front drop the underscore " +
			"form. lighttpd before 1.4.83 passes both as one parameter given twice, which the responder shows as two values of one " +
			"header; from 1.4.83 it answers 400. Identity is no HTTP_ parameter anywhere, so neither form can touch it.",
	},
	{
		name: "B22 B23 header and parameter limits", observe: headerLimits,
		want: each("7 kB 200; 9 kB 431; 40 kB in lines 431; 300 headers 400; long path 431", "7 kB 200; 9 kB 400; 40 kB in lines 400; 300 headers 400; long path 414", "7 kB 200; 9 kB 431; 40 kB in lines 431; 300 headers 400; long path 431"),
		why: "RFC 6585 has 431 for header fields that are too large; nginx answers 400 for those and 414 for the request line. lighttpd and the " +
			"embedded front count the request line among the fields. More than 256 parameters are refused by the responder.",
	},
	{name: "B31 paths outside the API", observe: otherPaths, want: all("none reached the responder")},
	{name: "the front says who it is", observe: identityParams, want: all("SUCCESS, TLSv1.3, HTTPS on, HTTP/1.1, own certificate, token")},
	{
		name: "Server header", observe: banner, want: each("none", "nginx", "none"),
		why: "nginx hides its version (server_tokens off) but not its name; the shipped Debian package has no module that removes the header.",
	},

	// TLS and identity.
	{
		name: "G106 no certificate, expired, of another CA", observe: badCertificates,
		want: each(
			"none: handshake refused; expired: handshake refused; other CA: handshake refused",
			"none: 400; expired: 400; other CA: 400",
			"none: handshake refused; expired: handshake refused; other CA: handshake refused",
		),
		why: "nginx finishes the handshake with whoever comes and answers 400 to the request; lighttpd and the embedded front end the handshake with " +
			"an alert, so the client sees no HTTP at all. In no case does the responder hear of it.",
	},
	{name: "G106 G108 revoked, wrong role", observe: refusedByResponder, want: all("revoked: 403 of the responder; wrong role: 403 of the responder")},
	{name: "every address demands a certificate", observe: everyAddress, want: all("4 addresses serve; 4 refuse without a certificate")},
	{name: "TLS 1.2, HTTP/2, session tickets", observe: protocols, want: all("TLS 1.2 refused; http/1.1; never resumed")},
	{name: "no process of the front runs as root", observe: noRoot, want: all("no root")},

	// Life of the servers.
	{
		name: "front is reloaded with a feed open", own: true, observe: reloaded,
		want: each("new certificate served after the grace of 2s; feed whole, cut once", "new certificate served at once; feed whole, not cut", "cannot reload; restart it"),
		why: "lighttpd 1.4.69 accepts nothing until old requests have ended or server.graceful-shutdown-timeout (2 s) is over, then cuts the rest. nginx " +
			"serves with new workers at once and lets the old ones finish for worker_shutdown_timeout (10 s). The embedded front " +
			"reads its files once.",
	},
	{name: "front is restarted with a feed open", own: true, observe: restarted, want: all("served again; feed whole, cut once")},
	{name: "front is killed with a feed open", own: true, observe: frontKilled, want: all("served again; feed whole, cut once")},
	{name: "responder is restarted with a feed open", own: true, observe: responderRestarted, want: all("served again; feed whole, cut once")},
	{name: "gantry front check", observe: frontCheck, want: all("all good")},
}
