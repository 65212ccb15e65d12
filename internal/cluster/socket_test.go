package cluster_test

import (
	"os/exec"
	"testing"

	"gantry/config"
	"gantry/front"
	"gantry/internal/cluster"

	"github.com/stretchr/testify/require"
)

// TestPassedSocket runs responders on sockets that spawn-fcgi and systemd made.
func TestPassedSocket(t *testing.T) {
	t.Parallel()
	needFront(t, front.Lighttpd)
	for from, program := range map[string]string{config.SocketFD0: "spawn-fcgi", config.SocketSystemd: "systemd-socket-activate"} {
		t.Run(from, func(t *testing.T) {
			if _, err := exec.LookPath(program); err != nil {
				t.Skipf("needs %s: %v", program, err)
			}
			c := newCluster(t, cluster.Options{Front: front.Lighttpd, From: from}, func(c *cluster.Cluster) {
				random(t, c, "a.img", 1, 5<<20)
			})
			code, out, stderr := gantry(t, c, "copy", "alpha:disks/a.img", "beta:disks/a.img")
			require.Zero(t, code, "%s\n%s", out, stderr)
			require.True(t, same(t, c.Path("alpha", "a.img"), c.Path("beta", "a.img")))
		})
	}
}
