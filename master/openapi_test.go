package master_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"gantry/api"
	"gantry/master"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"github.com/stretchr/testify/require"
)

// described loads the document as somebody else's library reads it.
func described(t testing.TB, text []byte) routers.Router {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(text)
	require.NoError(t, err)
	require.NoError(t, doc.Validate(context.Background()))
	router, err := gorillamux.NewRouter(doc)
	require.NoError(t, err)
	return router
}

// The document has every route of the table, and no other.
func TestOpenAPIDescribesTheRouteTable(t *testing.T) {
	doc, err := openapi3.NewLoader().LoadFromData(master.Document())
	require.NoError(t, err)
	got := map[string]bool{}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			got[method+" "+path] = true
			require.NotEmpty(t, op.Summary, "%s %s", method, path)
			require.NotEmpty(t, op.Description)
		}
	}
	for _, r := range api.MasterRoutes {
		key := r.Method + " " + strings.ReplaceAll(r.Path, ":.*}", "}")
		require.True(t, got[key], key)
		delete(got, key)
	}
	require.Empty(t, got)
}

// Each route is asked, and each reply is what the document says of it, also
// refusals.
func TestRepliesAreAsDescribed(t *testing.T) {
	w := newWorld(t, "").start()
	served := w.ask("eve", "GET", "/openapi.json", nil, "")
	require.Equal(t, 200, served.status)
	router := described(t, []byte(served.body))
	openapi3filter.RegisterBodyDecoder(api.TypeProblem, openapi3filter.JSONBodyDecoder)
	openapi3filter.RegisterBodyDecoder(api.TypeCRL, openapi3filter.FileBodyDecoder)

	j, ended := w.submit("root", "a"), w.ended("root")
	list, err := w.ca.CRL()
	require.NoError(t, err)
	seen := map[string]map[int]bool{}
	for _, c := range []struct {
		who, method, path, media, body string
		want                           int
	}{
		{"root", "POST", "/jobs", api.TypeJSON, later(digestSpec("b")), 201},
		{"root", "POST", "/jobs", api.TypeJSON, `{"spec":{"kind":"x"}}`, 422},
		{"eve", "POST", "/jobs", api.TypeJSON, later(digestSpec("b")), 403},
		{"root", "GET", "/jobs?limit=1&state=queued,cancelled", "", "", 200},
		{"root", "GET", "/jobs?limit=0", "", "", 400},
		{"root", "GET", "/jobs/" + j.ID, "", "", 200},
		{"root", "GET", "/jobs/" + ended, "", "", 200},
		{"eve", "GET", "/jobs/" + ended, "", "", 404},
		{"root", "GET", "/jobs/" + ended + "/feed?after=0", "", "", 200},
		{"root", "POST", "/jobs/" + ended + "/retry", api.TypeJSON, "{}", 201},
		{"root", "POST", "/jobs/" + ended + "/records", api.TypeJSON, `{"records":[]}`, 400},
		{"root", "DELETE", "/jobs/" + j.ID, "", "", 202},
		{"root", "DELETE", "/jobs/" + j.ID, "", "", 409},
		{"root", "GET", "/nodes", "", "", 200},
		{"root", "GET", "/status", "", "", 200},
		{self, "GET", "/status", "", "", 200},
		{"root", "GET", "/audit?after=1&limit=3", "", "", 200},
		{"eve", "GET", "/audit", "", "", 403},
		{"root", "GET", "/openapi.json", "", "", 200},
		{"root", "GET", "/metrics", "", "", 200},
		{"root", "PUT", "/crl", api.TypeCRL, string(list.PEM), 409},
	} {
		name := c.who + " " + c.method + " " + c.path
		r := w.ask(c.who, c.method, c.path, map[string]string{"Content-Type": c.media}, c.body)
		require.Equal(t, c.want, r.status, "%s: %s", name, r.body)
		u, err := url.Parse(api.MasterPrefix + c.path)
		require.NoError(t, err)
		req := &http.Request{Method: c.method, URL: u, Header: http.Header{"Content-Type": {c.media}}, Body: io.NopCloser(strings.NewReader(c.body)), ContentLength: int64(len(c.body))}
		route, params, err := router.FindRoute(req)
		require.NoError(t, err, name)
		in := &openapi3filter.RequestValidationInput{Request: req, PathParams: params, Route: route}
		if c.want < 300 {
			require.NoError(t, openapi3filter.ValidateRequest(t.Context(), in), name)
		}
		out := &openapi3filter.ResponseValidationInput{RequestValidationInput: in, Status: r.status, Header: r.header, Body: io.NopCloser(bytes.NewReader([]byte(r.body)))}
		if media := r.header.Get("Content-Type"); media == api.TypeJSON || media == api.TypeProblem {
			require.NoError(t, openapi3filter.ValidateResponse(t.Context(), out), "%s: %s", name, r.body)
		}
		if seen[route.Operation.OperationID] == nil {
			seen[route.Operation.OperationID] = map[int]bool{}
		}
		seen[route.Operation.OperationID][r.status] = true
	}
	// Whatever the table has, but for the self-test, was asked.
	for _, r := range api.MasterRoutes {
		if r.Name != api.RouteSelftest {
			require.NotEmpty(t, seen[strings.ReplaceAll(r.Name, " ", "-")], r.Name)
		}
	}
}

// A reply that the document does not describe is found: the test can fail.
func TestOpenAPIFindsAnotherReply(t *testing.T) {
	router := described(t, master.Document())
	u, err := url.Parse(api.MasterPrefix + "/nodes")
	require.NoError(t, err)
	req := &http.Request{Method: "GET", URL: u, Header: http.Header{}}
	route, params, err := router.FindRoute(req)
	require.NoError(t, err)
	in := &openapi3filter.RequestValidationInput{Request: req, PathParams: params, Route: route}
	for _, body := range []string{`{"nodes":[{"name":7}]}`, `{"nodes":[],"more":1}`, `{}`} {
		out := &openapi3filter.ResponseValidationInput{RequestValidationInput: in, Status: 200, Header: http.Header{"Content-Type": {api.TypeJSON}}, Body: io.NopCloser(strings.NewReader(body))}
		require.Error(t, openapi3filter.ValidateResponse(t.Context(), out), body)
	}
}
