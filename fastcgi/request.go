package fastcgi

import (
	"encoding/json"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
)

// refusal is an answer to parameters that cannot become a request.
type refusal struct {
	status int
	detail string
}

// errIdentity says nothing about which parameter it was: whoever sees it has
// no verified identity.
const errIdentity = "client certificate not verified by the front server"

// maxMethod is four times the longest method registered with IANA.
const maxMethod = 64

func badParam(name string) *refusal {
	if name == "" || len(name) > 64 || !printable(name) {
		name = strconv.QuoteToASCII(name[:min(len(name), 64)])
	}
	return &refusal{http.StatusBadRequest, "bad request parameters: " + name}
}

// ServeHTTP answers with a problem document (RFC 9457).
func (r *refusal) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	body, _ := json.Marshal(struct {
		Type   string `json:"type"`
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
	}{"about:blank", http.StatusText(r.status), r.status, r.detail}) // strings and an int: no error
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(r.status)
	_, _ = w.Write(append(body, '\n'))
}

// checkPairs judges names and values as far as their syntax goes; what a value
// means is the business of its reader. It also takes HTTP_PROXY out.
func checkPairs(pairs []pair, single func(string) bool) ([]pair, *refusal) {
	kept := pairs[:0]
	for _, p := range pairs {
		switch {
		case !printable(p.name) || p.name == "":
			return nil, badParam(p.name)
		case p.name == "HTTP_PROXY": // CVE-2016-5386
			continue
		case !validValue(p.name, p.value):
			return nil, badParam(p.name)
		}
		if identity(p.name) || single != nil && single(p.name) {
			if sent(kept, p.name) {
				return nil, &refusal{http.StatusForbidden, errIdentity}
			}
		} else if framing(p.name) && sent(kept, p.name) {
			return nil, badParam(p.name)
		}
		kept = append(kept, p)
	}
	return kept, nil
}

func sent(pairs []pair, name string) bool {
	for _, p := range pairs {
		if p.name == name {
			return true
		}
	}
	return false
}

// identity names the parameters by which fronts say who the client is.
func identity(name string) bool {
	return strings.HasPrefix(name, "SSL_") || name == "REMOTE_USER" || name == "AUTH_TYPE"
}

// framing names the parameters of which a second value would make this process
// and the front see two different requests.
func framing(name string) bool {
	switch name {
	case "CONTENT_LENGTH", "REQUEST_METHOD", "REQUEST_URI", "SERVER_PROTOCOL", "REMOTE_ADDR", "HTTP_HOST":
		return true
	}
	return false
}

// printable reports that s has only visible ASCII without the equals sign, which
// ends a name in an environment.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f || s[i] == '=' {
			return false
		}
	}
	return true
}

// validValue refuses NUL everywhere, line ends wherever no PEM text is expected
// (nginx's $ssl_client_raw_cert has them), and in headers what RFC 9110, section
// 5.5, calls dangerous.
func validValue(name, value string) bool {
	if strings.HasPrefix(name, "HTTP_") {
		for i := range len(value) {
			if b := value[i]; b < ' ' && b != '\t' || b == 0x7f {
				return false
			}
		}
		return true
	}
	if multiline(name) {
		return strings.IndexByte(value, 0) < 0
	}
	if name == "PATH_INFO" && hasDotDot(value) {
		return false // fronts resolve these; whoever sends one wants out
	}
	return !strings.ContainsAny(value, "\x00\r\n")
}

func multiline(name string) bool {
	return name == "SSL_CLIENT_CERT" || name == "SSL_SERVER_CERT" || strings.HasPrefix(name, "SSL_CLIENT_CERT_CHAIN_")
}

func hasDotDot(path string) bool {
	for part := range strings.SplitSeq(path, "/") {
		if part == ".." {
			return true
		}
	}
	return false
}

// contentLength reads CONTENT_LENGTH (RFC 3875, section 4.1.2), -1 if the front
// does not know it: lighttpd and nginx omit it or leave it empty for a chunked
// upload that they pass on as it comes.
func contentLength(p *Params) (int64, *refusal) {
	s, _ := p.Get("CONTENT_LENGTH")
	if s == "" {
		return -1, nil
	}
	n, err := strconv.ParseUint(s, 10, 63) // no sign, no underscore in base 10
	if err != nil {
		return 0, badParam("CONTENT_LENGTH")
	}
	return int64(n), nil
}

// parseRequest makes a request, its length and its parameters from the content of
// FCGI_PARAMS.
func parseRequest(content string, limit int, single func(string) bool, params *Params) (*http.Request, int64, *refusal) {
	pairs, err := decodePairs(content, limit)
	if err != nil {
		return nil, 0, &refusal{http.StatusBadRequest, "bad request parameters: " + err.Error()}
	}
	kept, bad := checkPairs(pairs, single)
	if bad != nil {
		return nil, 0, bad
	}
	params.pairs = kept
	length, bad := contentLength(params)
	if bad != nil {
		return nil, 0, bad
	}
	r, bad := newRequest(params)
	return r, length, bad
}

// newRequest makes a request without body or context from checked parameters.
func newRequest(p *Params) (*http.Request, *refusal) {
	r := &http.Request{}
	r.Method, _ = p.Get("REQUEST_METHOD")
	if len(r.Method) > maxMethod || !token(r.Method) {
		return nil, badParam("REQUEST_METHOD")
	}
	if bad := setProto(r, p); bad != nil {
		return nil, bad
	}
	if bad := setHeader(r, p); bad != nil {
		return nil, bad
	}
	if bad := setURL(r, p); bad != nil {
		return nil, bad
	}
	if addr, ok := p.Get("REMOTE_ADDR"); ok && addr != "" {
		port, ok := p.Get("REMOTE_PORT")
		if !ok || port == "" {
			port = "0"
		}
		r.RemoteAddr = net.JoinHostPort(addr, port)
	}
	return r, nil
}

func setProto(r *http.Request, p *Params) *refusal {
	proto, _ := p.Get("SERVER_PROTOCOL")
	if proto == "" || proto == "INCLUDED" { // RFC 3875, section 4.1.16
		proto = "HTTP/1.0"
	}
	var ok bool
	if r.ProtoMajor, r.ProtoMinor, ok = http.ParseHTTPVersion(proto); !ok {
		return badParam("SERVER_PROTOCOL")
	}
	r.Proto = proto
	return nil
}

// setHeader turns HTTP_ parameters into headers. What describes the message that
// the front has already taken apart does not come through: CONTENT_LENGTH and
// CONTENT_TYPE have parameters of their own, the transfer coding is gone.
func setHeader(r *http.Request, p *Params) *refusal {
	r.Header = make(http.Header, 8)
	for _, q := range p.pairs {
		name, ok := strings.CutPrefix(q.name, "HTTP_")
		if !ok {
			continue
		}
		switch name {
		case "HOST":
			r.Host = q.value
			continue
		case "CONTENT_LENGTH", "CONTENT_TYPE", "TRANSFER_ENCODING":
			continue
		}
		if !token(name) {
			return badParam(q.name)
		}
		key := textproto.CanonicalMIMEHeaderKey(strings.ReplaceAll(name, "_", "-"))
		r.Header[key] = append(r.Header[key], q.value)
	}
	if s, _ := p.Get("CONTENT_TYPE"); s != "" {
		if strings.ContainsFunc(s, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) {
			return badParam("CONTENT_TYPE")
		}
		r.Header.Set("Content-Type", s)
	}
	if s, _ := p.Get("CONTENT_LENGTH"); s != "" {
		r.Header.Set("Content-Length", s)
	}
	return nil
}

// setURL parses REQUEST_URI, which is what the client sent: SCRIPT_NAME and
// PATH_INFO are unescaped already and serve only where it is missing.
func setURL(r *http.Request, p *Params) *refusal {
	raw, _ := p.Get("REQUEST_URI")
	if raw == "" {
		script, _ := p.Get("SCRIPT_NAME")
		info, _ := p.Get("PATH_INFO")
		query, _ := p.Get("QUERY_STRING")
		raw = (&url.URL{Path: script + info, RawQuery: query}).RequestURI()
	}
	u, err := url.ParseRequestURI(raw)
	if err != nil {
		return badParam("REQUEST_URI")
	}
	r.RequestURI, r.URL = raw, u
	if u.Host != "" { // the absolute form, RFC 9112, section 3.2.2
		r.Host = u.Host
	}
	return nil
}

// token is RFC 9110, section 5.6.2.
func token(s string) bool {
	for i := range len(s) {
		b := s[i]
		switch {
		case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9':
		case strings.IndexByte("!#$%&'*+-.^_`|~", b) >= 0:
		default:
			return false
		}
	}
	return s != ""
}
