// Package front knows the web servers that stand before a gantry responder:
// lighttpd, nginx, and a small embedded one for development and the demo.
//
// A front terminates TLS, demands a client certificate, and forwards
// /node/v1/, or a master's /api/v1/, over FastCGI to a unix socket. It judges
// nothing else: who the caller is and what he may do is decided behind it.
//
// Tour:
//
//	o := front.Options{
//		API:    []string{"192.0.2.10:8443", "[2001:db8::10]:8443"},
//		Socket: "/run/gantry/node/fcgi.sock",
//		Cert:   "/etc/gantry-front/front.pem", Key: "/etc/gantry-front/front.key",
//		CA:     "/etc/gantry-front/ca.pem",
//		Dir:    "/var/lib/gantry-front",
//	}
//	text, err := front.Render(front.Nginx, o)   // the shipped template, filled in, every value checked
//	err = front.Prepare(o, uid, gid)            // the folders that the server expects
//	err = front.CheckConfig(ctx, front.Nginx, conf, o)  // nginx -t, lighttpd -tt
//	argv := front.Command(front.Nginx, conf, o) // runs the server in the foreground
//	err = front.Reload(front.Nginx, pid)        // new certificate: finish old requests, read the files again
//
//	err = front.Embedded(ctx, o)                // the embedded front, until ctx ends
//	checks := front.CheckURL(ctx, url, tlsConfig) // what a live front really does
//
// Package front/selftest has the handlers that CheckURL asks;
// front/fronttest holds all three fronts to one table of behaviour and says
// where, and why, they differ.
//
// It is not a supervisor: starting, watching and restarting a front is the
// service manager's work. It does not speak FastCGI on the responder's side
// (package fastcgi) and it holds no revocation list: revocation is judged by
// the responder, because a front needs a reload for a new list and an expired
// list would lock everybody out.
package front

// Kind names a front, as in the configuration key front.kind.
type Kind string

// The closed set of fronts.
const (
	Lighttpd       Kind = "lighttpd"
	Nginx          Kind = "nginx"
	EmbeddedServer Kind = "embedded"
)

// Kinds lists every front in the order in which documents name them.
var Kinds = []Kind{Lighttpd, Nginx, EmbeddedServer}

// DefaultMaxUpload bounds one request's body, in bytes. It leaves room for
// several windows of pieces and bounds what lighttpd may spool to disk for a
// handler that reads slower than the client sends.
const DefaultMaxUpload = 512 << 20

// Dir is a folder from which the front itself sends files.
type Dir struct {
	// Name is the resource's name; lower-case letters, digits, "-", "." and
	// "_". nginx serves it at the internal location SendPrefix + Name + "/".
	Name string
	// Path is the folder, absolute and clean. The front's user must be able
	// to read it; symbolic links in it are not followed.
	Path string
}

// SendPrefix begins the internal locations of nginx that X-Accel-Redirect
// names: SendPrefix + Dir.Name + "/" + path below Dir.Path, percent-encoded.
// lighttpd's X-Sendfile takes the absolute path, percent-encoded.
const SendPrefix = "/-/send/"

// Options describes one front. Every path is absolute; every value is checked
// by Render, because it ends in a configuration file.
type Options struct {
	// API lists the addresses of the control API, IP:port, IPv6 in brackets.
	// At least one.
	API []string
	// Data lists further addresses, for bulk data on interfaces of its own.
	// Both kinds serve the same paths: the responder judges each request, so
	// the list is about networks, not about rights. Empty: bulk data shares
	// the API's addresses.
	Data []string
	// Prefix is the one path that is forwarded: api.Prefix (which "" means) for
	// a node, api.MasterPrefix for a master.
	Prefix string
	// Socket is the responder's unix socket; at most 107 bytes.
	Socket string
	// Cert (the front's certificate, then its chain), Key and CA (what signed
	// the clients' certificates) are PEM files. The front's user must be able
	// to read Key; the responder's must not.
	Cert, Key, CA string
	// Dir is a folder of the front's own, writable by its user only: process
	// id, log, temporary files. See Prepare.
	Dir string
	// Send lists the folders of resources with send = "front". Ignored by the
	// embedded front, which always streams.
	Send []Dir
	// TokenInclude is a file written from RenderToken that makes the front
	// present GANTRY_FRONT_TOKEN. Empty: no token. lighttpd and nginx only.
	TokenInclude string
	// Token is the same secret for the embedded front.
	Token string
	// MaxUpload bounds a request's body in bytes, 1 MiB to 1 TiB;
	// 0 means DefaultMaxUpload.
	MaxUpload int64
	// Logf gets one line per problem of the embedded front; nil discards.
	Logf func(format string, args ...any)
}
