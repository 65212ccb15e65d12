package master_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gantry/api"
	"gantry/pki"

	"github.com/stretchr/testify/require"
)

func sum(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b)) }

// entries is the whole audit log, oldest first, each proved to follow the one
// before.
func (w *world) entries() (all []api.AuditEntry) {
	w.t.Helper()
	prev := api.AuditEntry{}
	for {
		page := into[api.AuditList](w.t, w.ask("root", "GET", fmt.Sprintf("/audit?limit=7&after=%d", prev.Seq), nil, ""))
		for _, e := range page.Entries {
			require.NoError(w.t, e.Follows(&prev))
			prev = e
		}
		all = append(all, page.Entries...)
		if len(page.Entries) == 0 {
			require.Equal(w.t, prev.Seq, page.Last)
			return all
		}
	}
}

func TestAuditSaysWhoDidWhat(t *testing.T) {
	w := newWorld(t, "").start()
	j := w.submit("ann", "a")
	require.Equal(t, 202, w.ask("root", "DELETE", "/jobs/"+j.ID, nil, "").status)
	require.Equal(t, 404, w.ask("bob", "DELETE", "/jobs/"+j.ID, nil, "").status)
	require.Equal(t, 403, w.ask("bob", "POST", "/jobs", jsonType, later(digestSpec("a"))).status)
	require.Equal(t, 403, w.ask("eve", "GET", "/audit", nil, "").status)
	require.Equal(t, 200, w.ask("ann", "GET", "/jobs", nil, "").status, "reading what one may is no entry")
	require.Equal(t, 201, w.ask(self, "POST", "/jobs/"+j.ID+"/retry", jsonType, "{}").status)

	cert := map[string]string{}
	for _, name := range []string{"ann", "bob", "eve", "root"} {
		data, err := os.ReadFile(filepath.Join(w.dir, name, "cert.pem"))
		require.NoError(t, err)
		c, err := pki.ParseCertPEM(data)
		require.NoError(t, err)
		cert[name] = sum(c.Raw)
	}
	type row struct{ who, what, object, decision, reason string }
	var got []row
	for _, e := range w.entries() {
		require.NotEmpty(t, e.Time)
		got = append(got, row{e.Who, e.What, strings.ReplaceAll(e.Object, j.ID, "JOB"), e.Decision, e.Reason})
	}
	require.Len(t, got, 6)
	self := fmt.Sprintf("local:%d", os.Getuid())
	named := func(name string) string { return "spiffe://demo/operator/" + name + " sha256:" + cert[name] }
	require.Equal(t, row{named("ann"), "submit", "JOB: digest alpha:disks/a", "allowed", "a grant for each node"}, got[0])
	require.Equal(t, row{named("root"), "cancel job", "JOB", "allowed", "right jobs:cancel"}, got[1])
	require.Equal(t, row{named("bob"), "cancel job", "JOB", "refused", "unknown_job"}, got[2])
	require.Equal(t, row{named("bob"), "submit", "digest alpha:disks/a", "refused", "forbidden"}, got[3])
	require.Equal(t, row{named("eve"), "audit", "", "refused", "forbidden"}, got[4])
	require.Equal(t, self, got[5].who)
	require.Equal(t, "the master's own user", got[5].reason)
}

// Whoever is refused all day writes no more than a line a second.
func TestRefusalsDoNotFillTheDisk(t *testing.T) {
	w := newWorld(t, "").start()
	for range 300 {
		require.Equal(t, 403, w.ask("eve", "GET", "/audit", nil, "").status)
	}
	n := len(w.entries())
	require.GreaterOrEqual(t, n, 50)
	require.Less(t, n, 150)
}

// What cannot be written down is not done.
func TestWithoutAuditNothingIsDone(t *testing.T) {
	w := newWorld(t, "").start()
	j := w.submit("ann", "a")
	w.server.BreakAudit(context.DeadlineExceeded)
	for _, r := range []reply{
		w.ask("ann", "POST", "/jobs", jsonType, later(digestSpec("b"))),
		w.ask("ann", "DELETE", "/jobs/"+j.ID, nil, ""),
		w.ask(self, "POST", "/jobs", jsonType, later(digestSpec("b"))),
	} {
		require.Equal(t, 503, r.status, r.body)
		require.Equal(t, "audit_failed", r.problem.Code)
	}
	require.Equal(t, 403, w.ask("bob", "POST", "/jobs", jsonType, later(digestSpec("a"))).status, "refused all the same")
	list := into[api.JobList](t, w.ask("ann", "GET", "/jobs", nil, ""))
	require.Len(t, list.Jobs, 1)
	require.Equal(t, api.JobQueued, list.Jobs[0].State)
	w.server.BreakAudit(nil)
	require.Equal(t, 202, w.ask("ann", "DELETE", "/jobs/"+j.ID, nil, "").status)
}
