package transfer_test

import (
	"context"
	"fmt"
	"syscall"
	"testing"

	"gantry/api"

	"github.com/stretchr/testify/require"
)

// TestTreeInjectedErrors fails the Nth operation of each kind on the stage, for
// every N, until a run meets none. The old tree stays, and a retry is done.
func TestTreeInjectedErrors(t *testing.T) {
	for _, c := range []struct {
		op   string
		errs error
		code *api.Code
	}{
		{"mkdir", syscall.ENOSPC, api.NoSpace}, {"write", syscall.ENOSPC, api.NoSpace}, {"write", syscall.EIO, api.IO},
		{"syncfs", syscall.EIO, api.IO}, {"last", syscall.EIO, api.IO},
	} {
		t.Run(fmt.Sprint(c.op, " ", c.errs), func(t *testing.T) {
			g := newTree(t)
			g.old(t, honest())
			sh(t, `rm "$1/d/sub/deep"`, g.at())
			before, failed := shape(t, g.at()), 0
			for n := 1; ; n++ {
				m := g.imp(second())
				m.Mode = api.ModeReplace
				hook, _ := faultAt(c.op, n, c.errs)
				m.Faults(hook)
				_, err := m.Run(context.Background())
				if err == nil {
					require.NotEqual(t, before, shape(t, g.at()))
					require.NoError(t, m.Discard())
					break
				}
				failed++
				requireCode(t, c.code, err)
				require.Equal(t, before, shape(t, g.at()))
				if c.op == "syncfs" {
					require.NoFileExists(t, g.task+"/tree.json", "after a failed sync nothing of the stage can be trusted")
				}
			}
			require.Positive(t, failed)
		})
	}
}
