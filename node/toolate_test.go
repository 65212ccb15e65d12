//go:build failpoints

package node_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gantry/api"
	"gantry/feedback"

	"github.com/stretchr/testify/require"
)

// From the point of no return a DELETE is too late: it is refused, and the
// import ends done. Before it, the import ends cancelled and nothing is there.
func TestFailpointTooLate(t *testing.T) {
	for _, c := range []struct {
		point string // where the import waits while it is cancelled
		late  bool
	}{
		{"transfer.publish.sync", false},
		{"node.publishing.write", true},
		{"transfer.publish.rename", true},
		{"transfer.publish.targetdir", true},
	} {
		t.Run(c.point, func(t *testing.T) {
			w := newWorld(t, "", "alpha", "beta")
			alpha, beta := w.all["alpha"].start(), w.all["beta"]
			data, old := alpha.file("disks/a", 1000, 1), beta.file("disks/a", 10, 2)
			target := filepath.Join(beta.dir, "disks/a")
			beta.ownedBy(gantry)
			k := keep(t, beta, c.point+"=delay:1s")
			l := &life{T: t, k: k, beta: beta, target: target, finals: map[string]string{}}
			export, args := w.pair("a")
			args.Mode = api.ModeReplace
			alpha.follow("ann", export)
			req := newRequest(api.OpImport, args)
			l.again("starting", func() bool { return beta.begin(req) == http.StatusOK })
			l.again("reaching the point", func() bool {
				text, err := os.ReadFile(k.log)
				return err == nil && strings.Contains(string(text), c.point+"=delay\n")
			})
			r := beta.ask("ann", "DELETE", "/tasks/"+req.ID, nil, "")
			var final feedback.Record
			if final = l.end(req, nil); !c.late {
				require.Equal(t, http.StatusAccepted, r.status, r.body)
				require.Equal(t, "cancelled", codeOf(t, final, nil))
				text, err := os.ReadFile(target)
				require.NoError(t, err)
				require.Equal(t, old, text)
				l.again("removing the stage", func() bool {
					left, err := filepath.Glob(filepath.Join(beta.dir, "disks/.gantry/*"))
					return err == nil && len(left) == 0
				})
				return
			}
			require.Equal(t, http.StatusConflict, r.status, r.body)
			require.Equal(t, "too_late", r.problem.Code)
			require.Equal(t, digest(data), resultOf[api.ImportResult](t, final, nil).Digest)
			text, err := os.ReadFile(target)
			require.NoError(t, err)
			require.Equal(t, data, text)
			require.Equal(t, "too_late", beta.ask("ann", "DELETE", "/tasks/"+req.ID, nil, "").problem.Code, "after the end")
		})
	}
}
