package transfer_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gantry/api"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// BenchmarkImport is a whole import without a network: hashing at both ends,
// writes, syncs and the rename, of a new file and of one that changed in one
// piece of 64; past the page cache and through it. On a busy machine believe the
// CPU time.
func BenchmarkImport(b *testing.B) {
	dir := b.TempDir()
	one := content(1, piece)
	for name, last := range map[string]byte{"odd": 1, "even": 2} {
		f, err := os.Create(filepath.Join(dir, name))
		require.NoError(b, err)
		for i := range 64 {
			one[0], one[1] = byte(i), 0
			if i == 63 {
				one[1] = last
			}
			_, err = f.Write(one)
			require.NoError(b, err)
		}
		require.NoError(b, f.Close())
	}
	for _, c := range []struct {
		name          string
		again, cached bool
	}{{"new", false, false}, {"new-cached", false, true}, {"changed", true, false}, {"changed-cached", true, true}} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(64 * piece)
			b.ReportAllocs()
			root, g := openRoot(b, dir), newTarget(b)
			var cpu time.Duration
			for i := 0; b.Loop(); i++ {
				b.StopTimer()
				var before, after unix.Rusage
				g.task = b.TempDir()
				if !c.again {
					g.root.Remove("disk")
				} else if old, err := os.Open(g.path()); err == nil { // into memory
					io.Copy(io.Discard, old)
					old.Close()
				}
				unix.Sync()
				x, err := transfer.OpenExport(root, []string{"even", "odd"}[i%2], b.TempDir(), transfer.Silent{})
				require.NoError(b, err)
				m := g.imp(direct{x})
				m.Mode, m.Cached = api.ModeReplace, c.cached
				b.StartTimer()
				unix.Getrusage(unix.RUSAGE_SELF, &before)
				_, err = m.Run(context.Background())
				unix.Getrusage(unix.RUSAGE_SELF, &after)
				require.NoError(b, err)
				cpu += time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
				x.Close()
			}
			b.ReportMetric(cpu.Seconds()*1e3/float64(b.N), "cpu-ms/op")
		})
	}
}
