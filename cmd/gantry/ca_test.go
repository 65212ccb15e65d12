package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"

	"gantry/api"
	"gantry/pki"
)

// caRun runs a command line of gantry in this process.
func caRun(t *testing.T, now time.Time, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	e := &env{
		Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, Now: func() time.Time { return now },
		Getenv:     func(string) string { return "" },
		IsTerminal: func(any) (int, bool) { return 0, false },
	}
	code = run(t.Context(), e, args)
	return code, out.String(), errs.String()
}

// The command as people type it.
func TestCAScripts(t *testing.T) {
	bin := t.TempDir()
	out, err := exec.Command("go", "build", "-o", filepath.Join(bin, "gantry"), ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	scripts := []string{filepath.Join("testdata", "ca.txtar"), filepath.Join("testdata", "ca_misuse.txtar")}
	testscript.Run(t, testscript.Params{Files: scripts, Setup: func(e *testscript.Env) error {
		e.Setenv("PATH", bin+string(os.PathListSeparator)+e.Getenv("PATH"))
		return nil
	}})
}

func TestCAExitCodes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	for _, c := range []struct {
		args string
		want int
	}{
		{"ca list", api.ExitNotFound},
		{"ca init demo", api.ExitDone},
		{"ca init demo", api.ExitFailed},
		{"ca init Demo", api.ExitMisuse},
		{"ca issue admin ann", api.ExitMisuse},
		{"ca issue operator", api.ExitMisuse},
		{"ca revoke operator/ann", api.ExitNotFound},
		{"ca revoke 00112233445566778899aabbccddeeff", api.ExitNotFound},
		{"ca crl", api.ExitDone},
		{"ca frobnicate", api.ExitMisuse},
	} {
		code, _, stderr := caRun(t, time.Now(), append(strings.Fields(c.args), "--dir", dir)...)
		require.Equal(t, c.want, code, "%s: %s", c.args, stderr)
		if c.want != api.ExitDone {
			require.NotEmpty(t, stderr, c.args)
		}
	}
}

func TestCAListKnowsTheTime(t *testing.T) {
	dir, out := filepath.Join(t.TempDir(), "ca"), filepath.Join(t.TempDir(), "ann")
	now := time.Date(2026, 11, 20, 21, 0, 0, 0, time.UTC)
	for _, args := range [][]string{{"init", "demo"}, {"issue", "operator", "ann", "--days", "1", "--out", out}} {
		code, _, stderr := caRun(t, now, append(append([]string{"ca"}, args...), "--dir", dir)...)
		require.Zero(t, code, stderr)
	}
	for after, state := range map[time.Duration]string{time.Hour: "valid", 25 * time.Hour: "expired"} {
		_, stdout, _ := caRun(t, now.Add(after), "ca", "list", "--dir", dir)
		require.Regexp(t, `operator +ann +`+state+` +2026-11-20 21:00 UTC +2026-11-21 21:00 UTC`, stdout)
	}
}

// A list goes to every node and master; one that is gone is named and does not stop the
// others.
func TestCACRLPush(t *testing.T) {
	dir, home := filepath.Join(t.TempDir(), "ca"), filepath.Join(t.TempDir(), "home")
	now := time.Now()
	mustCA := func(args ...string) {
		code, _, stderr := caRun(t, now, append(append([]string{"ca"}, args...), "--dir", dir)...)
		require.Zero(t, code, stderr)
	}
	mustCA("init", "demo")
	mustCA("issue", "operator", "ann", "--out", home)
	got := make(chan *pki.CRL, 2)
	serve := func(name, path string) (table string, front *pki.Identity) {
		mustCA("issue", "front", name, "--out", filepath.Join(home, name), "--host", "127.0.0.1")
		at := func(file string) string { return filepath.Join(home, name, file) }
		front, err := pki.LoadIdentity(at("ca.pem"), at("cert.pem"), at("key.pem"))
		require.NoError(t, err)
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil || r.Method != http.MethodPut || r.URL.Path != path || r.Header.Get("Content-Type") != api.TypeCRL {
				http.Error(w, "unexpected request", http.StatusTeapot)
				return
			}
			crl, err := pki.ParseCRL(body, front.CA)
			if err != nil {
				http.Error(w, err.Error(), http.StatusConflict)
				return
			}
			got <- crl
			w.WriteHeader(http.StatusNoContent)
		}))
		server.TLS = pki.ServerTLS(front)
		server.StartTLS()
		t.Cleanup(server.Close)
		return fmt.Sprintf("name = %q\nurl = %q\npins = [%q]\n", name, server.URL, pki.Pin(front.Cert.Leaf)), front
	}
	alpha, front := serve("alpha", "/node/v1/crl")
	hub, _ := serve("hub", "/api/v1/crl")

	reached := "[[node]]\n" + alpha + "[[master]]\n" + hub
	cluster := "name = \"demo\"\n[[node]]\nname = \"beta\"\nurl = \"https://127.0.0.1:1\"\n" + reached
	require.NoError(t, os.WriteFile(filepath.Join(home, "cluster.toml"), []byte(cluster), 0o644))

	code, stdout, stderr := caRun(t, now, "ca", "crl", "--push", "--dir", dir, "--home", home)
	require.Equal(t, api.ExitFailed, code)
	require.Contains(t, stdout, "alpha: delivered\n")
	require.Contains(t, stdout, "hub: delivered\n")
	require.Contains(t, stdout, "beta: not delivered: ")
	require.Contains(t, stderr, "1 of 3 nodes and masters did not take the list")
	require.EqualValues(t, 2, (<-got).Number.Int64())
	require.EqualValues(t, 2, (<-got).Number.Int64())

	own, err := pki.OpenCRLStore(filepath.Join(home, "crl.pem"), front.CA)
	require.NoError(t, err)
	require.EqualValues(t, 2, own.Current().Number.Int64(), "the operator's own copy is replaced too")

	t.Run("json, all reached", func(t *testing.T) {
		require.NoError(t, os.WriteFile(filepath.Join(home, "cluster.toml"), []byte("name = \"demo\"\n"+reached), 0o644))
		code, stdout, stderr := caRun(t, now, "ca", "crl", "--push", "--json", "--dir", dir, "--home", home)
		require.Zero(t, code, stderr)
		require.Regexp(t, `^\{.*\}\n$`, stdout)
		require.Contains(t, stdout, `{"node":"alpha","delivered":true}`)
		require.Contains(t, stdout, `{"master":"hub","delivered":true}`)
		require.EqualValues(t, 3, (<-got).Number.Int64())
		require.EqualValues(t, 3, (<-got).Number.Int64())
	})
}
