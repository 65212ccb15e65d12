package front

import (
	"context"
	"strings"
)

// When a check runs.
const (
	first  = iota // without it the rest makes no sense
	alone         // measures time
	beside        // others at the same time do no harm
)

// A checkItem is one check and what mends the configuration when it fails.
type checkItem struct {
	name string
	what string // what holds on a front that passes, for the documentation
	when int
	run  func(*checker, context.Context) (text, detail string, err error)
	mend mend
}

// mend is the lines of the two configurations that make a check pass.
type mend struct{ lighttpd, nginx string }

func (m mend) line(k Kind) string {
	switch k {
	case Lighttpd:
		return m.lighttpd
	case Nginx:
		return m.nginx
	}
	var both []string
	for _, s := range []string{m.lighttpd, m.nginx} {
		if s != "" {
			both = append(both, s)
		}
	}
	return strings.Join(both, "  |  ")
}

// mended is an error with a remedy of its own.
type mended struct {
	error
	mend mend
}

// Lines that mend more than one thing.
const (
	lighttpdStream = "server.stream-response-body = 2"
	nginxBuffering = "fastcgi_buffering on, and no fastcgi_ignore_headers: the responder's X-Accel-Buffering decides"
)

var checklist = []checkItem{
	// Who answers.
	{"tls", "a connection with the expected certificate", first, (*checker).tls, mend{"ssl.pemfile, ssl.privkey", "ssl_certificate, ssl_certificate_key, listen … ssl"}},
	{"api", "a gantry node answers, and knows who asks", first, (*checker).api, mend{`fastcgi.server = ( "/node/v1/" => … "socket" => …)`, "location /node/v1/ { fastcgi_pass unix:…; }"}},

	// TLS and identity.
	{"tls-version", "TLS 1.3 and nothing older", beside, (*checker).tlsVersion, mend{`ssl.openssl.ssl-conf-cmd = ( "MinProtocol" => "TLSv1.3" )`, "ssl_protocols TLSv1.3;"}},
	{"expiry", "the front's certificate is good for two weeks and more", beside, (*checker).expiry, mend{"a new certificate in ssl.pemfile (gantry ca issue front NAME), then a reload", "a new certificate in ssl_certificate (gantry ca issue front NAME), then a reload"}},
	{"certificate", "a client without a certificate is refused by the front", beside, (*checker).demanded, mend{`ssl.verifyclient.activate = "enable" and ssl.verifyclient.enforce = "enable"`, "ssl_verify_client on;"}},
	{"foreign", "a client of another CA is refused by the front", beside, (*checker).foreign, mend{`ssl.verifyclient.enforce = "enable", and only the cluster's CA in ssl.verifyclient.ca-file`, "ssl_verify_client on; and only the cluster's CA in ssl_client_certificate"}},
	{"http1", "HTTP/1.1 and nothing else", beside, (*checker).http1, mend{`server.feature-flags = ( "server.h2proto" => "disable" )`, "listen … ssl; without http2"}},
	{"resumption", "sessions are not resumed, so that certificates are asked for", beside, (*checker).resumption, mend{`ssl.openssl.ssl-conf-cmd = ( "Options" => "-SessionTicket" )`, "ssl_session_tickets off; ssl_session_cache off;"}},
	{"identity", "identity comes from the handshake, not from headers", beside, (*checker).identity, mend{`ssl.verifyclient.exportcert = "enable"`, "fastcgi_param SSL_CLIENT_CERT $ssl_client_raw_cert; fastcgi_param SSL_CLIENT_VERIFY $ssl_client_verify;"}},
	{"proxy-header", "a client's Proxy header does not become HTTP_PROXY", beside, (*checker).proxyHeader, mend{"no setenv that adds HTTP_PROXY", `fastcgi_param HTTP_PROXY "" if_not_empty;`}},
	{"underscore", "headers with underscores pass for no others", beside, (*checker).underscore, mend{"lighttpd 1.4.83 or newer refuses them; the responder refuses twins", "underscores_in_headers off; ignore_invalid_headers on;"}},
	{"parameters", "the responder is told protocol, method, address and length", beside, (*checker).parameters, mend{"no setenv that changes CGI parameters", "the fastcgi_param lines, as gantry front config prints them"}},

	// Replies.
	{"lines", "each line arrives when it is written", alone, (*checker).lines, mend{lighttpdStream, nginxBuffering}},
	{"cancel", "a handler learns that its client left", alone, (*checker).cancel, mend{`"tcp-fin-propagate" => "enable"`, "fastcgi_ignore_client_abort off;"}},
	{"order", "10,000 lines arrive complete and in order", beside, (*checker).order, mend{lighttpdStream, nginxBuffering}},
	{"silence", "a handler may be silent for longer than a heartbeat", beside, (*checker).silence, mend{"server.max-write-idle = 120, and no read-timeout below it", "fastcgi_read_timeout 120s;"}},
	{"backpressure", "a client that does not read slows the handler down", beside, (*checker).backpressure, mend{lighttpdStream, "fastcgi_max_temp_file_size 0;"}},
	{"truncation", "a reply that breaks off is seen to", beside, (*checker).truncation, mend{lighttpdStream, "fastcgi_keep_conn on;"}},
	{"compression", "nothing is compressed on the way", beside, (*checker).compression, mend{"server.modules without mod_deflate", "gzip off;"}},
	{"errors", "the responder's own errors reach the client", beside, (*checker).errors, mend{"no server.error-intercept, server.errorfile-prefix or server.error-handler", "fastcgi_intercept_errors off;"}},
	{"range", "a range of content passes unchanged", beside, (*checker).ranges, mend{"no mod_deflate; server.range-requests as it is", "fastcgi_force_ranges off (the default)"}},
	{"head", "HEAD is answered without a body", beside, (*checker).head, mend{"no rewriting of methods", "no rewriting of methods, no limit_except"}},
	{"methods", "PUT and DELETE pass", beside, (*checker).methods, mend{"no url.access-deny, no mod_webdav", "no limit_except"}},
	{"version", "the front does not tell its version", beside, (*checker).version, mend{`server.tag = ""`, "server_tokens off;"}},

	// Requests and bodies.
	{"upload", "uploads arrive whole", beside, (*checker).upload, mend{"server.upload-dirs on a disk with room", "client_body_temp_path on a disk with room"}},
	{"refusal", "a refused upload stops early", alone, (*checker).refusal, mend{"server.stream-request-body = 1", "fastcgi_request_buffering off;"}},
	{"body-limit", "a body beyond the limit is refused at once", beside, (*checker).bodyLimit, mend{"server.max-request-size, as gantry front config prints it", "client_max_body_size, as gantry front config prints it"}},
	{"header-limit", "headers of 40 kB are refused", beside, (*checker).headerLimit, mend{"server.max-request-field-size = 8192", "large_client_header_buffers 4 8k;"}},
	{"slow-header", "a client that does not finish its header is sent away", beside, (*checker).slowHeader, mend{"", "client_header_timeout 10s;"}},

	// Paths and connections.
	{"paths", "what is not the node's API is 404, and not asked of the responder", beside, (*checker).paths, mend{`fastcgi.server for "/node/v1/" only, and server.document-root that does not exist`, "location / { return 404; } and location = /node/v1 { return 404; }"}},
	{"dot-segments", "no path leads out of the node's API", beside, (*checker).dotSegments, mend{"no server.http-parseopts that keep dot segments", "merge_slashes and the locations as gantry front config prints them"}},
	{"send-path", "files that the front sends cannot be asked for by path", beside, (*checker).sendPath, mend{"no alias.url and no document root over resources", "internal; in every location /-/send/…"}},
	{"keep-alive", "a connection serves many requests", beside, (*checker).keepAlive, mend{"server.max-keep-alive-requests = 1000, server.max-keep-alive-idle = 75", "keepalive_requests 1000; keepalive_timeout 75s;"}},
	{"connections", "40 feeds are served at once", alone, (*checker).connections, mend{"server.max-connections = 2048, server.max-fds = 4096", "worker_connections 4096;"}},
	{"clock", "the node's clock agrees with ours", beside, (*checker).clock, mend{"the node's clock (timedatectl), not the front", "the node's clock (timedatectl), not the front"}},
}
