// Package lighttpd holds the configuration shipped for lighttpd 1.4.69 and
// later, as a text template with a reason above every line.
//
// Package front fills it in (front.Render); an administrator reads
// node.conf.tmpl itself, or the output of "gantry front config lighttpd".
//
//	text, err := front.Render(front.Lighttpd, options)
//
// It is not a general lighttpd configuration: it serves one gantry responder
// from an instance of its own and nothing else.
package lighttpd

import "embed"

// Files holds node.conf.tmpl (the whole configuration) and token.conf.tmpl
// (the include with the front's token).
//
//go:embed node.conf.tmpl token.conf.tmpl
var Files embed.FS
