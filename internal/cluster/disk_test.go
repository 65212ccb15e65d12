package cluster_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gantry/api"
	"gantry/client"
	"gantry/feedback"
	"gantry/front"
	"gantry/internal/cluster"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// small puts a tmpfs of so many bytes in the place of a folder, until the test
// ends.
func small(t *testing.T, dir string, size int64) {
	t.Helper()
	info, err := os.Stat(dir)
	require.NoError(t, err)
	st := info.Sys().(*syscall.Stat_t)
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=%o,uid=%d,gid=%d", size, info.Mode().Perm(), st.Uid, st.Gid)))
	// Lazily: the servers, which end later, still have it open.
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
}

func grow(t *testing.T, dir string, size int64) {
	t.Helper()
	require.NoError(t, unix.Mount("", dir, "", unix.MS_REMOUNT, fmt.Sprintf("size=%d", size)))
}

// fillUp takes all space of a file system but left bytes, and returns what gives
// it back.
func fillUp(t *testing.T, dir string, left int64) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	require.NoError(t, err)
	defer f.Close()
	for buf := make([]byte, 64<<10); ; {
		var s unix.Statfs_t
		require.NoError(t, unix.Statfs(dir, &s))
		room := int64(s.Bavail)*s.Bsize - left
		if room <= 0 {
			break
		}
		_, err := f.Write(buf[:min(room, int64(len(buf)))])
		if errors.Is(err, unix.ENOSPC) {
			break
		}
		require.NoError(t, err)
	}
	return func() { require.NoError(t, os.Remove(path)) }
}

// diskSize is the source's. Twice that is room for the old file and the new one.
const diskSize = 24 << 20

func needMount(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a tmpfs")
	}
}

// TestDiskFull: a full disk is a clear error and changes nothing; when there is
// space again the same command gets there.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	needMount(t)
	resource := func(c *cluster.Cluster) string { return filepath.Dir(c.Path("beta", "x")) }
	newFull := func(t *testing.T, size int64) *killing {
		k := &killing{c: newCluster(t, cluster.Options{Front: installedFront(), Proxied: true}, func(c *cluster.Cluster) {
			small(t, resource(c), size)
			random(t, c, "src.img", 3, diskSize)
		})}
		k.putOld(t, "t.img")
		return k
	}
	args := []string{"copy", "alpha:disks/src.img", "beta:disks/t.img", "--replace"}
	full := func(t *testing.T, k *killing, code int, stderr string) {
		t.Helper()
		require.Equal(t, api.ExitFailed, code, stderr)
		require.Contains(t, stderr, api.NoSpace.Name)
		require.Contains(t, stderr, api.NoSpace.Remedy)
		require.True(t, equals(t, k.c.Path("beta", "t.img"), cluster.Random(1, oldSize)), "the old file was changed")
	}
	again := func(t *testing.T, k *killing) {
		t.Helper()
		code, out, stderr := gantry(t, k.c, args...)
		require.Zero(t, code, "%s\n%s", out, stderr)
		require.True(t, same(t, k.c.Path("alpha", "src.img"), k.c.Path("beta", "t.img")))
	}

	t.Run("before the first byte", func(t *testing.T) {
		k := newFull(t, diskSize)
		code, _, stderr := gantry(t, k.c, args...)
		full(t, k, code, stderr)
		require.Less(t, k.c.Proxy("alpha").Sent(), int64(1<<20), "content was fetched for a target that has no room")
		grow(t, resource(k.c), 2*diskSize)
		again(t, k)
	})
	t.Run("in the middle", func(t *testing.T) {
		k := newFull(t, 2*diskSize)
		p := k.c.Proxy("alpha")
		p.Limit(20 << 20)
		cmd := start(t, k.c, nil, args...)
		require.Eventually(t, func() bool { return p.Sent() > diskSize/3 }, 20*time.Second, time.Millisecond)
		free := fillUp(t, resource(k.c), 0)
		p.Limit(0)
		code := cmd.code(t)
		full(t, k, code, cmd.err.String())
		free()
		again(t, k)
	})
	// A node that cannot write its own records stops and says so; its
	// supervisor starts it again until it can.
	t.Run("the node's own folder", func(t *testing.T) {
		var own string
		k := &killing{c: newCluster(t, cluster.Options{Front: installedFront(), Proxied: true}, func(c *cluster.Cluster) {
			own = filepath.Join(c.Dir(), "beta", "node", "dir")
			small(t, own, 1<<20)
			random(t, c, "src.img", 3, diskSize)
		})}
		k.putOld(t, "t.img")
		p := k.c.Proxy("alpha")
		p.Limit(20 << 20)
		cmd := start(t, k.c, nil, args...)
		require.Eventually(t, func() bool { return p.Sent() > diskSize/3 }, 20*time.Second, time.Millisecond)
		free := fillUp(t, own, 0)
		p.Limit(0)
		// Or the import meets it first, with its piece map, and its end still fits
		// into the room that was kept for it.
		died := func() bool { p := k.c.Process("beta/node"); return p.Starts > 1 || p.Ended != "" }
		require.Eventually(t, func() bool {
			select {
			case <-cmd.done:
				return true
			default:
				return died()
			}
		}, 30*time.Second, time.Millisecond)
		log, err := os.ReadFile(k.c.Log("beta/node"))
		require.NoError(t, err)
		require.Contains(t, string(log), "no space left on device")
		require.True(t, equals(t, k.c.Path("beta", "t.img"), cluster.Random(1, oldSize)), "the old file was changed")
		free()
		// The import itself may have met the full disk first, with its piece map.
		if code := cmd.code(t); code != api.ExitDone {
			require.Equal(t, api.ExitFailed, code, "%s\n%s", &cmd.out, &cmd.err)
			require.Contains(t, cmd.err.String(), api.NoSpace.Name)
			again(t, k)
		}
		require.True(t, same(t, k.c.Path("alpha", "src.img"), k.c.Path("beta", "t.img")))
	})
}

// equals compares a file with what want reads.
func equals(t *testing.T, path string, want io.Reader) bool {
	t.Helper()
	is, err := os.ReadFile(path)
	require.NoError(t, err)
	should, err := io.ReadAll(want)
	require.NoError(t, err)
	return bytes.Equal(is, should)
}

// TestBrokenJournal: a node whose fsync of a journal fails says so and exits;
// started again it goes on with the task. The record whose fsync failed is never
// shown, although it was in the file: its number is given to another.
func TestBrokenJournal(t *testing.T) {
	t.Parallel()
	for _, x := range []struct{ action, want string }{
		// Undisturbed: running, lost (a connection that is cut), publishing, result.
		{"error@1", "running lost publishing result"},
		{"error@2", "running running publishing result"},
		{"error-after@3", "running lost running publishing result"},
		{"error@4", "running lost publishing running publishing result"},
	} {
		t.Run(x.action, func(t *testing.T) {
			c := newCluster(t, cluster.Options{Program: program(t, "failpoints"), Front: front.EmbeddedServer, Proxied: true}, func(c *cluster.Cluster) {
				random(t, c, "src.img", 3, diskSize)
			})
			arm(t, c, "beta/node", "feedback.append.sync="+x.action)
			before := c.Process("beta/node").Starts
			c.Proxy("alpha").Cut(1, diskSize)
			seen := importInto(t, c, "t.img")

			require.Equal(t, before+1, c.Process("beta/node").Starts, "starts of the responder")
			log, err := os.ReadFile(c.Log("beta/node"))
			require.NoError(t, err)
			require.Contains(t, string(log), "the node's own records cannot be written; stopping")
			require.Contains(t, string(log), "injected failure")
			require.True(t, same(t, c.Path("alpha", "src.img"), c.Path("beta", "t.img")))

			var words, lines []string
			for _, rec := range seen {
				lines = append(lines, string(rec.Line)+"\n")
				words = append(words, word(rec))
			}
			require.Equal(t, x.want, strings.Join(words, " "), "%s", lines)
			journals, err := filepath.Glob(filepath.Join(c.Dir(), "beta", "node", "dir", "tasks", "*", "feed"))
			require.NoError(t, err)
			require.Len(t, journals, 1)
			text, err := os.ReadFile(journals[0])
			require.NoError(t, err)
			_, records, _ := strings.Cut(string(text), "\n") // after the header
			require.Equal(t, records, strings.Join(lines, ""), "shown, and not what is in the journal")
		})
	}
}

// word says in one what a stored record of an import is.
func word(rec feedback.Record) string {
	switch body := rec.Body.(type) {
	case *feedback.State:
		return body.State
	case *feedback.Log:
		if strings.Contains(body.Text, "connection lost") {
			return "lost"
		}
		return body.Text
	}
	return string(rec.Kind)
}

// arm restarts a server with failpoints, for that start only.
func arm(t *testing.T, c *cluster.Cluster, name, points string) {
	t.Helper()
	require.NoError(t, c.Once(name, "GANTRY_FAILPOINTS="+points))
	before := c.Process(name).Starts
	require.NoError(t, c.Kill(name))
	require.NoError(t, c.Await(deadline(t), name, func(p cluster.Process) bool { return p.Starts > before && p.PID != 0 }))
	require.NoError(t, c.Ready(t.Context()))
}

// importInto makes an export and an import, follows both, acknowledges nothing,
// and returns the import's stored records.
func importInto(t *testing.T, c *cluster.Cluster, target string) (seen []feedback.Record) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ticket, reader := api.NewTicket(), "spiffe://"+cluster.Name+"/node/beta"
	export := &api.TaskRequest{ID: api.NewID(), Op: api.OpExport, Args: api.Encode(api.ExportArgs{
		File: api.File{Resource: cluster.Resource, Path: "src.img"}, Reader: &api.Reader{ID: reader, TicketSHA256: api.TicketSHA256(ticket)},
	})}
	pull := &api.TaskRequest{ID: api.NewID(), Op: api.OpImport, Args: api.Encode(api.ImportArgs{
		File: api.File{Resource: cluster.Resource, Path: target}, Source: api.Source{Node: "alpha", Task: export.ID, Ticket: ticket},
	})}
	alpha, beta := c.Client("alpha"), c.Client("beta")
	defer alpha.Close()
	defer beta.Close()
	var exporting sync.WaitGroup
	begun := make(chan struct{})
	exporting.Go(func() {
		begin := sync.OnceFunc(func() { close(begun) })
		_, _ = alpha.Follow(ctx, client.Run{Request: export}, func(feedback.Record) error { begin(); return nil })
	})
	<-begun
	final, err := beta.Follow(ctx, client.Run{Request: pull}, func(rec feedback.Record) error {
		require.NotEqual(t, feedback.KindGap, rec.Kind)
		if rec.Seq > 0 {
			rec.Line = bytes.Clone(rec.Line)
			seen = append(seen, rec)
		}
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, feedback.KindResult, final.Kind, "%s", final.Line)
	exporting.Wait()
	return seen
}
