package cluster_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"gantry/api"
	"gantry/front"
	"gantry/internal/cluster"

	"github.com/stretchr/testify/require"
)

// shortCuts is how often TestCuts cuts each copy in its short form.
const shortCuts = 10

var cutsEach = flag.Int("cuts", shortCuts, "how often TestCuts cuts each copy")

const (
	cutSize = 160 << 20
	// cutCost is what a cut may send twice, and overhead what TLS, HTTP and
	// manifests add.
	cutCost  = api.MaxRange
	overhead = cutSize / 20
)

// TestCuts cuts the connections of a copy again and again: it goes on, and what
// has arrived does not come again.
func TestCuts(t *testing.T) {
	t.Parallel()
	for _, kind := range []front.Kind{front.Lighttpd, front.Nginx} {
		t.Run(string(kind), func(t *testing.T) {
			needFront(t, kind)
			c := newCluster(t, cluster.Options{Front: kind, Proxied: true, Dirs: []string{"trees"}, Extra: func(_, dir string) string {
				return fmt.Sprintf("\n[[resource]]\nname = \"trees\"\nkind = \"tree\"\npath = %q\nwritable = true\n", filepath.Join(dir, "trees"))
			}}, func(c *cluster.Cluster) { random(t, c, "src", 4, cutSize) })
			tree := filepath.Join(c.NodeDir("alpha"), "trees", "src")
			for i := range 400 {
				path := filepath.Join(tree, fmt.Sprintf("d%02d/f%03d", i%20, i))
				require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
				f, err := os.Create(path)
				require.NoError(t, err)
				require.NoError(t, cluster.Fill(t.Context(), f, cluster.Random(uint64(i), cutSize/400)))
				require.NoError(t, f.Close())
			}
			own(t, c, tree)
			for i, direction := range []string{"--pull", "--push"} {
				for j, resource := range []string{cluster.Resource, "trees"} {
					// In the short form every pair of front, direction and resource once.
					if *cutsEach <= shortCuts && (i == j) != (kind == front.Lighttpd) {
						continue
					}
					t.Run(direction[2:]+" "+resource, func(t *testing.T) { cutCopy(t, c, direction, resource) })
				}
			}
		})
	}
}

func cutCopy(t *testing.T, c *cluster.Cluster, direction, resource string) {
	p, sent := c.Proxy("alpha"), c.Proxy("alpha").Sent
	if direction == "--push" {
		p, sent = c.Proxy("beta"), c.Proxy("beta").Received
	}
	before, cuts := sent(), p.Cuts()
	rng := rand.New(rand.NewPCG(theSeed(t), 0))
	var at []int64
	for range *cutsEach {
		at = append(at, rng.Int64N(cutSize*95/100))
	}
	slices.Sort(at)
	p.CutAt(at, direction == "--push")
	target := "dst" + direction
	code, out, stderr := gantry(t, c, "copy", direction, "alpha:"+resource+"/src", "beta:"+resource+"/"+target)
	require.Zero(t, code, "%s\n%s", out, stderr)
	from, to := filepath.Join(c.NodeDir("alpha"), resource, "src"), filepath.Join(c.NodeDir("beta"), resource, target)
	if resource == "trees" {
		sameTree(t, from, to)
	} else {
		require.True(t, same(t, from, to))
	}
	cuts = p.Cuts() - cuts
	twice := sent() - before - cutSize
	t.Logf("cuts: %d, %d bytes sent twice or for TLS and manifests", cuts, twice)
	require.GreaterOrEqual(t, cuts, *cutsEach*8/10, "too few cuts prove nothing")
	require.LessOrEqual(t, twice, int64(cuts)*cutCost+overhead)
}
