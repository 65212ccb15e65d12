package front

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"html"
	"log"
	"net"
	"net/http"
	"path"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"gantry/pki"
)

// Limits of the embedded front; the same figures as in the shipped
// configurations of lighttpd and nginx, with the reasons given there.
const (
	maxHeaderBytes   = 4 << 10 // net/http adds 4 KiB of slack: 8 in all
	headerTimeout    = 10 * time.Second
	keepAliveTimeout = 75 * time.Second
	bodyIdle         = 60 * time.Second  // of the client, while it sends
	clientWriteIdle  = 60 * time.Second  // of the client, while it should read
	handlerIdle      = 120 * time.Second // of the responder, both ways
	dialTimeout      = 5 * time.Second
	shutdownGrace    = 2 * time.Second
)

// Embedded serves o with the embedded front until ctx ends: then it stops
// listening, gives open requests two seconds, cuts the rest and returns nil.
// Any other return is an error of listening or of a file. It needs the front's
// key in this process, so run it under the front's user, apart from the
// responder.
//
// It is for development and for the demo: one process, no reload, always
// streams (Options.Send is ignored).
func Embedded(ctx context.Context, o Options) error {
	if o.Logf == nil {
		o.Logf = func(string, ...any) {}
	}
	all, err := check(&o)
	if err != nil {
		return err
	}
	if o.Token != "" && !plainToken.MatchString(o.Token) {
		return errors.New("token: want 32 to 256 characters of hexadecimal or base64")
	}
	conf, err := embeddedTLS(o)
	if err != nil {
		return err
	}
	var listeners []net.Listener
	for _, l := range all {
		ln, err := net.Listen("tcp", l.String())
		if err != nil {
			for _, open := range listeners {
				open.Close()
			}
			return fmt.Errorf("listening on %s: %w", l, err)
		}
		listeners = append(listeners, tls.NewListener(ln, conf))
	}
	return serveAll(ctx, newEmbeddedServer(o), listeners)
}

func newEmbeddedServer(o Options) *http.Server {
	h1 := new(http.Protocols)
	h1.SetHTTP1(true)
	return &http.Server{
		Handler:           onlyPrefix(o.Prefix, o.MaxUpload, &gateway{socket: o.Socket, token: o.Token, logf: o.Logf}),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       keepAliveTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		Protocols:         h1,
		ErrorLog:          log.New(logWriter(o.Logf), "", 0),
	}
}

type logWriter func(format string, args ...any)

func (l logWriter) Write(p []byte) (int, error) {
	l("%s", strings.TrimSpace(string(p)))
	return len(p), nil
}

func serveAll(ctx context.Context, server *http.Server, listeners []net.Listener) error {
	// A listener that fails ends the others too: half a front helps nobody.
	group, ctx := errgroup.WithContext(ctx)
	for _, l := range listeners {
		group.Go(func() error {
			if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serving %s: %w", l.Addr(), err)
			}
			return nil
		})
	}
	group.Go(func() error {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.Background(), shutdownGrace)
		defer cancel()
		if server.Shutdown(grace) != nil {
			server.Close() // feeds may last for hours
		}
		return nil
	})
	return group.Wait()
}

// embeddedTLS is TLS 1.3, client certificate demanded, no resumption.
func embeddedTLS(o Options) (*tls.Config, error) {
	id, err := pki.LoadIdentity(o.CA, o.Cert, o.Key)
	if err != nil {
		return nil, fmt.Errorf("reading the front's certificate: %w", err)
	}
	return pki.ServerTLS(id), nil
}

// onlyPrefix lets requests for the one API through and answers all others.
func onlyPrefix(prefix string, maxUpload int64, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		clean := path.Clean(r.URL.Path)
		switch {
		// The responder routes on the raw path. One that means something else
		// when it is cleaned is not passed on at all.
		case !strings.HasPrefix(clean+"/", prefix+"/") || !strings.HasPrefix(r.URL.Path, prefix+"/"):
			page(w, "not found", http.StatusNotFound)
		case clean != strings.TrimSuffix(r.URL.Path, "/"):
			page(w, "path with empty, \".\" or \"..\" elements", http.StatusBadRequest)
		// gofast would end a broken chunked body like a complete one.
		case r.ContentLength < 0:
			page(w, "a body needs a Content-Length", http.StatusLengthRequired)
		case r.ContentLength > maxUpload:
			page(w, "body too large", http.StatusRequestEntityTooLarge)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// page answers for the front itself, in HTML as other web servers do: so nobody
// takes it for a node's answer.
func page(w http.ResponseWriter, text string, status int) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<!doctype html><title>%d</title><p>%s\n", status, html.EscapeString(text))
}

// params are the FastCGI parameters of r: CGI/1.1 (RFC 3875), the client's
// identity, and the headers as HTTP_ names, which therefore can never be taken
// for identity.
func (g *gateway) params(r *http.Request) map[string]string {
	p := map[string]string{
		"GATEWAY_INTERFACE": "CGI/1.1",
		"SERVER_PROTOCOL":   r.Proto,
		"SERVER_SOFTWARE":   "gantry",
		"REQUEST_METHOD":    r.Method,
		"REQUEST_URI":       r.RequestURI,
		"SCRIPT_NAME":       r.URL.Path,
		"QUERY_STRING":      r.URL.RawQuery,
		"HTTPS":             "on",
		"SSL_PROTOCOL":      strings.ReplaceAll(tls.VersionName(r.TLS.Version), " ", "v"), // as OpenSSL spells it: TLSv1.3
		"SSL_CLIENT_VERIFY": "SUCCESS",                                                    // else the handshake had failed
		"SSL_CLIENT_CERT":   string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.TLS.PeerCertificates[0].Raw})),
		"HTTP_HOST":         r.Host,
	}
	if g.token != "" {
		p["GANTRY_FRONT_TOKEN"] = g.token
	}
	p["REMOTE_ADDR"], p["REMOTE_PORT"], _ = net.SplitHostPort(r.RemoteAddr)
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		p["SERVER_ADDR"], p["SERVER_PORT"], _ = net.SplitHostPort(local.String())
		p["SERVER_NAME"] = p["SERVER_ADDR"]
	}
	if r.ContentLength > 0 || r.Header.Get("Content-Length") != "" {
		p["CONTENT_LENGTH"] = fmt.Sprint(r.ContentLength)
	}
	if t := r.Header.Get("Content-Type"); t != "" {
		p["CONTENT_TYPE"] = t
	}
	for name, values := range r.Header {
		if key, ok := headerParam(name); ok {
			p[key] = strings.Join(values, ", ") // RFC 9110 section 5.3
		}
	}
	return p
}

// headerParam maps a header's name to its parameter. Not passed on: Proxy,
// which would become the environment variable HTTP_PROXY of anything
// (CVE-2016-5387); names with an underscore, the twins of those with a hyphen;
// the two that CGI has under other names.
func headerParam(name string) (string, bool) {
	switch {
	case name == "Proxy", name == "Content-Type", name == "Content-Length", strings.Contains(name, "_"):
		return "", false
	}
	return "HTTP_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_")), true
}
