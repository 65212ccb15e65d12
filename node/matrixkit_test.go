package node_test

import (
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gantry/api"
	"gantry/pki"

	"github.com/stretchr/testify/require"
	"github.com/yookoala/gofast"
)

// A matrix is a node that is asked as by a front, and everybody who asks it.
type matrix struct {
	*machine
	certs  map[string]string // PEM by name
	ids    map[string]string // SPIFFE ids of those who have a good certificate
	rights map[string][]api.Right
	on     map[string][]string // resources of each one's rights
	refuse map[string]map[string]string
}

const matrixToml = `[[resource]]
name = "dump"
kind = "command"
direction = "export"
argv = ["/bin/cat", "/dev/null"]
[[resource]]
name = "restore"
kind = "command"
direction = "import"
argv = ["/bin/cat"]
`

func newMatrix(t *testing.T) *matrix {
	x := &matrix{certs: map[string]string{}, ids: map[string]string{}, rights: map[string][]api.Right{}, on: map[string][]string{}}
	var grants strings.Builder
	grant := func(who, id string, on []string, may ...api.Right) {
		x.ids[who], x.rights[who], x.on[who] = "spiffe://demo/"+id, may, on
		if len(may) == 0 {
			return
		}
		var quoted []string
		for _, right := range may {
			quoted = append(quoted, strconv.Quote(string(right)))
		}
		fmt.Fprintf(&grants, "[[grant]]\nwho = \"spiffe://demo/%s\"\nmay = [%s]\n", id, strings.Join(quoted, ", "))
		if !slices.Equal(may, []api.Right{api.MayStatus}) && !slices.Equal(may, []api.Right{api.MaySelftest}) {
			fmt.Fprintf(&grants, "resources = [\"%s\"]\n", strings.Join(on, `", "`))
		}
	}
	mine := []string{"disks", "dump", "restore"}
	for _, right := range api.Rights { // who has this right and no other
		name := "may-" + strings.ReplaceAll(string(right), ":", "-")
		grant(name, "operator/"+name, mine, right)
	}
	all := slices.DeleteFunc(slices.Clone(api.Rights), func(r api.Right) bool { return r == api.MayCommand })
	grant("cleo", "operator/cleo", mine, all...)
	grant("dora", "operator/dora", mine, api.Rights...)
	grant("root", "operator/root", []string{"*"}, api.Rights...)
	grant("vic", "operator/vic", []string{"frozen"}, api.Rights...)
	grant("eve", "operator/eve", nil)
	grant("beta", "node/beta", mine, api.MayStatus)
	grant("m1", "master/m1", mine, api.MayExport, api.MayCreate, api.MayDigest)

	w := newWorld(t, "", "alpha")
	x.machine = w.all["alpha"]
	x.config = w.write("alpha/matrix.toml", fmt.Sprintf(nodeToml, "alpha", x.dir, w.dir, os.Getuid(), matrixToml+grants.String()), 0o644)
	for who, id := range x.ids {
		role, name, _ := strings.Cut(strings.TrimPrefix(id, "spiffe://demo/"), "/")
		x.certs[who] = string(pemOf(w.identity(filepath.Join(w.dir, "of-"+who), role, name)))
	}
	x.strangers()
	x.file("disks/a", 10, 1)
	x.file("frozen/a", 10, 2)
	x.start()
	return x
}

// strangers are everybody whom the node must not let in at all.
func (x *matrix) strangers() {
	t := x.t
	foreign, err := pki.InitCA(filepath.Join(x.world.dir, "foreign"), "demo", pki.Options{})
	require.NoError(t, err)
	other, err := pki.InitCA(filepath.Join(x.world.dir, "other"), "elsewhere", pki.Options{})
	require.NoError(t, err)
	forged, err := foreign.Issue(pki.RoleOperator, "root", nil, 0)
	require.NoError(t, err)
	cousin, err := other.Issue(pki.RoleOperator, "root", nil, 0)
	require.NoError(t, err)
	server, err := x.ca.Issue(pki.RoleFront, "alpha", []string{"127.0.0.1"}, 0)
	require.NoError(t, err)
	gone, err := x.ca.Issue(pki.RoleOperator, "root", nil, 0)
	require.NoError(t, err)
	crl, err := x.ca.Revoke(gone.Serial)
	require.NoError(t, err)
	x.write("alpha/crl.pem", string(crl.PEM), 0o644)
	good := x.certs["root"]
	x.refuse = map[string]map[string]string{
		"no certificate":               {"SSL_CLIENT_VERIFY": "NONE", "SSL_CLIENT_CERT": ""},
		"a certificate, not verified":  {"SSL_CLIENT_VERIFY": "NONE", "SSL_CLIENT_CERT": good},
		"refused by the front":         {"SSL_CLIENT_VERIFY": "FAILED:certificate revoked", "SSL_CLIENT_CERT": good},
		"no TLS":                       {"HTTPS": "", "SSL_CLIENT_CERT": good},
		"revoked":                      {"SSL_CLIENT_CERT": string(gone.CertPEM)},
		"wrong CA, the same name":      {"SSL_CLIENT_CERT": string(forged.CertPEM)},
		"another cluster":              {"SSL_CLIENT_CERT": string(cousin.CertPEM)},
		"the front's own, role front":  {"SSL_CLIENT_CERT": string(server.CertPEM)},
		"a header in place of a front": {"SSL_CLIENT_VERIFY": "", "SSL_CLIENT_CERT": "", "HTTP_SSL_CLIENT_VERIFY": "SUCCESS", "HTTP_SSL_CLIENT_CERT": strings.ReplaceAll(good, "\n", "%0A")},
	}
}

// A cutter ends the request with the first byte of the reply's body: feeds
// would last.
type cutter struct {
	*httptest.ResponseRecorder
	conn net.Conn
}

func (c cutter) Write(p []byte) (int, error) {
	n, err := c.ResponseRecorder.Write(p)
	c.conn.Close()
	return n, err
}

// via asks over FastCGI with the variables that the shipped nginx sends, changed
// by more. live cuts a reply that may last.
func (x *matrix) via(method, path, media, body string, live bool, more map[string]string) reply {
	t := x.t
	conn, err := net.Dial("unix", filepath.Join(x.dir, "s"))
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	c, err := gofast.SimpleClientFactory(func() (net.Conn, error) { return conn, nil })()
	require.NoError(t, err)
	uri := api.Prefix + path
	script, query, _ := strings.Cut(uri, "?")
	req := gofast.NewRequest(nil)
	req.Params = map[string]string{
		"GATEWAY_INTERFACE": "CGI/1.1", "SERVER_PROTOCOL": "HTTP/1.1", "SERVER_SOFTWARE": "nginx", "SERVER_NAME": "127.0.0.1", "SERVER_ADDR": "127.0.0.1",
		"SERVER_PORT": "8443", "REMOTE_ADDR": "127.0.0.1", "REMOTE_PORT": "40000", "REQUEST_METHOD": method, "REQUEST_URI": uri, "SCRIPT_NAME": script,
		"QUERY_STRING": query, "HTTPS": "on", "SSL_PROTOCOL": "TLSv1.3", "SSL_CLIENT_VERIFY": "SUCCESS", "HTTP_HOST": "127.0.0.1:8443",
	}
	if media != "" {
		req.Params["CONTENT_TYPE"], req.Params["CONTENT_LENGTH"] = media, strconv.Itoa(len(body))
		req.Stdin = io.NopCloser(strings.NewReader(body))
	}
	maps.Copy(req.Params, more)
	pipe, err := c.Do(req)
	require.NoError(t, err)
	rec := httptest.NewRecorder()
	var w http.ResponseWriter = rec
	if live {
		w = cutter{rec, conn}
	}
	if err := pipe.WriteTo(w, io.Discard); !live {
		require.NoError(t, err, "%s %s", method, path)
	}
	r := reply{status: rec.Code, header: rec.Header(), body: rec.Body.String()}
	if r.status >= 400 && method != http.MethodHead {
		require.Equal(t, api.TypeProblem, r.header.Get("Content-Type"), r.body)
		require.NoError(t, api.DecodeBytes(rec.Body.Bytes(), &r.problem), r.body)
		require.Equal(t, r.status, r.problem.Status)
	}
	return r
}

// ask asks a route of the table; more changes what the front says.
func (x *matrix) ask(route api.Route, id, resource string, more map[string]string) reply {
	a := asks[route.Name]
	check := map[string]string{"GET": "headers", "HEAD": "range", "POST": "echo"}[route.Method]
	path := strings.NewReplacer("{id}", id, "{resource}", resource, "{node}", "gamma", "{check:.*}", check).Replace(route.Path) + a.query
	body := a.body
	switch route.Name {
	case api.RouteCRL:
		list, err := x.ca.CRL()
		require.NoError(x.t, err)
		body = string(list.PEM)
	case api.RouteStart: // refused before it is looked at, or taken for what it is
		body = fmt.Sprintf(`{"id":%q,"op":"digest","args":{"resource":%q,"path":"a"}}`, api.NewID(), resource)
	case api.RoutePutBytes:
		more = maps.Clone(more)
		more["HTTP_CONTENT_RANGE"] = "bytes 0-0/*"
	}
	return x.via(route.Method, path, route.Media, body, route.Name == api.RouteFeed || route.Name == api.RouteStart, more)
}

func (x *matrix) as(who string) map[string]string {
	return map[string]string{"SSL_CLIENT_CERT": x.certs[who]}
}

// holds says whether a grant gives who all these rights on a resource, which is
// "" for rights that are about none and for lists.
func (x *matrix) holds(who, resource string, needs ...api.Right) bool {
	for _, right := range needs {
		if !slices.Contains(x.rights[who], right) {
			return false
		}
	}
	return resource == "" || slices.Contains(x.on[who], resource) || slices.Contains(x.on[who], "*")
}

var names = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f-]{27}|frozen|nobody`)

// masked is a reply without what the caller said himself.
func masked(r reply) string {
	return fmt.Sprintf("%d %v %s", r.status, r.header, names.ReplaceAllString(r.body, "X"))
}

func (x *matrix) startTask(who, op, resource, args string) (string, reply) {
	id := api.NewID()
	path := `,"path":"a"`
	if resource == "dump" || resource == "restore" {
		path = ""
	}
	if op == "import" && path != "" {
		path = fmt.Sprintf(`,"path":%q`, id)
	}
	body := fmt.Sprintf(`{"id":%q,"op":%q,"args":{"resource":%q%s%s}}`, id, op, resource, path, args)
	return id, x.via("POST", "/tasks", api.TypeJSON, body, true, x.as(who))
}

func (x *matrix) task(who, id string) api.TaskInfo {
	r := x.via("GET", "/tasks/"+id, "", "", false, x.as(who))
	require.Equal(x.t, 200, r.status, "%s: %s", who, r.body)
	var info api.TaskInfo
	require.NoError(x.t, api.DecodeBytes([]byte(r.body), &info))
	return info
}
