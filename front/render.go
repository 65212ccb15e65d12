package front

import (
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"
	"text/template"

	"gantry/api"
	"gantry/lighttpd"
	"gantry/nginx"
)

// Limits of what Render accepts.
const (
	// maxListen bounds the addresses of one front; more is a mistake.
	maxListen = 64
	// maxSocketPath is sizeof(sun_path) - 1 on Linux.
	maxSocketPath = 107
	// maxPathLen keeps each line of the result readable by the servers' parsers
	// (nginx refuses a parameter over 4,096 bytes).
	maxPathLen = 1024

	minUpload = 1 << 20
	maxUpload = 1 << 40
)

var (
	// Both servers have a language: quotes, "$", ";", "{", "#", "\", "%" and
	// line ends mean something in at least one of them, and ":" ends the path
	// of nginx's "unix:". What is left is plain in both.
	plainPath = regexp.MustCompile(`^/[A-Za-z0-9/._+@,=~-]*$`)
	plainName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)
	// The alphabet of hexadecimal and both base64 forms.
	plainToken = regexp.MustCompile(`^[A-Za-z0-9+/=_-]{32,256}$`)
)

// listen is one address in the forms that the templates need.
type listen struct{ netip.AddrPort }

// Host is the address alone, IPv6 in brackets.
func (l listen) Host() string {
	if l.Addr().Is6() {
		return "[" + l.Addr().String() + "]"
	}
	return l.Addr().String()
}

// data is what the templates see.
type data struct {
	Options
	Prefix, Bare, SendPrefix string // Bare is Prefix without its slash
	What                     string // stands behind the front
	All                      []listen
	MaxUploadKB              int64
}

func (d data) First() listen  { return d.All[0] }
func (d data) More() []listen { return d.All[1:] }

// Render fills in the shipped configuration of lighttpd or nginx. It checks
// every value first: nothing that either server could read as more than a
// plain word comes through. The error names the option. Pure: it opens no file.
func Render(k Kind, o Options) (string, error) {
	files, err := templates(k)
	if err != nil {
		return "", err
	}
	if o.Token != "" {
		return "", fmt.Errorf("token: the configuration of %s is no place for a secret; write it with RenderToken and name that file", k)
	}
	all, err := check(&o)
	if err != nil {
		return "", err
	}
	return execute(files, "node.conf.tmpl", data{
		Options: o, Prefix: o.Prefix + "/", Bare: o.Prefix, SendPrefix: SendPrefix, What: what(o.Prefix),
		All: all, MaxUploadKB: o.MaxUpload / 1024,
	})
}

// RenderToken writes the file that Options.TokenInclude names. token is 32 to
// 256 characters of hexadecimal or base64.
func RenderToken(k Kind, token string) (string, error) {
	files, err := templates(k)
	if err != nil {
		return "", err
	}
	if !plainToken.MatchString(token) {
		return "", fmt.Errorf("token: want 32 to 256 characters of hexadecimal or base64; for example the output of: openssl rand -hex 32")
	}
	return execute(files, "token.conf.tmpl", token)
}

func templates(k Kind) (fs.FS, error) {
	switch k {
	case Lighttpd:
		return lighttpd.Files, nil
	case Nginx:
		return nginx.Files, nil
	}
	return nil, fmt.Errorf("front %q has no configuration file; allowed: %s, %s", k, Lighttpd, Nginx)
}

func execute(files fs.FS, name string, v any) (string, error) {
	t, err := template.New(name).Option("missingkey=error").ParseFS(files, name)
	if err != nil {
		return "", fmt.Errorf("reading template: %w", err)
	}
	var b strings.Builder
	if err := t.Execute(&b, v); err != nil {
		return "", fmt.Errorf("filling in template: %w", err)
	}
	return b.String(), nil
}

// check judges every value and fills in the defaults.
func check(o *Options) ([]listen, error) {
	all, err := addresses(o)
	if err != nil {
		return nil, err
	}
	for _, p := range []struct{ name, value string }{
		{"socket", o.Socket}, {"cert", o.Cert}, {"key", o.Key}, {"ca", o.CA}, {"dir", o.Dir},
	} {
		if err := checkPath(p.name, p.value); err != nil {
			return nil, err
		}
	}
	if len(o.Socket) > maxSocketPath {
		return nil, fmt.Errorf("socket: %d bytes, and a unix socket's path has at most %d", len(o.Socket), maxSocketPath)
	}
	if o.TokenInclude != "" {
		if err := checkPath("token include", o.TokenInclude); err != nil {
			return nil, err
		}
	}
	if err := checkSend(o.Send); err != nil {
		return nil, err
	}
	if o.Prefix == "" {
		o.Prefix = api.Prefix
	}
	if what(o.Prefix) == "" {
		return nil, fmt.Errorf("prefix: %q; allowed: %s, %s", o.Prefix, api.Prefix, api.MasterPrefix)
	}
	if o.Prefix == api.MasterPrefix && len(o.Data)+len(o.Send) > 0 {
		return nil, fmt.Errorf("data and send: a master has no bulk data and no files")
	}
	if o.MaxUpload == 0 {
		o.MaxUpload = DefaultMaxUpload
	}
	if o.MaxUpload < minUpload || o.MaxUpload > maxUpload {
		return nil, fmt.Errorf("max upload: %d bytes; allowed: %d to %d", o.MaxUpload, minUpload, int64(maxUpload))
	}
	return all, nil
}

// what stands behind a prefix.
func what(prefix string) string {
	return map[string]string{api.Prefix: "node", api.MasterPrefix: "master"}[prefix]
}

func addresses(o *Options) ([]listen, error) {
	if len(o.API) == 0 {
		return nil, fmt.Errorf("api: no address; example: 192.0.2.10:8443 or [2001:db8::10]:8443")
	}
	if n := len(o.API) + len(o.Data); n > maxListen {
		return nil, fmt.Errorf("api and data: %d addresses; allowed: %d", n, maxListen)
	}
	var all []listen
	seen := map[netip.AddrPort]bool{}
	for _, list := range []struct {
		name   string
		values []string
	}{{"api", o.API}, {"data", o.Data}} {
		for _, s := range list.values {
			a, err := netip.ParseAddrPort(s)
			switch {
			case err != nil || a.String() != s || a.Addr().Zone() != "" || a.Addr().Is4In6() || a.Port() == 0:
				// A host name would be looked up once, at start, by a server
				// that then listens on whatever the answer was.
				return nil, fmt.Errorf("%s: %q is no address; want IP:port in shortest form; example: 192.0.2.10:8443 or [2001:db8::10]:8443", list.name, s)
			case seen[a]:
				return nil, fmt.Errorf("%s: %s is listed twice", list.name, s)
			}
			seen[a] = true
			all = append(all, listen{a})
		}
	}
	return all, nil
}

func checkSend(dirs []Dir) error {
	seen := map[string]bool{}
	for _, d := range dirs {
		if !plainName.MatchString(d.Name) {
			return fmt.Errorf("send: %q is no resource name; allowed: lower-case letters, digits, \".\", \"_\" and \"-\", at most 64", d.Name)
		}
		if seen[d.Name] {
			return fmt.Errorf("send: %s is listed twice", d.Name)
		}
		seen[d.Name] = true
		if err := checkPath("send "+d.Name, d.Path); err != nil {
			return err
		}
		if d.Path == "/" {
			return fmt.Errorf("send %s: the whole file system is no resource", d.Name)
		}
	}
	return nil
}

func checkPath(name, p string) error {
	switch {
	case p == "":
		return fmt.Errorf("%s: no path", name)
	case !filepath.IsAbs(p) || filepath.Clean(p) != p:
		return fmt.Errorf("%s: %q is not an absolute path in shortest form", name, p)
	case len(p) > maxPathLen:
		return fmt.Errorf("%s: %d bytes; allowed: %d", name, len(p), maxPathLen)
	case !plainPath.MatchString(p):
		return fmt.Errorf("%s: %q has a character that a server configuration could misread; allowed: letters, digits and / . _ + @ , = ~ -", name, p)
	}
	return nil
}
