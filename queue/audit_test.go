package queue_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"gantry/api"
	"gantry/queue"

	"github.com/stretchr/testify/require"
)

// audited is a closed store with ten entries, and its head.
func audited(t *testing.T) (string, api.AuditHead) {
	s, path := newStore(t)
	for k := range 10 {
		e, err := s.Audit(t.Context(), queue.AuditEntry{Who: "ann", What: "submit", Object: fmt.Sprint("job ", k), Decision: api.AuditAllowed, Reason: "grant 1 <&>\u2028"})
		require.NoError(t, err)
		require.Equal(t, int64(k+1), e.Seq)
	}
	head, err := s.VerifyAudit(t.Context())
	require.NoError(t, err)
	require.Equal(t, int64(10), head.Seq)
	kept, err := s.AuditHead(t.Context())
	require.NoError(t, err)
	require.Equal(t, head, kept)
	require.NoError(t, s.Close())
	return path, head
}

// Whoever can write to the file can write anything; the chain shows it.
func TestAuditShowsTampering(t *testing.T) {
	const free = "DROP TRIGGER audit_kept; DROP TRIGGER audit_same"
	for name, c := range map[string]struct {
		change, says string
		headOnly     bool // found against a kept head only
	}{
		"a changed text":      {free + "; UPDATE audit SET who = 'bob' WHERE seq = 4", "entry 4 was changed", false},
		"a changed time":      {free + "; UPDATE audit SET at = at + 1 WHERE seq = 1", "entry 1 was changed", false},
		"moved text":          {free + "; UPDATE audit SET who = 'an', what = 'nsubmit' WHERE seq = 1", "entry 1 was changed", false},
		"a removed entry":     {free + "; DELETE FROM audit WHERE seq = 5", "entry 6 follows 4", false},
		"the first removed":   {free + "; DELETE FROM audit WHERE seq = 1", "entry 2 follows 0", false},
		"removed, renumbered": {free + "; DELETE FROM audit WHERE seq = 5; UPDATE audit SET seq = seq - 1 WHERE seq > 5", "entry 5 does not continue", false},
		"two swapped":         {free + "; UPDATE audit SET seq = 99 WHERE seq = 2; UPDATE audit SET seq = 2 WHERE seq = 3; UPDATE audit SET seq = 3 WHERE seq = 99", "entry 2 does not continue", false},
		"an added entry":      {free + "; INSERT INTO audit SELECT 11, at, who, what, object, decision, reason, hash, hash FROM audit WHERE seq = 10", "entry 11 was changed", false},
		"cut off":             {free + "; DELETE FROM audit WHERE seq > 8", "it was cut off", true},
		"all gone":            {free + "; DELETE FROM audit", "it was cut off", true},
	} {
		t.Run(name, func(t *testing.T) {
			path, head := audited(t)
			behind(t, path, strings.Split(c.change, "; ")...)
			s := reopen(t, path)
			_, err := s.VerifyAudit(t.Context(), head)
			require.ErrorIs(t, err, queue.ErrAudit)
			require.ErrorContains(t, err, c.says)
			if _, err = s.VerifyAudit(t.Context()); c.headOnly {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, c.says)
				require.ErrorIs(t, s.Check(t.Context()), queue.ErrAudit)
				require.ErrorIs(t, s.Backup(t.Context(), filepath.Join(t.TempDir(), "b.db")), queue.ErrAudit)
			}
		})
	}
}

func TestAuditIsAppendOnly(t *testing.T) {
	path, head := audited(t)
	db := openSQL(t, path)
	for _, statement := range []string{"UPDATE audit SET who = 'bob'", "DELETE FROM audit"} {
		_, err := db.Exec(statement)
		require.ErrorContains(t, err, "append-only")
	}
	require.NoError(t, db.Close())
	s := reopen(t, path)
	_, err := s.VerifyAudit(t.Context(), head)
	require.NoError(t, err)
	entries, err := s.AuditEntries(t.Context(), 7, 2)
	require.NoError(t, err)
	require.Len(t, entries, 2)
	require.Equal(t, int64(8), entries[0].Seq)
	require.NoError(t, entries[1].Follows(&entries[0]), "whoever has entries can verify them")
}
