//go:build stack

package stacktest_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
)

// operatorHTTP is plain HTTP to the master, as monitoring and scripts use it:
// with the operator's certificate, or with none.
func (s *stack) operatorHTTP(t *testing.T, identified bool) *http.Client {
	t.Helper()
	at := func(name string) string { return filepath.Join(s.home, name) }
	ca, err := os.ReadFile(at("ca.pem"))
	require.NoError(t, err)
	c := &tls.Config{ServerName: "hub", RootCAs: x509.NewCertPool()}
	require.True(t, c.RootCAs.AppendCertsFromPEM(ca))
	if identified {
		cert, err := tls.LoadX509KeyPair(at("cert.pem"), at("key.pem"))
		require.NoError(t, err)
		c.Certificates = []tls.Certificate{cert}
	}
	transport := &http.Transport{TLSClientConfig: c}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 30 * time.Second}
}

// variable is what the stack's environment says.
func (s *stack) variable(name string) string {
	for _, v := range slices.Backward(s.env) {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	return ""
}

// masterAnswers: the API, and metrics that Prometheus' own parser accepts.
func (s *stack) masterAnswers(t *testing.T) {
	api := "https://" + s.variable("GANTRY_MASTER") + "/api/v1"
	get := func(path string) string {
		r, err := s.operatorHTTP(t, true).Get(api + path)
		require.NoError(t, err)
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, r.StatusCode, "%s: %s", path, body)
		return string(body)
	}
	t.Run("nobody without a certificate", func(t *testing.T) {
		_, err := s.operatorHTTP(t, false).Get(api + "/status")
		require.ErrorContains(t, err, "tls: certificate required")
	})
	t.Run("status and nodes", func(t *testing.T) {
		var status struct {
			Master          string
			Ready, Isolated bool
			Nodes           int
		}
		require.NoError(t, json.Unmarshal([]byte(get("/status")), &status))
		require.Equal(t, "hub", status.Master)
		require.True(t, status.Ready && status.Isolated, "%+v", status)
		require.Equal(t, 3, status.Nodes)
	})
	t.Run("metrics", func(t *testing.T) {
		parser := expfmt.NewTextParser(model.UTF8Validation)
		families, err := parser.TextToMetricFamilies(strings.NewReader(get("/metrics")))
		require.NoError(t, err)
		value := func(family, label, want string) float64 {
			t.Helper()
			require.Contains(t, families, family)
			for _, m := range families[family].Metric {
				for _, l := range m.Label {
					if l.GetName() == label && l.GetValue() == want {
						return m.GetGauge().GetValue()
					}
				}
			}
			require.Fail(t, "no such sample", "%s{%s=%q}", family, label, want)
			return 0
		}
		states := map[string]int{}
		for _, j := range s.masterJobs(t) {
			states[j.State]++
		}
		require.NotZero(t, states["done"])
		for _, state := range []string{"queued", "running", "stalled", "waiting_retry", "unknown", "done", "failed", "refused", "cancelled"} {
			require.InDelta(t, states[state], value("gantry_jobs", "state", state), 0, state)
		}
		for _, node := range []string{"alpha", "beta", "gamma"} {
			require.InDelta(t, 1, value("gantry_node_up", "node", node), 0, node)
		}
	})
}

// masterJob is a line of gantry jobs --json.
type masterJob struct{ ID, State, Master, Command string }

func (s *stack) masterJobs(t *testing.T) (all []masterJob) {
	t.Helper()
	for line := range strings.Lines(s.cli(t, "--json", "jobs", "--all")) {
		var j masterJob
		require.NoError(t, json.Unmarshal([]byte(line), &j), line)
		if j.Master == "hub" {
			all = append(all, j)
		}
	}
	return all
}

// kept holds what a copy's user saw, through whatever happened meanwhile,
// against what the master keeps: the same records, each once.
func (s *stack) kept(t *testing.T, c *copying) {
	t.Helper()
	var seen, kept []string
	for _, r := range c.all() {
		if r.Seq > 0 {
			seen = append(seen, r.line)
		}
	}
	for line := range strings.Lines(s.cli(t, "--json", "watch", c.all()[0].ID)) {
		var r record
		require.NoError(t, json.Unmarshal([]byte(line), &r), line)
		if r.Seq > 0 {
			kept = append(kept, strings.TrimSpace(line))
		}
	}
	require.Equal(t, kept, seen, c.name)
}

// storeGood: after all this every job at the master is done, the store is whole,
// and nobody rewrote the audit log.
func (s *stack) storeGood(t *testing.T) {
	jobs := s.masterJobs(t)
	for _, j := range jobs {
		require.Equal(t, "done", j.State, "%+v", j)
	}
	s.docker(t, "exec", s.container(t, "master"), "masterd", "check-store", "/etc/gantry-master/master.toml")
	t.Logf("%d jobs; audit: %s", len(jobs), s.cli(t, "audit", "verify"))
}
