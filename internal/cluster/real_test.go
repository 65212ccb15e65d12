package cluster_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"gantry/front"
	"gantry/internal/cluster"

	"github.com/stretchr/testify/require"
)

// realBlocks is how many 4 KiB blocks that are not zero the real input has: 500 MB.
const realBlocks = 500_000_000/4096 + 1

// TestRealInput copies what nobody made up for this test: the Go distribution,
// the module cache and /usr, as tar writes them.
func TestRealInput(t *testing.T) {
	t.Parallel()
	input := realInput(t)
	for i, kind := range []front.Kind{front.Lighttpd, front.Nginx} {
		for _, send := range []string{"stream", "front"}[i : i+1] {
			t.Run(string(kind)+" "+send, func(t *testing.T) {
				needFront(t, kind)
				c := newCluster(t, cluster.Options{Front: kind, Send: send}, func(c *cluster.Cluster) {
					src, err := os.Open(input)
					require.NoError(t, err)
					defer src.Close()
					require.NoError(t, c.CreateFile("alpha", "usr.tar", cluster.FillFrom(t.Context(), src)))
				})
				code, out, stderr := gantry(t, c, "copy", "alpha:disks/usr.tar", "beta:disks/usr.tar", "--json")
				require.Zero(t, code, "%s\n%s", out, stderr)
				require.True(t, same(t, input, c.Path("beta", "usr.tar")))
				require.Contains(t, out, b3sum(t, c.Path("beta", "usr.tar")), "the result names another digest than b3sum")
			})
		}
	}
}

// realInput writes the tar until it has enough blocks.
func realInput(t *testing.T) string {
	goenv, err := exec.Command("go", "env", "GOROOT", "GOMODCACHE").Output()
	require.NoError(t, err)
	dirs := append(strings.Fields(string(goenv)), "/usr")

	ctx, enough := context.WithCancel(t.Context())
	defer enough()
	tar := exec.CommandContext(ctx, "tar", append([]string{"--create", "--ignore-failed-read", "--warning=none"}, dirs...)...)
	tar.Stderr = io.Discard
	stream, err := tar.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, tar.Start())

	f, err := os.Create(t.TempDir() + "/usr.tar")
	require.NoError(t, err)
	defer f.Close()
	zero, block := make([]byte, 4096), make([]byte, 4096)
	blocks := 0
	for blocks < realBlocks {
		n, err := io.ReadFull(stream, block)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		require.NoError(t, err)
		if !bytes.Equal(block, zero) {
			blocks++
		}
		_, err = f.Write(block[:n])
		require.NoError(t, err)
	}
	enough()
	tar.Wait()
	if blocks < realBlocks {
		t.Skipf("needs 500 MB of files in %v, there are %d blocks", dirs, blocks)
	}
	info, err := f.Stat()
	require.NoError(t, err)
	t.Logf("%d bytes, %d blocks of 4 KiB that are not zero", info.Size(), blocks)
	return f.Name()
}
