// Package access decides who a request speaks for and what he may do.
//
// Identity comes from the FastCGI parameters that a front sets, and is judged
// again here; rights come from the node's grants, and what no grant allows is
// refused:
//
//	gate, err := access.Open(node, log) // reads every file that node.toml names
//	…
//	if err := gate.Token.Check(params); err != nil { … }
//	caller, err := access.Identify(params, gate.Verifier, time.Now())
//	err = gate.Policy.Allows(caller, api.MayExport, "disks")
//
// Errors are wire errors (*feedback.Error) with a code of package api; their
// text is safe to send.
//
// It knows parameters, not requests: no HTTP, and in particular no header ever
// counts for identity. It does not decide who owns a task.
package access
