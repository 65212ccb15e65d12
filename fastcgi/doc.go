// Package fastcgi serves an [http.Handler] to a web server that speaks FastCGI.
//
// It is a responder in the sense of the FastCGI specification, version 1
// (https://fastcgi-archives.github.io/FastCGI_Specification.html), section 6.2,
// for lighttpd, nginx and every other front that opens one request at a time on
// a socket. Sketch of use:
//
//	l, err := net.Listen("unix", "/run/app/front.sock")
//	…
//	srv := &fastcgi.Server{
//		Handler:   mux,
//		Logger:    slog.Default(),
//		AllowPeer: func(p fastcgi.Peer) bool { return p.UID == frontUID },
//	}
//	go func() { <-ctx.Done(); srv.Shutdown(drainCtx) }()
//	err = srv.Serve(l) // fastcgi.ErrServerClosed after Shutdown or Close
//
// # What a handler can rely on
//
// The request's context ends when the socket reaches its end or when
// FCGI_ABORT_REQUEST (section 5.4) arrives, also while the handler neither
// reads nor writes, and [context.Cause] says why: [ErrClientGone],
// [ErrAborted], [ErrServerClosed] or [ErrProtocol]. Neither lighttpd nor nginx
// ever sends FCGI_ABORT_REQUEST; they close the socket, or its sending half, so
// the end of the socket counts as the end of the client.
//
// The body is io.EOF only when the front has sent the whole of it: one that is
// shorter than CONTENT_LENGTH ends with [io.ErrUnexpectedEOF], one that is
// longer breaks the request. Without a CONTENT_LENGTH r.ContentLength is -1 if
// there is a body, else 0. At most Limits.ReadAhead bytes wait in memory for
// the handler; then the socket is left alone, and the front feels it. While it
// is left alone the end of the socket is still noticed; an
// FCGI_ABORT_REQUEST behind bytes that nobody reads is not.
//
// [http.ResponseController] works: Flush reports errors, SetReadDeadline bounds
// reading of the body, SetWriteDeadline bounds writing, EnableFullDuplex is
// always on (nginx, in between, is half duplex nevertheless). What was written
// since the last Flush leaves as one FCGI_STDOUT record if it fits in one. Idle
// requests hold no buffer. No Content-Type is invented. A reply that
// keeps within one buffer gets a Content-Length; a handler that declares one
// and writes less has its reply broken: the socket closes without
// FCGI_END_REQUEST, as it does for [http.ErrAbortHandler]. Any other panic is
// logged with its stack; the reply is a 500 with a non-zero application status
// if nothing was sent yet, else it is broken too.
//
// A handler that answers before it has read the body is safe: the answer is
// sent, the sending half of the socket closed, and the rest of the body thrown
// away until the front closes too or Limits.LingerTimeout has passed. Without
// that the answer is lost, because closing a socket with unread input resets it.
//
// # Parameters
//
// HTTP_ parameters are the client's headers and become r.Header; HTTP_PROXY is
// dropped (CVE-2016-5386). A header that arrives twice under one parameter name
// has two values. Everything else comes from the front itself and is
// found through [ParamsFrom]; only those can carry identity, and only if
// nothing but the front can open the socket: see [Server.AllowPeer]. The URL is
// parsed from REQUEST_URI as the client sent it, so an escaped slash stays
// visible in r.URL.RawPath. r.TLS is nil: the certificate that the front has
// seen is a parameter, not a handshake of this process.
//
// Malformed parameters are answered with 400, parameters of identity that are
// given twice with 403, see [Server.Single]; the connection goes on, since the
// records are still in step.
//
// # What it is not
//
// No client, no authorizer or filter role (FCGI_UNKNOWN_ROLE), no multiplexing
// (FCGI_MPXS_CONNS is 0, a second concurrent request gets FCGI_CANT_MPX_CONN):
// no front uses it. No FCGI_STDERR: use the logger. No trailers, no 1xx replies:
// CGI cannot express them.
package fastcgi
