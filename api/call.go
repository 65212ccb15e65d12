package api

import "time"

// Operations of a call: what one asks of many nodes at once.
const (
	CallStatus    = "status"    // GET status
	CallResources = "resources" // GET resources
	CallList      = "list"      // the first page of a folder of a resource
	CallCheck     = "check"     // may the node's user read and write a resource
	CallDigest    = "digest"    // a digest task, to its end
	CallReach     = "reach"     // does a neighbour answer the node
	CallSelftest  = "selftest"  // what the front told the responder about this caller
	CallCRL       = "crl"       // PUT crl
)

// A CallOp is one of them.
type CallOp struct {
	Name  string
	Right Right // that each node asks for, on Resource if the operation has one
	Usage string
	// Changes says that the call changes something at the node: without an
	// answer its outcome is unknown.
	Changes bool
}

// CallOps is the closed set, in the order in which it is shown.
var CallOps = []CallOp{
	{CallStatus, MayStatus, "status", false},
	{CallResources, MayList, "resources", false},
	{CallList, MayList, "list RESOURCE[/PATH]", false},
	{CallCheck, MayList, "check RESOURCE[/PATH]", false},
	{CallDigest, MayDigest, "digest RESOURCE[/PATH]", true},
	{CallReach, MayStatus, "reach NODE", false},
	{CallSelftest, MaySelftest, "selftest", false},
	{CallCRL, NoRight, "crl [FILE]", true},
}

// CallOpOf finds an operation by name; nil when there is none.
func CallOpOf(name string) *CallOp {
	for i := range CallOps {
		if CallOps[i].Name == name {
			return &CallOps[i]
		}
	}
	return nil
}

// Limits of a call.
const (
	MaxCallNodes   = 4096
	MaxCallWaves   = 64
	MaxCallWindow  = 1024
	MaxCallTimeout = 24 * 3600 // seconds
	// MaxCallAnswer bounds the answer of one node, in bytes: it is the value of a
	// record.
	MaxCallAnswer = 24 << 10
	// MaxCallCRL bounds a revocation list that a call carries, in bytes. A greater
	// one is sent by gantry ca crl --push.
	MaxCallCRL = 128 << 10
)

// CallSpec is what a call asks for: a job of kind "call" has it as its call.
type CallSpec struct {
	Nodes []string `json:"nodes"` // names, each once, in the order in which they are called
	Op    string   `json:"op"`
	Args  CallArgs `json:"args,omitzero"`

	Window  int   `json:"window,omitzero"`  // nodes at a time; 0 = 64
	Timeout int64 `json:"timeout,omitzero"` // seconds for each node; 0 = 30
	// Waves are numbers ("3"), shares ("10%") or "rest"; a wave begins when the one
	// before has ended.
	Waves []string `json:"waves,omitempty"`
	// MaxFailed is how many nodes, or which share of them, may end otherwise than
	// done ("3", "10%") while further ones are begun; "" = any.
	MaxFailed string `json:"max_failed,omitzero"`
	// Sample calls so many of the nodes, which Seed chooses; 0 = all.
	Sample int    `json:"sample,omitzero"`
	Seed   uint64 `json:"seed,omitzero"`
	// RetryOf is the call whose nodes are called again.
	RetryOf string `json:"retry_of,omitzero"`
}

// CallArgs are the arguments of a call's operation; those that it does not have
// are empty.
type CallArgs struct {
	Resource string `json:"resource,omitzero"` // of list, check, digest
	Path     string `json:"path,omitzero"`
	Full     bool   `json:"full,omitzero"` // of digest
	Node     string `json:"node,omitzero"` // of reach
	CRL      []byte `json:"crl,omitzero"`  // DER
}

// CallAnswer is the value of a node's result record in a call's feed. Of a node
// that is not done, the error record has one as its detail, without Answer.
type CallAnswer struct {
	Answer  Raw       `json:"answer,omitzero"`   // what the operation returned
	Seconds float64   `json:"seconds"`           // that it took
	Pin     string    `json:"pin,omitzero"`      // of the key that the node's front showed
	PinRole string    `json:"pin_role,omitzero"` // current, next, emergency or listed; "": not pinned
	Expires time.Time `json:"expires,omitzero"`  // of the front's certificate
}

// CallResult is the value of a call's result, or the detail of its error. The
// nodes' own answers are in the feed's task records.
type CallResult struct {
	Op      string             `json:"op"`
	Nodes   int                `json:"nodes"`
	Counts  map[Outcome]int    `json:"counts"`            // outcomes without nodes are left out
	NotDone map[Outcome]string `json:"not_done,omitzero"` // node sets, folded; cut where they are very long
	Sample  int                `json:"sample,omitzero"`
	Seed    uint64             `json:"seed,omitzero"`
	Seconds float64            `json:"seconds"`
}

// Exit is the exit code of a call: unknown weighs more than anything else.
func (r *CallResult) Exit() int {
	switch {
	case r.Counts[Unknown] > 0:
		return ExitUnknown
	case r.Counts[Done] < r.Nodes:
		return ExitFailed
	}
	return ExitDone
}
