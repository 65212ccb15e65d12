package transfer_test

import (
	"context"
	"os"
	"syscall"
	"testing"

	"gantry/api"

	"github.com/stretchr/testify/require"
)

// TestTreeStagedOld: a file of the stage that an earlier attempt linked to the old
// tree may be open in another program. What that writes is not published.
func TestTreeStagedOld(t *testing.T) {
	for name, data := range map[string][]byte{"one piece": []byte("alpha"), "several pieces": content(3, 2*piece+17)} {
		t.Run(name, func(t *testing.T) {
			g, s := newTree(t), &script{}
			if len(data) > piece {
				s.bigFile("a", data)
			} else {
				s.file("a", string(data))
			}
			g.old(t, s)
			s.file("b", "beta")
			imp := func(last func() error) error {
				m := g.imp(s)
				m.Mode = api.ModeReplace
				m.Faults(func(op string) error {
					if op == "last" {
						return last()
					}
					return nil
				})
				_, err := m.Run(context.Background())
				return err
			}
			requireCode(t, api.IO, imp(func() error { return syscall.EIO }))
			open, err := os.OpenFile(g.at("a"), os.O_WRONLY, 0)
			require.NoError(t, err)
			defer open.Close()
			require.NoError(t, os.Remove(g.at("a")))
			if err := imp(func() error {
				_, err := open.WriteAt([]byte("ALPHA"), 0)
				return err
			}); err != nil {
				requireCode(t, api.TargetChanged, err)
				return
			}
			b, err := os.ReadFile(g.at("a"))
			require.NoError(t, err)
			require.Equal(t, sum(data), sum(b), "published")
		})
	}
}
