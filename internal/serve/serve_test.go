package serve

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"gantry/access"
	"gantry/api"
	"gantry/feedback"
	"gantry/pki"

	"github.com/stretchr/testify/require"
)

func TestErrorsBecomeCodes(t *testing.T) {
	wire := api.Busy.Err("x")
	for _, c := range []struct {
		err  error
		want *api.Code
	}{
		{wire, api.Busy},
		{fmt.Errorf("opening: %w", wire), api.Busy},
		{&pki.Error{Code: pki.CodeRevoked, Rule: "x"}, api.Revoked},
		{&pki.Error{Code: pki.CodeCRL, Rule: "x"}, api.BadCRL},
		{&http.MaxBytesError{Limit: 3}, api.TooLarge},
		{fmt.Errorf("creating: %w", feedback.ErrNoRoom), api.NoRoom},
		{feedback.ErrAfter, api.AboveLast},
		{&fs.PathError{Err: syscall.ENOENT}, api.NotFound},
		{&fs.PathError{Err: syscall.EACCES}, api.Denied},
		{&fs.PathError{Err: syscall.ENOSPC}, api.NoSpace},
		{&fs.PathError{Err: syscall.EDQUOT}, api.NoSpace},
		{errors.New("secret"), api.Internal},
	} {
		got := Wire(c.err)
		require.Equal(t, c.want.Name, got.Code, "%v", c.err)
		require.NotContains(t, got.Message, "secret")
	}
	require.Nil(t, Wire(nil))
}

func TestEveryRouteHasExactlyOneHandler(t *testing.T) {
	nothing := func(http.ResponseWriter, *http.Request) error { return nil }
	route := func(name, method, path string) api.Route { return api.Route{Name: name, Method: method, Path: path} }
	for name, c := range map[string]struct {
		routes   []api.Route
		handlers []string
		problem  string
	}{
		"complete":         {[]api.Route{route("a", "GET", "/a"), route("a", "HEAD", "/a")}, []string{"a"}, ""},
		"route without":    {[]api.Route{route("a", "GET", "/a"), route("b", "GET", "/b")}, []string{"a"}, "has no handler"},
		"handler without":  {[]api.Route{route("a", "GET", "/a")}, []string{"a", "b"}, "has no route"},
		"the same twice":   {[]api.Route{route("a", "GET", "/a"), route("b", "GET", "/a")}, []string{"a", "b"}, "is there twice"},
		"another method":   {[]api.Route{route("a", "GET", "/a"), route("b", "PUT", "/a")}, []string{"a", "b"}, ""},
		"no route, at all": {nil, nil, ""},
	} {
		handlers := map[string]Handler{}
		for _, h := range c.handlers {
			handlers[h] = nothing
		}
		_, err := New(Config{Routes: c.routes, Handlers: handlers})
		if c.problem == "" {
			require.NoError(t, err, name)
		} else {
			require.ErrorContains(t, err, c.problem, name)
		}
	}
}

// A request that came over anything but the front's socket has no peer.
func TestWithoutAPeerNobodyIsBelieved(t *testing.T) {
	s, err := New(Config{Prefix: api.Prefix, Front: Front{UIDs: []uint32{0, 1}}})
	require.NoError(t, err)
	for _, path := range []string{HealthPath, api.Prefix + "/status"} {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		require.Equal(t, 403, w.Code)
		require.Equal(t, api.TypeProblem, w.Header().Get("Content-Type"))
		require.Contains(t, w.Body.String(), `"code":"front_not_trusted"`)
	}
}

func TestLiveRequestsEndWithTheirCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		ca, err := pki.InitCA(dir, "demo", pki.Options{CRLLife: time.Hour})
		require.NoError(t, err)
		leaf, err := ca.Issue(pki.RoleOperator, "ann", nil, 24*time.Hour)
		require.NoError(t, err)
		cert, err := pki.ParseCertPEM(leaf.CertPEM)
		require.NoError(t, err)
		authority, err := pki.LoadCA(filepath.Join(dir, pki.CertFile))
		require.NoError(t, err)
		store, err := pki.OpenCRLStore(filepath.Join(dir, "crl.pem"), authority)
		require.NoError(t, err)
		v := &pki.Verifier{CA: authority, CRL: store}
		caller := access.Caller{Cert: cert}

		ctx, stop := recheck(context.Background(), v, caller)
		defer stop()
		idle, stopIdle := recheck(context.Background(), v, caller)
		time.Sleep(10 * api.Recheck)
		synctest.Wait()
		require.NoError(t, ctx.Err())
		stopIdle()
		require.Equal(t, context.Canceled, context.Cause(idle), "a request that is over is not rechecked")

		crl, err := ca.Revoke(leaf.Serial)
		require.NoError(t, err)
		time.Sleep(time.Second)
		_, err = store.Put(crl.PEM, time.Now())
		require.NoError(t, err)
		revoked := time.Now()
		<-ctx.Done()
		require.LessOrEqual(t, time.Since(revoked), api.Recheck)
		require.ErrorIs(t, context.Cause(ctx), ErrRevoked)
		require.Equal(t, api.Revoked.Name, Wire(context.Cause(ctx)).Code)
	})
}

func TestLiveRequestsEndWithAStaleList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		ca, err := pki.InitCA(dir, "demo", pki.Options{CRLLife: time.Hour})
		require.NoError(t, err)
		leaf, err := ca.Issue(pki.RoleOperator, "ann", nil, 24*time.Hour)
		require.NoError(t, err)
		cert, err := pki.ParseCertPEM(leaf.CertPEM)
		require.NoError(t, err)
		authority, err := pki.LoadCA(filepath.Join(dir, pki.CertFile))
		require.NoError(t, err)
		store, err := pki.OpenCRLStore(filepath.Join(dir, "crl.pem"), authority)
		require.NoError(t, err)
		begin := time.Now()
		ctx, stop := recheck(context.Background(), &pki.Verifier{CA: authority, CRL: store}, access.Caller{Cert: cert})
		defer stop()
		<-ctx.Done()
		require.InDelta(t, time.Hour.Seconds(), time.Since(begin).Seconds(), 2*api.Recheck.Seconds())
		require.Equal(t, api.StaleCRL.Name, Wire(context.Cause(ctx)).Code)
	})
}

func TestRequestsThatAreOverAreNotJudgedForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var judged atomic.Int32
		atWork, goOn := make(chan struct{}), make(chan struct{})
		_, stop := judgeAgain(context.Background(), func() error {
			judged.Add(1)
			close(atWork)
			<-goOn
			return nil
		})
		<-atWork
		stop() // the reply ends just now
		close(goOn)
		time.Sleep(10 * api.Recheck)
		require.EqualValues(t, 1, judged.Load())
	})
}
