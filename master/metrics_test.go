package master_test

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/stretchr/testify/require"
)

func TestMetrics(t *testing.T) {
	w := newWorld(t, "").start()
	w.submit("ann", "a")
	w.ended("ann")
	require.Equal(t, 403, w.ask("bob", "GET", "/metrics", nil, "").status)
	r := w.ask("root", "GET", "/metrics", nil, "")
	require.Equal(t, 200, r.status)
	for _, line := range []string{
		`gantry_jobs{state="queued"} 1`, `gantry_jobs{state="cancelled"} 1`, `gantry_jobs{state="unknown"} 0`, `gantry_queue_depth 1`, `gantry_jobs_stalled 0`,
		`gantry_node_jobs_ended_total{node="alpha",outcome="cancelled"} 1`, `gantry_feeds_open 0`, `gantry_refused_requests_total{code="forbidden"} 1`,
		`gantry_node_up{node="alpha"} 0`, `gantry_node_slots{node="beta"}`, `gantry_node_jobs_running{node="beta"} 0`,
		`gantry_store_commit_duration_seconds_bucket{le="+Inf"}`, `gantry_store_commit_duration_seconds_count`, `gantry_store_size_bytes`, `gantry_store_changes_total`,
		`gantry_crl_remaining_seconds`, `gantry_crl_age_seconds`, `gantry_certificate_remaining_seconds`, `gantry_master_info{master="hub",version="test"} 1`,
		`gantry_requests_total{route="submit",status="201"} 2`, `gantry_request_duration_seconds_bucket{route="submit"`,
	} {
		require.Contains(t, r.body, line)
	}
	problems, err := promlint.New(strings.NewReader(r.body)).Lint()
	require.NoError(t, err)
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}
