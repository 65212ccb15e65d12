package node

import (
	"testing"
	"time"

	"gantry/access"
	"gantry/api"
	"gantry/internal/serve"
	"gantry/pki"

	"github.com/stretchr/testify/require"
)

// FuzzTaskBody reads any text as the body of POST tasks. What is taken means the
// same when it is written again, and what is refused is refused with a code.
func FuzzTaskBody(f *testing.F) {
	ann := access.Caller{ID: pki.ID{Cluster: "demo", Role: pki.RoleOperator, Name: "ann"}}
	hub := access.Caller{ID: pki.ID{Cluster: "demo", Role: pki.RoleMaster, Name: "hub"}}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, data []byte) {
		var req api.TaskRequest
		refused := func(err error) bool {
			if err == nil {
				return false
			}
			require.NotEqual(t, api.Internal.Name, serve.Wire(err).Code, "%v", err)
			require.Less(t, len(err.Error()), 1000)
			return true
		}
		if refused(serve.DecodeJSON(data, &req, "the body")) {
			return
		}
		byAnn, byHub := checkRequest(&req, ann), checkRequest(&req, hub)
		if refused(byHub) {
			require.True(t, refused(byAnn) || req.By == ann.ID.String(), "a master may all that an operator may")
			return
		}
		refused(checkTime(req.ID, now, now.Add(-time.Hour)))
		op, err := decodeOperation(req.Op, req.Args)
		if refused(err) {
			return
		}
		require.Contains(t, api.Rights, op.right())
		require.NotEmpty(t, op.file().Resource)
		hash, err := bodyHash(&req)
		if refused(err) {
			return
		}
		var again api.TaskRequest
		require.NoError(t, serve.DecodeJSON(api.Encode(&req), &again, "the body"))
		same, err := bodyHash(&again)
		require.NoError(t, err)
		require.Equal(t, hash, same)
	})
}
