package fronttest_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/front"
	"gantry/pki"
)

// A breakage is the shipped configuration with one thing wrong: change replaces
// the 1st by the 2nd text, the 3rd by the 4th, and so on; WWW is a folder with
// pages. check is what fails then, and its remedy names the word.
type breakage struct {
	kind        front.Kind
	check, word string
	change      []string
}

func of(kind front.Kind, check, word string, change ...string) breakage {
	return breakage{kind, check, word, change}
}

const (
	l = front.Lighttpd
	n = front.Nginx
)

var breakages = []breakage{
	of(l, "tls", "ssl.pemfile", `ssl.engine = "enable"`, `ssl.engine = "disable"`),
	of(l, "api", "fastcgi.server", `"/node/v1/" => (`, `"/elsewhere/" => (`),
	of(l, "api", "socket", `"socket" => "`, `"socket" => "/nowhere`),
	of(l, "api", "exportcert", `ssl.verifyclient.exportcert = "enable"`, `ssl.verifyclient.exportcert = "disable"`),
	of(l, "api", "activate", `ssl.verifyclient.activate = "enable"`, `ssl.verifyclient.activate = "disable"`),
	of(l, "tls-version", "MinProtocol", `"MinProtocol" => "TLSv1.3"`, `"MinProtocol" => "TLSv1.2"`),
	of(l, "certificate", "enforce", `ssl.verifyclient.enforce = "enable"`, `ssl.verifyclient.enforce = "disable"`),
	of(l, "foreign", "enforce", `ssl.verifyclient.enforce = "enable"`, `ssl.verifyclient.enforce = "disable"`),
	of(l, "http1", "h2proto", `"server.h2proto" => "disable"`, `"server.h2proto" => "enable"`),
	of(l, "resumption", "SessionTicket", `"Options" => "-SessionTicket"`, `"Options" => "SessionTicket"`),
	of(l, "lines", "stream-response-body", "server.stream-response-body = 2", "server.stream-response-body = 0"),
	of(l, "backpressure", "stream-response-body", "server.stream-response-body = 2", "server.stream-response-body = 1"),
	of(l, "cancel", "tcp-fin-propagate", `"tcp-fin-propagate" => "enable"`, `"tcp-fin-propagate" => "disable"`),
	of(l, "refusal", "stream-request-body", "server.stream-request-body = 1", "server.stream-request-body = 0"),
	of(l, "refusal", "max-request-size", "server.max-request-size = 524288", "server.max-request-size = 1024"),
	of(l, "body-limit", "max-request-size", "server.max-request-size = 524288", "server.max-request-size = 0"),
	of(l, "header-limit", "max-request-field-size", "server.max-request-field-size = 8192", "server.max-request-field-size = 60000"),
	of(l, "silence", "max-write-idle", "server.max-write-idle = 120", "server.max-write-idle = 4"),
	of(l, "keep-alive", "max-keep-alive-requests", "server.max-keep-alive-requests = 1000", "server.max-keep-alive-requests = 1"),
	of(l, "keep-alive", "max-keep-alive-idle", "server.max-keep-alive-idle = 75", "server.max-keep-alive-idle = 0"),
	of(l, "connections", "max-connections", "server.max-connections = 2048", "server.max-connections = 16"),
	of(l, "connections", "max-fds", "server.max-fds = 4096", "server.max-fds = 64"),
	of(l, "version", "server.tag", `server.tag = ""`, `server.tag = "lighttpd/1.4.69"`),
	of(l, "paths", "document-root", `server.compat-module-load = "disable"`, `server.compat-module-load = "enable"`, `server.document-root = "`, `server.document-root = "WWW"#`),
	of(l, "compression", "mod_deflate", `server.modules = ( `, `deflate.mimetypes = ( "application/" )`+"\n"+`deflate.allowed-encodings = ( "gzip" )`+"\n"+`server.modules = ( "mod_deflate", `),
	of(l, "errors", "error-intercept", `server.tag = ""`, `server.errorfile-prefix = "WWW/"`+"\n"+`server.error-intercept = "enable"`),

	of(n, "tls", "listen", "ssl;", ";"),
	of(n, "api", "location", "location /node/v1/ {", "location /elsewhere/ {"),
	of(n, "api", "fastcgi_pass", `fastcgi_pass "unix:`, `fastcgi_pass "unix:/nowhere`),
	of(n, "api", "SSL_CLIENT_CERT", "fastcgi_param SSL_CLIENT_CERT", "# "),
	of(n, "api", "SSL_CLIENT_VERIFY", "fastcgi_param SSL_CLIENT_VERIFY", "# "),
	of(n, "api", "HTTPS", "fastcgi_param HTTPS", "# "),
	of(n, "api", "ssl_verify_client", "ssl_verify_client on", "ssl_verify_client off"),
	of(n, "tls-version", "ssl_protocols", "ssl_protocols TLSv1.3;", "ssl_protocols TLSv1.2 TLSv1.3;"),
	of(n, "certificate", "ssl_verify_client", "ssl_verify_client on", "ssl_verify_client optional"),
	of(n, "foreign", "ssl_verify_client", "ssl_verify_client on", "ssl_verify_client optional_no_ca"),
	of(n, "http1", "http2", "ssl;", "ssl http2;"),
	of(n, "resumption", "ssl_session_tickets", "ssl_session_tickets off", "ssl_session_tickets on"),
	of(n, "resumption", "ssl_session_cache", "ssl_session_cache off", "ssl_session_cache shared:s:1m"),
	of(n, "underscore", "underscores_in_headers", "underscores_in_headers off", "underscores_in_headers on"),
	of(n, "parameters", "fastcgi_param", "fastcgi_param SSL_PROTOCOL", "# "),
	of(n, "parameters", "fastcgi_param", "fastcgi_param SERVER_ADDR", "# "),
	of(n, "parameters", "fastcgi_param", "fastcgi_param SERVER_PORT", "# "),
	of(n, "parameters", "fastcgi_param", "fastcgi_param SERVER_PROTOCOL $server_protocol", "fastcgi_param SERVER_PROTOCOL HTTP/1.0"),
	of(n, "api", "location", "fastcgi_param REQUEST_METHOD", "# "),
	of(n, "parameters", "fastcgi_param", "fastcgi_param REQUEST_URI", "# "),
	of(n, "upload", "CONTENT_LENGTH", "fastcgi_param CONTENT_LENGTH", "# "),
	of(n, "lines", "fastcgi_buffering", "fastcgi_buffering on;", "fastcgi_buffering on; fastcgi_ignore_headers X-Accel-Buffering;"),
	of(n, "backpressure", "fastcgi_max_temp_file_size", "fastcgi_max_temp_file_size 0;", ""),
	of(n, "truncation", "fastcgi_keep_conn", "fastcgi_keep_conn on;", ""),
	of(n, "cancel", "fastcgi_ignore_client_abort", "fastcgi_ignore_client_abort off", "fastcgi_ignore_client_abort on"),
	of(n, "refusal", "fastcgi_request_buffering", "fastcgi_request_buffering off", "fastcgi_request_buffering on"),
	of(n, "refusal", "client_max_body_size", "client_max_body_size 536870912", "client_max_body_size 1m"),
	of(n, "body-limit", "client_max_body_size", "client_max_body_size 536870912", "client_max_body_size 0"),
	of(n, "header-limit", "large_client_header_buffers", "large_client_header_buffers 4 8k", "large_client_header_buffers 16 64k"),
	of(n, "slow-header", "client_header_timeout", "client_header_timeout 10s", "client_header_timeout 60s"),
	of(n, "silence", "fastcgi_read_timeout", "fastcgi_read_timeout 120s", "fastcgi_read_timeout 4s"),
	of(n, "keep-alive", "keepalive_requests", "keepalive_requests 1000", "keepalive_requests 1"),
	of(n, "keep-alive", "keepalive_timeout", "keepalive_timeout 75s", "keepalive_timeout 0"),
	of(n, "connections", "worker_connections", "worker_connections 4096", "worker_connections 32", "worker_processes auto", "worker_processes 1"),
	of(n, "version", "server_tokens", "server_tokens off", "server_tokens on"),
	of(n, "compression", "gzip", "gzip off;", "gzip on; gzip_types *; gzip_proxied any;"),
	of(n, "errors", "fastcgi_intercept_errors", "fastcgi_intercept_errors off;", "fastcgi_intercept_errors on; error_page 404 /gone;"),
	of(n, "methods", "limit_except", "fastcgi_next_upstream off;", "limit_except GET POST { deny all; }"),
	of(n, "paths", "location /", "location / {\n            return 404;", "location / {\n            root WWW;"),
	of(n, "paths", "location = /node/v1", "location = /node/v1 {\n            return 404;", "location = /node/v2 {\n            return 404;"),
	of(n, "send-path", "internal", "internal;", "autoindex on;"),
}

// TestBreakages breaks one line of the shipped configuration at a time: the check
// that is about it fails, and says which line mends it.
func TestBreakages(t *testing.T) {
	for _, b := range breakages {
		t.Run(string(b.kind)+" "+b.check+" "+b.word, func(t *testing.T) {
			t.Parallel()
			if b.word == "mod_deflate" {
				if _, err := os.Stat("/usr/lib/lighttpd/mod_deflate.so"); err != nil {
					t.Skip("needs lighttpd's mod_deflate: " + err.Error())
				}
			}
			w := prepareWorld(t, b.kind)
			w.breakConf(t, b.change)
			w.startResponder(t)
			w.startFront(t)
			checks := front.CheckURL(t.Context(), "https://"+w.o.API[0], pki.ClientTLS(w.identity(t, pki.RoleOperator), nodeName, nil), b.check)
			i := slices.IndexFunc(checks, func(c front.Check) bool { return c.Name == b.check })
			require.GreaterOrEqual(t, i, 0, "%+v", checks)
			require.False(t, checks[i].OK, "nothing was found: %+v", checks[i])
			require.Contains(t, checks[i].Remedy, b.word, "%+v", checks[i])
			t.Logf("%s: %s. Remedy: %s", b.check, checks[i].Text, checks[i].Remedy)
		})
	}
}

// breakConf changes the configuration that was written.
func (w *world) breakConf(t *testing.T, change []string) {
	t.Helper()
	www := filepath.Join(w.dir, "www")
	require.NoError(t, os.Mkdir(www, 0o755))
	for _, page := range []string{"index.html", "404.html"} {
		write(t, filepath.Join(www, page), []byte("<p>a page of somebody else"), 0o644, -1)
	}
	text, err := os.ReadFile(w.conf)
	require.NoError(t, err)
	conf := string(text)
	for i := 0; i < len(change); i += 2 {
		require.Contains(t, conf, change[i])
		conf = strings.ReplaceAll(conf, change[i], strings.ReplaceAll(change[i+1], "WWW", www))
	}
	write(t, w.conf, []byte(conf), 0o644, -1)
}

func TestExpiringCertificate(t *testing.T) {
	w := prepareWorld(t, front.Nginx)
	leaf, err := w.ca.Issue(pki.RoleFront, nodeName, []string{"127.0.0.1", "::1"}, 24*time.Hour)
	require.NoError(t, err)
	write(t, w.o.Cert, leaf.CertPEM, 0o644, -1)
	write(t, w.o.Key, leaf.KeyPEM, 0o600, frontUID)
	w.startResponder(t)
	w.startFront(t)
	checks := front.CheckURL(t.Context(), "https://"+w.o.API[0], pki.ClientTLS(w.identity(t, pki.RoleOperator), nodeName, nil), "expiry")
	require.Len(t, checks, 1)
	require.False(t, checks[0].OK)
	require.Contains(t, checks[0].Remedy, "ssl_certificate")
}

// unseen are the lines whose loss cannot be seen by a client that only asks, with
// the reason, or the test that shows it.
var unseen = map[string]string{
	// Both.
	"include": "the responder refuses a front without its token: node's tests of trust",

	// lighttpd.
	"server.modules": "without one the configuration is refused at start", "server.compat-module-load": "broken together with document-root",
	"server.errorlog": "a file", "server.pid-file": "a file", "server.upload-dirs": "a folder; row \"handler rests before it reads\"",
	`"server.graceful-shutdown-timeout"`: "row \"reload\"", "server.max-read-idle": "a minute: longer than a check may take",
	"server.follow-symlink": "row \"link in a folder that the front sends\"", "ssl.pemfile": "without it nothing starts", "ssl.privkey": "without it nothing starts",
	"ssl.verifyclient.ca-file": "without it nothing starts", "ssl.verifyclient.depth": "the cluster's CA issues no intermediates",
	"server.bind": "an address", "server.port": "an address", `$SERVER["socket"]`: "an address",
	`"check-local"`: "the document root does not exist: without it every path is 404, as in the check api", `"connect-timeout"`: "needs a responder that does not accept",
	`"write-timeout"`: "two minutes", `"disable-time"`: "row \"responder is killed in mid-stream\"", `"x-sendfile"`: "TestSendFront of internal/cluster",
	`"x-sendfile-docroot"`: "TestSendFront of internal/cluster",

	// nginx.
	"daemon": "for the service manager", "worker_processes": "speed", "worker_shutdown_timeout": "row \"reload\"", "pid": "a file", "error_log": "a file",
	"access_log": "a file", "types": "the responder names the type", "default_type": "the responder names the type", "sendfile": "speed",
	"client_body_temp_path": "a folder", "fastcgi_temp_path": "a folder", "proxy_temp_path": "a folder", "scgi_temp_path": "a folder", "uwsgi_temp_path": "a folder",
	"client_body_timeout": "a minute: longer than a check may take", "send_timeout": "a minute", "reset_timedout_connection": "after a minute",
	"ignore_invalid_headers": "the default, beside underscores_in_headers", "ssl_certificate": "without it nothing starts", "ssl_certificate_key": "without it nothing starts",
	"ssl_early_data": "Go's TLS client cannot send early data", "ssl_client_certificate": "without it nothing starts", "ssl_verify_depth": "the cluster's CA issues no intermediates",
	"fastcgi_next_upstream": "one responder: there is no next", "fastcgi_connect_timeout": "needs a responder that does not accept", "fastcgi_send_timeout": "two minutes",
	"fastcgi_buffer_size": "speed", "fastcgi_buffers": "speed", "client_body_buffer_size": "speed", "alias": "TestSendFront of internal/cluster",
	"disable_symlinks": "TestSendFront of internal/cluster, links", "return": "broken with its location",
	"GATEWAY_INTERFACE": "RFC 3875 wants it, nobody reads it", "SERVER_SOFTWARE": "names the front in a check's answer", "SERVER_NAME": "RFC 3875 wants it",
	"REMOTE_ADDR": "for the responder's log", "REMOTE_PORT": "for the responder's log", "SCRIPT_NAME": "RFC 3875 wants it", "QUERY_STRING": "RFC 3875 wants it; the responder reads REQUEST_URI",
	"HTTP_PROXY": "the responder drops it too: B28", "CONTENT_TYPE": "415 in every unsafe call: node's tests",
}

// TestEveryLineHasItsBreakage: each line of the shipped files is broken by a test,
// or it is said why that cannot be seen.
func TestEveryLineHasItsBreakage(t *testing.T) {
	for _, kind := range []front.Kind{front.Lighttpd, front.Nginx} {
		w := &world{kind: kind, o: front.Options{
			API: []string{"127.0.0.1:8443", "[::1]:8443"}, Socket: "/run/s", Cert: "/c", Key: "/k", CA: "/ca", Dir: "/d", TokenInclude: "/t",
			Send: []front.Dir{{Name: "disks", Path: "/srv"}},
		}}
		text, err := front.Render(kind, w.o)
		require.NoError(t, err)
		for line := range strings.Lines(text) {
			line = strings.TrimSpace(line)
			if line == "" || line[0] == '#' || !strings.ContainsAny(line, `abcdefghijklmnopqrstuvwxyz`) {
				continue
			}
			word := directive(line)
			_, said := unseen[word]
			broken := slices.ContainsFunc(breakages, func(b breakage) bool { return b.kind == kind && breaks(b, word) })
			require.True(t, said || broken, "%s: nobody breaks %q (%s)", kind, line, word)
		}
	}
}

// directive is the word that a line begins with; of fastcgi_param the parameter.
func directive(line string) string {
	f := strings.Fields(strings.TrimRight(line, ";"))
	if f[0] == "fastcgi_param" {
		return f[1]
	}
	return strings.TrimRight(f[0], ";")
}

func breaks(b breakage, word string) bool {
	for i := 0; i < len(b.change); i += 2 {
		if strings.Contains(b.change[i], word) {
			return true
		}
	}
	// Blocks are there for what is in them.
	return slices.Contains([]string{"events", "http", "server", "location", "server.feature-flags", "ssl.openssl.ssl-conf-cmd", "fastcgi.server", "listen"}, word)
}
