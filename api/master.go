package api

import (
	"net/http"
	"time"
)

// MasterPrefix is where a master's API begins, behind any front and on its
// local socket.
const MasterPrefix = "/api/v1"

// IdempotencyHeader names a request, so that it can be sent again after an
// answer was lost: the same key with the same body is the same job, with another
// body key_reused.
const IdempotencyHeader = "Idempotency-Key"

// LocalPrefix begins the name of a caller on the master's own machine:
// "local:1000" is the user with that uid.
const LocalPrefix = "local:"

// Rights at a master, beside those of nodes: a job needs, for each node and
// resource that it touches, the right that its task needs there.
const (
	MayJobs    Right = "jobs"        // to see the jobs of others
	MayCancel  Right = "jobs:cancel" // to cancel the jobs of others
	MayAudit   Right = "audit"       // to read the audit log
	MayMetrics Right = "metrics"     // to scrape the metrics
)

// MasterRights lists every right that a grant of a master may name.
var MasterRights = []Right{
	MayStatus, MayList, MayDigest, MayExport, MayCreate, MayReplace, MayUpdate, MayCommand, MaySelftest,
	MayJobs, MayCancel, MayAudit, MayMetrics,
}

// Names of a master's routes.
const (
	RouteSubmit       = "submit"
	RouteJobs         = "jobs"
	RouteJob          = "job"
	RouteJobFeed      = "watch"
	RouteJobCancel    = "cancel job"
	RouteRetry        = "retry"
	RouteRecords      = "records"
	RouteNodes        = "nodes"
	RouteMasterStatus = "master status"
	RouteAudit        = "audit"
	RouteOpenAPI      = "openapi"
	RouteMetrics      = "metrics"
)

// MasterRoutes is the route table of a master's API. Where the path names a job
// (Task), its owner may use the route and so may who has the right; NoRight
// there means the owner alone. POST jobs and retry need the rights of what the
// job does, see MasterRights.
var MasterRoutes = []Route{
	{RouteSubmit, http.MethodPost, "/jobs", TypeJSON, NoRight, false},
	{RouteJobs, http.MethodGet, "/jobs", "", NoRight, false},
	{RouteJob, http.MethodGet, "/jobs/{id}", "", MayJobs, true},
	{RouteJobFeed, http.MethodGet, "/jobs/{id}/feed", "", MayJobs, true},
	{RouteJobCancel, http.MethodDelete, "/jobs/{id}", "", MayCancel, true},
	{RouteRetry, http.MethodPost, "/jobs/{id}/retry", TypeJSON, MayJobs, true},
	{RouteRecords, http.MethodPost, "/jobs/{id}/records", TypeJSON, NoRight, true},
	{RouteNodes, http.MethodGet, "/nodes", "", MayStatus, false},
	{RouteMasterStatus, http.MethodGet, "/status", "", MayStatus, false},
	{RouteAudit, http.MethodGet, "/audit", "", MayAudit, false},
	{RouteOpenAPI, http.MethodGet, "/openapi.json", "", NoRight, false},
	{RouteMetrics, http.MethodGet, "/metrics", "", MayMetrics, false},
	{RouteCRL, http.MethodPut, "/crl", TypeCRL, NoRight, false},
	{RouteSelftest, http.MethodGet, "/selftest/{check:.*}", "", MaySelftest, false},
	{RouteSelftest, http.MethodHead, "/selftest/{check:.*}", "", MaySelftest, false},
	{RouteSelftest, http.MethodPost, "/selftest/{check:.*}", TypeBytes, MaySelftest, false},
}

// Limits of a master's requests. What exceeds one is refused by name.
const (
	MaxSpec        = 256 << 10 // bytes of a job's spec: a call may name 2,000 nodes
	MaxKey         = 128       // bytes of an idempotency key
	MaxCursor      = 128       // bytes of a cursor
	MaxPriority    = 100       // priorities are -100 to 100, 0 is usual, greater ones go first
	MaxAttemptsCap = 100       // attempts of one job
	DefaultTries   = 5         // attempts of a job that names no number
	MaxLimitNames  = 8         // named limits that one job counts against
	MaxRecords     = 256       // records in one request
	MaxDriverItems = 64        // items in one request
	DefaultPage    = 100       // entries of a page when nobody says

	// MaxAhead is how far ahead not_before may be.
	MaxAhead = 366 * 24 * time.Hour
)

// A JobState is where a job is. Those that end it are outcomes, and abandoned;
// unknown does not end it: the master goes on asking.
type JobState string

const (
	JobQueued    JobState = "queued"
	JobRunning   JobState = "running"
	JobStalled   JobState = "stalled"
	JobWaiting   JobState = "waiting_retry"
	JobUnknown   JobState = JobState(Unknown)
	JobDone      JobState = JobState(Done)
	JobFailed    JobState = JobState(Failed)
	JobRefused   JobState = JobState(Refused)
	JobCancelled JobState = JobState(Cancelled)
	JobAbandoned JobState = "abandoned" // ended by somebody while it was unknown; its outcome is Unknown
)

// JobStates lists every state, in the order in which they come.
var JobStates = []JobState{JobQueued, JobRunning, JobStalled, JobWaiting, JobUnknown, JobDone, JobFailed, JobRefused, JobCancelled, JobAbandoned}

// Final reports whether a job in this state has ended.
func (s JobState) Final() bool {
	return s == JobDone || s == JobFailed || s == JobRefused || s == JobCancelled || s == JobAbandoned
}

// JobDetail is the detail of a state record in a job's feed.
type JobDetail struct {
	Attempt int       `json:"attempt"` // 0 before the first
	NextAt  time.Time `json:"next_at,omitzero"`
	Why     string    `json:"why,omitzero"`
}

// JobRequest is the body of POST jobs.
type JobRequest struct {
	Spec Raw `json:"spec"` // what to do, see docs/protocol.md
	// ID is the job's, for one with a local side: its driver has named it before.
	// Others are named by the master.
	ID string `json:"id,omitzero"`
	// Priority from -MaxPriority to MaxPriority; greater ones go first.
	Priority int `json:"priority,omitzero"`
	// NotBefore keeps the job queued until then.
	NotBefore time.Time `json:"not_before,omitzero"`
	// MaxAttempts is how often the master tries by itself; 0 = DefaultTries.
	MaxAttempts int `json:"max_attempts,omitzero"`
	// Limits are the named limits of the master's configuration that the job
	// counts against.
	Limits []string `json:"limits,omitempty"`
}

// Job describes one job to those who may see it. In lists Attempts is left
// out; all else is the same.
type Job struct {
	ID          string    `json:"id"` // UUIDv7
	Kind        string    `json:"kind"`
	Spec        Raw       `json:"spec"`
	Owner       string    `json:"owner"`           // SPIFFE id, or local:UID
	Driver      string    `json:"driver,omitzero"` // who drives it from outside, at the side that is local to him; absent: the master does
	Priority    int       `json:"priority"`
	NotBefore   time.Time `json:"not_before,omitzero"`
	Nodes       []string  `json:"nodes"`
	Limits      []string  `json:"limits,omitempty"`
	MaxAttempts int       `json:"max_attempts"`
	RetryOf     string    `json:"retry_of,omitzero"` // id of the job that this one tries again
	State       JobState  `json:"state"`
	Attempt     int       `json:"attempt"`            // number of the last one; 0 before the first
	Why         string    `json:"why,omitzero"`       // of the state, one sentence
	NextAt      time.Time `json:"next_at,omitzero"`   // of waiting_retry
	CancelBy    string    `json:"cancel_by,omitzero"` // who asked for the job's end
	Created     time.Time `json:"created"`
	Started     time.Time `json:"started,omitzero"`
	Changed     time.Time `json:"changed"`
	Ended       time.Time `json:"ended,omitzero"`
	Outcome     Outcome   `json:"outcome,omitzero"`
	Final       Raw       `json:"final,omitzero"` // the final record, once there is one
	Attempts    []Attempt `json:"attempts,omitempty"`
}

// Attempt is one try of a job.
type Attempt struct {
	N       int       `json:"n"` // from 1
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended,omitzero"`
	Outcome Outcome   `json:"outcome,omitzero"`
	Why     string    `json:"why,omitzero"`
	Tasks   []TaskRef `json:"tasks,omitempty"` // of calls: in the feed only
}

// TaskRef names a task on a node.
type TaskRef struct {
	Node string `json:"node"`
	Task string `json:"task"`
	Op   string `json:"op"`
}

// JobList is one page of GET jobs, newest first: one's own, and with the right
// jobs everybody's.
type JobList struct {
	Jobs []Job  `json:"jobs"`
	Next string `json:"next,omitzero"` // cursor of the next page
}

// FromPublish has a retry take over the stage of the last attempt.
const FromPublish = "publish"

// RetryRequest is the body of POST jobs/{id}/retry. The retry is a job of its
// own, with the rights of who asks for it.
type RetryRequest struct {
	From string `json:"from,omitzero"` // "" or FromPublish
	// Only names the outcomes of a call's nodes that are tried again; empty:
	// all that are not done.
	Only []Outcome `json:"only,omitempty"`
}

// RecordsRequest is the body of POST jobs/{id}/records, for a job with a local
// side, which its owner drives: stored records of the driver's feed, in order,
// numbers and all. What the master has already is dropped, so a request can be
// sent again. A final record ends the job. A driver that sends nothing for
// DriverSilence is taken for dead, and the job for unknown, until he is back.
type RecordsRequest struct {
	Records []Raw `json:"records"` // at most MaxRecords; none says that the driver lives
	// Progress has a progress record for each item that moves now, at most
	// MaxDriverItems; watchers see them, and nothing is stored.
	Progress []Raw `json:"progress,omitempty"`
}

// Times of a driver's reports.
const (
	ReportEvery   = 2 * time.Second
	DriverSilence = time.Minute
)

// RecordsReply is the reply.
type RecordsReply struct {
	Last     int64  `json:"last"`               // number of the request's last record, 0 without: it and all before are stored
	CancelBy string `json:"cancel_by,omitzero"` // who asked for the job's end: its driver should see to it
}

// NodeState is one node as the master sees it.
type NodeState struct {
	Name    string    `json:"name"`
	URL     string    `json:"url"`
	Outcome Outcome   `json:"outcome"`       // done: it answered; unreachable, pin_mismatch, refused …; unknown: not asked yet
	Why     string    `json:"why,omitzero"`  // of an outcome that is not done
	Seen    time.Time `json:"seen,omitzero"` // last answer
	Version string    `json:"version,omitzero"`
	Tasks   int       `json:"tasks"`   // that the node runs, whoever asked
	Slots   int       `json:"slots"`   // jobs that the master runs there at a time
	Running int       `json:"running"` // of them taken
	Pins    NodePins  `json:"pins"`
	Expires time.Time `json:"expires,omitzero"` // of the certificate that its front showed
	CRL     *CRL      `json:"crl,omitzero"`     // nil: not seen
}

// NodePins compares the keys that cluster.toml pins with the one that was seen.
type NodePins struct {
	Pinned []string `json:"pinned"`         // sha256:…; empty: any key with the right id
	Seen   string   `json:"seen,omitzero"`  // of the last connection
	Match  int      `json:"match,omitzero"` // position of Seen in Pinned from 1; 0: none
}

// NodeList is the reply of GET nodes, in the order of cluster.toml.
type NodeList struct {
	Nodes []NodeState `json:"nodes"`
}

// MasterStatus is the reply of GET status.
type MasterStatus struct {
	Master   string           `json:"master"`
	Cluster  string           `json:"cluster"`
	Version  string           `json:"version"`
	Time     time.Time        `json:"time"`
	Isolated bool             `json:"isolated"` // front and master have uids of their own
	Draining bool             `json:"draining,omitzero"`
	Ready    bool             `json:"ready"`
	Jobs     map[JobState]int `json:"jobs"`  // how many are in each state
	Feeds    int              `json:"feeds"` // readers attached
	Nodes    int              `json:"nodes"`
	CRL      CRL              `json:"crl"`
	Caller   string           `json:"caller"`
	May      []MasterGrant    `json:"may"`
	Warnings []string         `json:"warnings,omitzero"`
}

// MasterGrant is one grant of a master as it applies to the caller.
type MasterGrant struct {
	May       []Right  `json:"may"`
	Nodes     []string `json:"nodes"`
	Resources []string `json:"resources"`
}

// Decisions in the audit log.
const (
	AuditAllowed = "allowed"
	AuditRefused = "refused"
)

// AuditEntry is one line of the audit log. It is written before the action.
type AuditEntry struct {
	Seq      int64     `json:"seq"` // from 1, without gap
	Time     time.Time `json:"time"`
	Who      string    `json:"who"`
	What     string    `json:"what"`   // the route
	Object   string    `json:"object"` // the job, or what it would touch
	Decision string    `json:"decision"`
	Reason   string    `json:"reason"`
	Prev     string    `json:"prev"` // hash of the entry before, hex
	Hash     string    `json:"hash"` // SHA-256 over this entry and Prev, hex
}

// AuditList is one page of GET audit, oldest first.
type AuditList struct {
	Entries []AuditEntry `json:"entries"`
	Last    int64        `json:"last"` // greatest number there is
}
