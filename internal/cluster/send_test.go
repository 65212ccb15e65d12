package cluster_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gantry/api"
	"gantry/client"
	"gantry/config"
	"gantry/feedback"
	"gantry/front"
	"gantry/internal/cluster"
	"gantry/pki"

	"github.com/stretchr/testify/require"
)

// oddNames are files whose paths must be escaped in a header, and would mean
// something else where they are not.
var oddNames = []string{
	"plain.img",
	"two  spaces .img",
	"100%25 %2e%2e%2Fx %.img",
	"größe ☃.img",
	"a+b&c=d;e,f.img",
	"what?is#this.img",
	`"quotes" 'and' \back\ <angle>.img`,
	"-/send/$uri.img",
}

const sendSize = 20<<20 + 77 // two requests of an importer

// TestSendFront copies through fronts that send the files themselves: nothing
// of the content passes the responder, every byte is right, and nobody gets at
// the files but through the responder's judgement.
func TestSendFront(t *testing.T) {
	t.Parallel()
	for _, kind := range []front.Kind{front.Lighttpd, front.Nginx} {
		t.Run(string(kind), func(t *testing.T) {
			needFront(t, kind)
			data, err := io.ReadAll(cluster.Random(5, sendSize))
			require.NoError(t, err)
			c := newCluster(t, cluster.Options{Front: kind, Send: "front"}, func(c *cluster.Cluster) {
				owner, err := os.Stat(c.Path("alpha", ""))
				require.NoError(t, err)
				for _, name := range []string{"-", "-/send"} { // its user removes them
					require.NoError(t, os.Mkdir(c.Path("alpha", name), 0o755))
					uid := int(owner.Sys().(*syscall.Stat_t).Uid)
					require.NoError(t, os.Chown(c.Path("alpha", name), uid, uid))
				}
				for _, name := range oddNames {
					random(t, c, name, 5, sendSize)
				}
				require.NoError(t, os.Symlink("plain.img", c.Path("alpha", "link")))
				require.NoError(t, os.Symlink("-", c.Path("alpha", "linked")))
				require.NoError(t, os.Symlink("/etc/passwd", c.Path("alpha", "passwd")))
			})
			for i, name := range oddNames {
				t.Run("copy "+name, func(t *testing.T) {
					target := fmt.Sprintf("copy-%d", i)
					code, out, stderr := gantry(t, c, "copy", "alpha:disks/"+name, "beta:disks/"+target)
					require.Zero(t, code, "%s\n%s", out, stderr)
					require.True(t, same(t, c.Path("alpha", name), c.Path("beta", target)))
					require.Zero(t, sentByResponder(t, c, name), "bytes that passed through the responder")
				})
			}
			t.Run("ranges", func(t *testing.T) { sendRanges(t, c, data) })
			t.Run("links", func(t *testing.T) { sendLinks(t, c) })
			t.Run("replaced meanwhile", func(t *testing.T) { sendReplaced(t, c, data) })
			t.Run("past the responder", func(t *testing.T) { sendPast(t, c) })
		})
	}
}

// sentByResponder is what the newest export of a file says.
func sentByResponder(t *testing.T, c *cluster.Cluster, name string) int64 {
	exports := (&killing{c: c}).list(t, "alpha", api.OpExport, name)
	require.NotEmpty(t, exports)
	cl := c.Client("alpha")
	defer cl.Close()
	var result api.ExportResult
	require.Eventually(t, func() bool { // told after the copy's end
		info, err := cl.Task(t.Context(), exports[0].ID)
		if err != nil || info.Final == nil {
			return false
		}
		rec, err := feedback.Decode(info.Final)
		if err != nil {
			return false
		}
		body, ok := rec.Body.(*feedback.Result)
		return ok && api.DecodeBytes(body.Value, &result) == nil
	}, 10*time.Second, 10*time.Millisecond)
	require.Equal(t, int64(sendSize), result.Size)
	return result.Sent
}

// export starts an export of the operator's own; final gives its last record.
func export(t *testing.T, c *cluster.Cluster, name string) (id string, final <-chan feedback.Record) {
	t.Helper()
	cl := c.Client("alpha")
	req := &api.TaskRequest{ID: api.NewID(), Op: api.OpExport, Args: api.Encode(api.ExportArgs{File: api.File{Resource: cluster.Resource, Path: name}})}
	ctx, cancel := context.WithCancel(t.Context())
	done, out := make(chan struct{}), make(chan feedback.Record, 1)
	running := make(chan struct{}, 1)
	go func() {
		defer close(done)
		rec, err := cl.Follow(ctx, client.Run{Request: req}, func(rec feedback.Record) error {
			select {
			case running <- struct{}{}:
			default:
			}
			return nil
		})
		if err == nil {
			out <- rec
		}
	}()
	t.Cleanup(func() {
		err := cl.Cancel(context.Background(), req.ID)
		t.Log("cancelling the export:", err)
		cancel()
		<-done
		cl.Close()
	})
	select {
	case <-running:
	case <-time.After(20 * time.Second):
		require.FailNow(t, "the export did not start")
	}
	return req.ID, out
}

func sendRanges(t *testing.T, c *cluster.Cluster, data []byte) {
	id, _ := export(t, c, oddNames[2])
	cl := c.Client("alpha")
	defer cl.Close()
	r := rand.New(rand.NewPCG(1, 2))
	type part struct{ off, length int64 }
	parts := []part{{0, 1}, {0, sendSize}, {sendSize - 1, 1}, {4<<20 - 1, 2}, {16 << 20, sendSize - 16<<20}, {1, sendSize - 1}}
	for range 30 {
		off := r.Int64N(sendSize)
		parts = append(parts, part{off, 1 + r.Int64N(min(sendSize-off, 1<<20))})
	}
	for _, p := range parts {
		body, err := cl.Content(t.Context(), id, "", p.off, p.length)
		require.NoError(t, err, "%d bytes from %d", p.length, p.off)
		got, err := io.ReadAll(body)
		body.Close()
		require.NoError(t, err, "%d bytes from %d", p.length, p.off)
		require.True(t, string(got) == string(data[p.off:p.off+p.length]), "%d bytes from %d differ", p.length, p.off)
	}
	_, err := cl.Content(t.Context(), id, "", sendSize, 1)
	require.Equal(t, api.BadRange.Name, wireCode(t, err))
}

func wireCode(t *testing.T, err error) string {
	t.Helper()
	var wire *feedback.Error
	require.ErrorAs(t, err, &wire)
	return wire.Code
}

// sendLinks: a link is no regular file, wherever it leads.
func sendLinks(t *testing.T, c *cluster.Cluster) {
	for _, name := range []string{"link", "passwd"} {
		code, out, stderr := gantry(t, c, "copy", "alpha:disks/"+name, "beta:disks/of-"+name)
		require.NotZero(t, code, "%s\n%s", out, stderr)
		require.Contains(t, stderr, "regular", name)
		require.NoFileExists(t, c.Path("beta", "of-"+name))
	}
	// Through a folder that is a link within the resource: no front would, so the
	// responder sends.
	name := "linked/send/$uri.img"
	code, out, stderr := gantry(t, c, "copy", "alpha:disks/"+name, "beta:disks/of-linked")
	require.Zero(t, code, "%s\n%s", out, stderr)
	require.True(t, same(t, c.Path("alpha", name), c.Path("beta", "of-linked")))
	require.EqualValues(t, sendSize, sentByResponder(t, c, name))
}

// sendReplaced: the file's name leads to another file during the export.
func sendReplaced(t *testing.T, c *cluster.Cluster, data []byte) {
	name := "plain.img"
	id, final := export(t, c, name)
	cl := c.Client("alpha")
	defer cl.Close()
	body, err := cl.Content(t.Context(), id, "", 5, 10)
	require.NoError(t, err)
	got, err := io.ReadAll(body)
	body.Close()
	require.NoError(t, err)
	require.Equal(t, data[5:15], got)

	// The same size and content, and another inode.
	other := c.Path("alpha", ".new")
	require.NoError(t, os.WriteFile(other, data, 0o644))
	require.NoError(t, os.Rename(other, c.Path("alpha", name)))
	_, err = cl.Content(t.Context(), id, "", 5, 10)
	require.Equal(t, api.SourceChanged.Name, wireCode(t, err))
	select {
	case rec := <-final:
		require.Equal(t, api.SourceChanged.Name, rec.Body.(*feedback.Error).Code)
	case <-time.After(10 * time.Second):
		require.Fail(t, "the export did not end")
	}
}

// sendPast asks the front for the file itself, with the certificate of an
// operator who may export everything.
func sendPast(t *testing.T, c *cluster.Cluster) {
	dir := t.TempDir() // a key is only read by its owner, and the operator's is not ours
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"ca.pem", "cert.pem", "key.pem"} {
		text, err := os.ReadFile(filepath.Join(c.Home(), name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(at(name), text, 0o400))
	}
	id, err := pki.LoadIdentity(at("ca.pem"), at("cert.pem"), at("key.pem"))
	require.NoError(t, err)
	nodes, err := config.LoadCluster(filepath.Join(c.Home(), "cluster.toml"))
	require.NoError(t, err)
	node, _ := nodes.Node("alpha")
	addr := strings.TrimPrefix(node.URL, "https://")
	name := url.PathEscape(oddNames[1])
	file := c.Path("alpha", "")
	for _, path := range []string{
		"/-/send/disks/" + name, "/%2d/send/disks/" + name, "//-/send/disks/" + name, "/-/send/disks/../disks/" + name, "/-/send/",
		"/node/v1/../../-/send/disks/" + name, "/node/v1/%2e%2e/%2e%2e/-/send/disks/" + name,
		"/disks/" + name, "/" + name, file + "/" + name, "/node/v1/" + name,
	} {
		conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", addr, pki.ClientTLS(id, "alpha", nil))
		require.NoError(t, err)
		require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
		_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: alpha\r\nX-Sendfile: %s/plain.img\r\nX-Accel-Redirect: /-/send/disks/plain.img\r\nConnection: close\r\n\r\n", path, file)
		require.NoError(t, err)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err, path)
		require.Contains(t, []int{http.StatusNotFound, http.StatusBadRequest, http.StatusForbidden}, resp.StatusCode, path)
		require.Less(t, resp.ContentLength, int64(10_000), path)
		resp.Body.Close()
		conn.Close()
	}
}
