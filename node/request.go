package node

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"gantry/access"
	"gantry/api"
	"gantry/pki"
)

// unknownTask is the one text for a task that is not there and for one that
// belongs to somebody else.
const unknownTask = "there is no such task here"

// bodyHash is the SHA-256 of what makes two requests the same, in the canonical
// form of RFC 8785.
func bodyHash(req *api.TaskRequest) (string, error) {
	v := api.Encode(struct {
		Op         string  `json:"op"`
		Args       api.Raw `json:"args"`
		RunFor     int64   `json:"run_for"`
		StallAfter int64   `json:"stall_after"`
	}{req.Op, req.Args, req.RunFor, req.StallAfter})
	if err := v.Canonicalize(); err != nil {
		return "", api.BadRequest.Err("args: it is not JSON that has a canonical form")
	}
	sum := sha256.Sum256(v)
	return hex.EncodeToString(sum[:]), nil
}

// maxSeconds bounds run_for and stall_after: 30 days, as long as finals are kept.
const maxSeconds = int64(api.KeepFinal / time.Second)

// checkRequest refuses what no node would take.
func checkRequest(req *api.TaskRequest, caller access.Caller) error {
	switch {
	case !api.ValidID(req.ID):
		return api.BadRequest.Err("id: it is not a UUIDv7 in lower case with hyphens")
	case len(req.Args) == 0:
		return api.BadRequest.Err("args: they are missing")
	case req.RunFor < 0 || req.RunFor > maxSeconds:
		return api.BadRequest.Err(fmt.Sprintf("run_for: allowed are 0 to %d seconds", maxSeconds))
	case req.StallAfter < 0 || req.StallAfter > maxSeconds:
		return api.BadRequest.Err(fmt.Sprintf("stall_after: allowed are 0 to %d seconds", maxSeconds))
	}
	if req.By == "" || req.By == caller.ID.String() {
		return nil
	}
	if _, err := pki.ParseURI(req.By); err != nil {
		return api.BadRequest.Err("by: it is not spiffe://CLUSTER/ROLE/NAME")
	}
	if caller.ID.Role != pki.RoleMaster {
		return api.Forbidden.Err("by: only a master may ask in another's name")
	}
	return nil
}

// checkTime refuses ids that cannot be told from a forgotten one, or whose
// maker's clock is wrong.
func checkTime(id string, now, floor time.Time) error {
	at := api.IDTime(id)
	if at.Sub(now) > api.ClockAhead {
		return api.AheadOfUs.Err(fmt.Sprintf("the id was made at %s, this node's clock says %s", stamp(at), stamp(now)))
	}
	if !at.After(floor) {
		return api.TooOld.Err(fmt.Sprintf("the id was made at %s, this node has forgotten tasks up to %s", stamp(at), stamp(floor)))
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z07:00") }
