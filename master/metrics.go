package master

import (
	"context"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"gantry/api"
	"gantry/feedback"
	"gantry/job"
	"gantry/queue"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics is what GET metrics shows. What others count already is read when
// somebody asks; only requests and ended jobs are counted here.
type metrics struct {
	handler http.Handler
	open    atomic.Int64 // feeds being read

	feeds    prometheus.Gauge
	refused  *prometheus.CounterVec
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	ended    *prometheus.CounterVec
	bytes    *prometheus.CounterVec
	moved    prometheus.Histogram
}

// gauge keeps open in step, for status.
type gauge struct {
	prometheus.Gauge
	n *atomic.Int64
}

func (g gauge) Inc() { g.n.Add(1); g.Gauge.Inc() }
func (g gauge) Dec() { g.n.Add(-1); g.Gauge.Dec() }

const space = "gantry"

func newMetrics(s *Server) *metrics {
	m := &metrics{
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: space, Name: "refused_requests_total",
			Help: "Requests that were refused for want of a right or an accepted certificate, by code."}, []string{"code"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: space, Name: "requests_total",
			Help: "Requests by route and HTTP status."}, []string{"route", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: space, Name: "request_duration_seconds",
			Help: "Time that requests took, but for feeds.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 8)}, []string{"route"}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: space, Name: "node_jobs_ended_total",
			Help: "Jobs that ended since the start of the master, by node and outcome; a job counts at each of its nodes."}, []string{"node", "outcome"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: space, Name: "content_bytes_total",
			Help: "Bytes of jobs that were done since the start of the master, by origin."}, []string{"origin"}),
		moved: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: space, Name: "job_rate_bytes_per_second",
			Help: "Rates of copies that were done since the start of the master.", Buckets: prometheus.ExponentialBuckets(1<<20, 4, 8)}),
	}
	m.feeds = gauge{prometheus.NewGauge(prometheus.GaugeOpts{Namespace: space, Name: "feeds_open", Help: "Feeds that are being read."}), &m.open}
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		m.feeds, m.refused, m.requests, m.seconds, m.ended, m.bytes, m.moved, &asked{s},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	m.handler = promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError, DisableCompression: true})
	return m
}

func (s *Server) serveMetrics(w http.ResponseWriter, r *http.Request) error {
	if err := onlyQuery(r); err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	s.metrics.handler.ServeHTTP(w, r)
	return nil
}

// request is told of every request that is over.
func (m *metrics) request(route string, status int, took time.Duration) {
	if route == "" {
		route = "none"
	}
	m.requests.WithLabelValues(route, strconv.Itoa(status)).Inc()
	if route != api.RouteJobFeed {
		m.seconds.WithLabelValues(route).Observe(took.Seconds())
	}
}

// done is told of every job that ended.
func (m *metrics) done(j queue.Job) {
	for _, node := range j.Nodes {
		m.ended.WithLabelValues(node, string(j.Outcome)).Inc()
	}
	final, err := feedback.Decode(j.Final)
	if err != nil {
		return
	}
	result, ok := final.Body.(*feedback.Result)
	if !ok || j.Kind != job.Copy && j.Kind != job.Import && j.Kind != job.Export {
		return
	}
	var v api.ImportResult
	if loosely(result.Value, &v) != nil {
		return
	}
	for origin, n := range map[string]int64{
		"fetched": v.Bytes.Fetched, "copied": v.Bytes.Copied, "reflinked": v.Bytes.Reflinked, "hole": v.Bytes.Hole, "carried": v.Bytes.Carried,
	} {
		if n > 0 {
			m.bytes.WithLabelValues(origin).Add(float64(n))
		}
	}
	if v.Rate > 0 {
		m.moved.Observe(v.Rate)
	}
}

// asked is what is read when somebody scrapes: the store, the nodes, the
// certificates.
type asked struct{ s *Server }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(space, "", name), help, labels, nil)
}

var (
	descJobs     = desc("jobs", "Jobs in each state.", "state")
	descDepth    = desc("queue_depth", "Jobs that wait for their turn.")
	descStalled  = desc("jobs_stalled", "Running jobs of which no byte moves.")
	descStore    = desc("store_size_bytes", "Bytes of the store and its log.")
	descCommit   = desc("store_commit_duration_seconds", "Time that commits of the store took.")
	descChanges  = desc("store_changes_total", "State changes that were committed.")
	descNodeUp   = desc("node_up", "1 if the node answered when it was asked last.", "node")
	descNodeSeen = desc("node_answer_age_seconds", "Time since the node's last answer.", "node")
	descNodeCert = desc("node_certificate_remaining_seconds", "Life that is left to the certificate that the node's front showed.", "node")
	descNodePin  = desc("node_pin_position", "Place of the seen key among the node's pins from 1; 0: none of them.", "node")
	descNodeCRL  = desc("node_crl_remaining_seconds", "Life that is left to the node's revocation list.", "node")
	descNodeAge  = desc("node_crl_age_seconds", "Age of the node's revocation list.", "node")
	descSlots    = desc("node_slots", "Jobs that may run on the node at a time.", "node")
	descRunning  = desc("node_jobs_running", "Jobs that take a slot of the node.", "node")
	descCRL      = desc("crl_remaining_seconds", "Life that is left to the master's revocation list.")
	descCRLAge   = desc("crl_age_seconds", "Age of the master's revocation list.")
	descCert     = desc("certificate_remaining_seconds", "Life that is left to the master's own certificate.")
	descInfo     = desc("master_info", "Name and version; always 1.", "master", "version")
)

// Describe implements prometheus.Collector.
func (a *asked) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descJobs, descDepth, descStalled, descStore, descCommit, descChanges, descNodeUp, descNodeSeen, descNodeCert, descNodePin,
		descNodeCRL, descNodeAge, descSlots, descRunning, descCRL, descCRLAge, descCert, descInfo,
	} {
		out <- d
	}
}

// scrapeTime bounds what one scrape may ask of the store.
const scrapeTime = 5 * time.Second

// Collect implements prometheus.Collector.
func (a *asked) Collect(out chan<- prometheus.Metric) {
	s, now := a.s, time.Now()
	send := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	ctx, cancel := context.WithTimeout(s.work, scrapeTime)
	defer cancel()
	stats, err := s.store.Stats(ctx)
	if err != nil {
		out <- prometheus.NewInvalidMetric(descJobs, err)
	} else {
		for _, state := range api.JobStates {
			send(descJobs, float64(stats.States[state]), string(state))
		}
		send(descDepth, float64(stats.Depth))
		send(descStalled, float64(stats.States[queue.Stalled]))
		send(descStore, float64(stats.Bytes))
		out <- prometheus.MustNewConstMetric(descChanges, prometheus.CounterValue, float64(stats.Changes))
		out <- prometheus.MustNewConstHistogram(descCommit, uint64(stats.Commits), stats.Busy.Seconds(), buckets(stats.Latency))
	}
	for _, n := range s.list() {
		up := 0.0
		if n.Outcome == api.Done {
			up = 1
		}
		send(descNodeUp, up, n.Name)
		send(descSlots, float64(n.Slots), n.Name)
		send(descRunning, float64(n.Running), n.Name)
		if !n.Seen.IsZero() {
			send(descNodeSeen, now.Sub(n.Seen).Seconds(), n.Name)
		}
		if !n.Expires.IsZero() {
			send(descNodeCert, n.Expires.Sub(now).Seconds(), n.Name)
			send(descNodePin, float64(n.Pins.Match), n.Name)
		}
		if n.CRL != nil && n.CRL.Number > 0 {
			send(descNodeCRL, n.CRL.Expires.Sub(now).Seconds(), n.Name)
			send(descNodeAge, now.Sub(n.CRL.Updated).Seconds(), n.Name)
		}
	}
	send(descCRL, s.gate.CRL.Remaining(now).Seconds())
	send(descCRLAge, s.gate.CRL.Age(now).Seconds())
	send(descCert, s.gate.Identity.Remaining(now).Seconds())
	send(descInfo, 1, s.cfg.Name, s.version)
}

// buckets adds up the store's counts, as Prometheus wants them.
func buckets(latency []int64) map[float64]uint64 {
	all, sum := map[float64]uint64{}, uint64(0)
	for i, bound := range queue.Buckets {
		if i < len(latency) {
			sum += uint64(latency[i])
		}
		all[bound.Seconds()] = sum
	}
	return all
}
