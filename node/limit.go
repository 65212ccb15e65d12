package node

import (
	"context"
	"io"
	"net/http"

	"gantry/api"
	"gantry/config"
	"gantry/internal/serve"
	"gantry/pki"
	"gantry/transfer"
)

// A bounded operation names what it is bound by: the limit that its arguments
// ask for, in bytes per second, and the node at the other end ("" for none).
type bounded interface {
	bandwidth() (perSec int64, peer string)
}

func (op *exportOp) bandwidth() (int64, string) {
	switch {
	case op.To != nil:
		return op.Bandwidth, op.To.Node
	case op.Reader != nil:
		return op.Bandwidth, nodeOf(op.Reader.ID)
	}
	return op.Bandwidth, ""
}

func (op *importOp) bandwidth() (int64, string) {
	if op.Push != nil {
		return op.Bandwidth, nodeOf(op.Push.ID)
	}
	return op.Bandwidth, op.Source.Node
}

// nodeOf is the name in a node's id, "" in another's.
func nodeOf(uri string) string {
	id, err := pki.ParseURI(uri)
	if err != nil || id.Role != pki.RoleNode {
		return ""
	}
	return id.Name
}

// limits are those of the task, of the node at its other end and of this node,
// which bind the content that it sends or receives. Call it after launch.
func (t *task) limits(op operation) transfer.Limits {
	_, peer := boundsOf(op)
	return transfer.Limits{&t.limit, t.node.peerLimits[peer], t.node.limit}
}

func boundsOf(op operation) (perSec int64, peer string) {
	if b, ok := op.(bounded); ok {
		return b.bandwidth()
	}
	return 0, ""
}

// bind gives the task the limit of its arguments, or the later one of a PUT. No
// lock of the task's is held.
func (t *task) bind(op operation) {
	perSec, _ := boundsOf(op)
	if f := t.snapshot(); f.Limit != nil {
		perSec = *f.Limit
	}
	t.limit.Set(perSec)
}

// relimit is PUT limit: durable before it counts.
func (t *task) relimit(perSec int64) error {
	if err := transfer.CheckBandwidth("bwlimit", perSec); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.file.Ended != nil {
		return api.TooLate.Err("the task has ended")
	}
	if t.file.Op != api.OpExport && t.file.Op != api.OpImport {
		return api.BadRequest.Err("bwlimit: a task of kind " + t.file.Op + " sends and receives no content")
	}
	if err := t.changeLocked("node.limit", func(f *taskFile) { f.Limit = &perSec }); err != nil {
		return err
	}
	t.limit.Set(perSec)
	if t.feed != nil {
		t.feed.Log("info", "", "bandwidth: "+bandwidthText(perSec))
	}
	return nil
}

func (n *Node) serveLimit(w http.ResponseWriter, r *http.Request) error {
	var req api.Limit
	if err := serve.ReadJSON(w, r, &req); err != nil {
		return err
	}
	t, err := n.own(r)
	if err != nil {
		return err
	}
	if n.isDraining() {
		return draining()
	}
	if err := t.relimit(req.Bandwidth); err != nil {
		return err
	}
	n.log.Info("bandwidth of a task changed", "task", t.id, "bytes_per_second", req.Bandwidth)
	return serve.JSON(w, http.StatusOK, req)
}

func bandwidthText(perSec int64) string {
	if perSec == 0 {
		return "no limit by the task any more"
	}
	return "at most " + config.FormatRate(perSec) + " a second from now on"
}

// limited returns a writer to out, which writes to w, for content under the
// export's limits: each part is sent at once, because what waits in a buffer looks like silence.
func (e *exporter) limited(ctx context.Context, w http.ResponseWriter, out io.Writer) io.Writer {
	return e.limits.Writer(ctx, out, http.NewResponseController(w).Flush)
}
