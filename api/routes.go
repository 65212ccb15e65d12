package api

import "net/http"

// Prefix is where a node's API begins, behind any front.
const Prefix = "/node/v1"

// Media types.
const (
	TypeJSON    = "application/json"
	TypeProblem = "application/problem+json" // RFC 9457
	TypeFeed    = "application/x-ndjson"
	TypeCRL     = "application/pkix-crl" // DER, RFC 2585
	TypeBytes   = "application/octet-stream"
	TypeFrames  = "application/vnd.gantry.frames" // ranges of an export, see docs/protocol.md
)

// TicketHeader carries the ticket of a named reader: 64 hex digits.
const TicketHeader = "Gantry-Ticket"

// FenceHeader is reserved: a request that has it is refused.
const FenceHeader = "Gantry-Fence"

// A Right is what a grant's "may" lists. The set is closed.
type Right string

const (
	MayStatus   Right = "status"
	MayList     Right = "list"
	MayDigest   Right = "digest"
	MayExport   Right = "export"
	MayCreate   Right = "import:create"
	MayReplace  Right = "import:replace"
	MayUpdate   Right = "import:update"
	MayCommand  Right = "command" // besides export or import: to have a command run
	MaySelftest Right = "selftest"

	// NoRight marks routes that need no grant: what they show or change
	// belongs to the caller, or proves itself (a CRL by its signature).
	NoRight Right = ""
)

// Rights lists every right that a grant may name.
var Rights = []Right{MayStatus, MayList, MayDigest, MayExport, MayCreate, MayReplace, MayUpdate, MayCommand, MaySelftest}

// A Route is one row of the API: the table from which routers, authorisation
// tests and documentation are made.
type Route struct {
	Name   string // the verb in logs and errors
	Method string
	Path   string // gorilla/mux pattern below Prefix
	Media  string // the one media type of an unsafe request's body; "" = no body
	// Right needed. Routes on a task are judged by the task's creator (or, for
	// the content of an export, its named reader) instead.
	Right Right
	Task  bool // path names a task: creator or reader only
}

// Names of the routes.
const (
	RouteStatus    = "status"
	RouteResources = "resources"
	RouteFiles     = "files"
	RouteCheck     = "check"
	RouteStart     = "start"
	RouteTasks     = "tasks"
	RouteTask      = "task"
	RouteFeed      = "feed"
	RouteCancel    = "cancel"
	RouteAck       = "ack"
	RouteLimit     = "limit"
	RouteManifest  = "manifest"
	RouteContent   = "content"
	RoutePieces    = "pieces"
	RouteFinish    = "finish"
	RouteCRL       = "crl"
	RouteSelftest  = "selftest"
	RouteMissing   = "missing"
	RoutePutLines  = "push manifest"
	RoutePutFrames = "push pieces"
	RoutePutBytes  = "push content"
	RouteReach     = "reach"
)

// Routes is the route table of the node API. POST tasks needs the right of its
// operation, see Operation.
var Routes = []Route{
	{RouteStatus, http.MethodGet, "/status", "", MayStatus, false},
	{RouteResources, http.MethodGet, "/resources", "", MayList, false},
	{RouteFiles, http.MethodGet, "/resources/{resource}/files", "", MayList, false},
	{RouteCheck, http.MethodGet, "/resources/{resource}/check", "", MayList, false},
	{RouteStart, http.MethodPost, "/tasks", TypeJSON, NoRight, false},
	{RouteTasks, http.MethodGet, "/tasks", "", NoRight, false},
	{RouteTask, http.MethodGet, "/tasks/{id}", "", NoRight, true},
	{RouteFeed, http.MethodGet, "/tasks/{id}/feed", "", NoRight, true},
	{RouteCancel, http.MethodDelete, "/tasks/{id}", "", NoRight, true},
	{RouteAck, http.MethodPost, "/tasks/{id}/ack", TypeJSON, NoRight, true},
	{RouteLimit, http.MethodPut, "/tasks/{id}/limit", TypeJSON, NoRight, true},
	{RouteManifest, http.MethodGet, "/tasks/{id}/manifest", "", NoRight, true},
	{RouteContent, http.MethodGet, "/tasks/{id}/content", "", NoRight, true},
	{RouteContent, http.MethodHead, "/tasks/{id}/content", "", NoRight, true},
	{RoutePieces, http.MethodGet, "/tasks/{id}/pieces", "", NoRight, true},
	{RouteFinish, http.MethodPost, "/tasks/{id}/finish", TypeJSON, NoRight, true},
	{RouteMissing, http.MethodGet, "/tasks/{id}/missing", "", NoRight, true},
	{RoutePutLines, http.MethodPut, "/tasks/{id}/manifest", TypeFeed, NoRight, true},
	{RoutePutFrames, http.MethodPut, "/tasks/{id}/pieces", TypeFrames, NoRight, true},
	{RoutePutBytes, http.MethodPut, "/tasks/{id}/content", TypeBytes, NoRight, true},
	{RouteReach, http.MethodGet, "/reach/{node}", "", MayStatus, false},
	{RouteCRL, http.MethodPut, "/crl", TypeCRL, NoRight, false},
	{RouteSelftest, http.MethodGet, "/selftest/{check:.*}", "", MaySelftest, false},
	{RouteSelftest, http.MethodHead, "/selftest/{check:.*}", "", MaySelftest, false},
	{RouteSelftest, http.MethodPost, "/selftest/{check:.*}", TypeBytes, MaySelftest, false},
}
