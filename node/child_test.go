package node_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"gantry/node"

	"github.com/stretchr/testify/require"
	"github.com/yookoala/gofast"
)

// childMode makes this test binary another program: a stranger who speaks to
// the socket, or a whole responder under its own uid.
const childMode = "as-child"

func child(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var err error
	switch args[0] {
	case "ask":
		err = askSocket(os.Stdout, args[1], args[2], "")
	case "probe":
		err = node.Probe(ctx, args[1])
	case "run":
		err = node.Run(ctx, node.Options{ConfigPath: args[1], Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// askSocket makes a GET over FastCGI and prints status and body.
func askSocket(out io.Writer, socket, path, cert string) error {
	rec, err := direct(socket, "GET", path, cert, nil)
	if err == nil {
		_, err = fmt.Fprintf(out, "%d %s", rec.Code, rec.Body.String())
	}
	return err
}

// direct makes a request over FastCGI, as a front would; Code is 0 when nobody
// answered.
func direct(socket, method, path, cert string, params map[string]string) (*httptest.ResponseRecorder, error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return nil, err
	}
	c, err := gofast.SimpleClientFactory(func() (net.Conn, error) { return conn, nil })()
	if err != nil {
		return nil, err
	}
	req := gofast.NewRequest(nil)
	req.Params = map[string]string{
		"REQUEST_METHOD": method, "REQUEST_URI": path, "SERVER_PROTOCOL": "HTTP/1.1", "HTTPS": "on",
		"SSL_CLIENT_VERIFY": "SUCCESS", "SSL_CLIENT_CERT": cert, "CONTENT_LENGTH": "0",
	}
	maps.Copy(req.Params, params)
	pipe, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	rec := httptest.NewRecorder()
	rec.Code = 0
	return rec, pipe.WriteTo(rec, io.Discard)
}

// asUID runs this binary in another mode and under another uid.
func asUID(t *testing.T, uid uint32, args ...string) (out string, err error) {
	t.Helper()
	cmd := command(t, uid, args...)
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	err = cmd.Run()
	return b.String(), err
}

func command(t *testing.T, uid uint32, args ...string) *exec.Cmd {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to become another user")
	}
	// The go command keeps test binaries where only their builder may go.
	binary := filepath.Join(os.TempDir(), "node.test.copy")
	if _, err := os.Stat(binary); err != nil {
		data, err := os.ReadFile("/proc/self/exe")
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(binary, data, 0o755))
		t.Cleanup(func() { os.Remove(binary) })
	}
	cmd := exec.Command(binary, append([]string{childMode}, args...)...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	return cmd
}

const (
	stranger = 58299 // a uid that nothing runs under
	gantry   = 58260 // the responder's
)

func TestOnlyTheFrontMaySpeak(t *testing.T) {
	w := newWorld(t, "", "alpha")
	alpha := w.all["alpha"].start()
	socket := filepath.Join(alpha.dir, "s")
	require.NoError(t, os.Chmod(socket, 0o777))
	cert := string(pemOf(w.ids["ann"]))

	var b bytes.Buffer
	require.NoError(t, askSocket(&b, socket, "/node/v1/status", cert))
	require.Contains(t, b.String(), "200 ", "the front itself")

	t.Run("another uid, socket 0777 in an open directory", func(t *testing.T) {
		for _, path := range []string{"/node/v1/status", "/healthz"} {
			out, err := asUID(t, stranger, "ask", socket, path)
			require.NotContains(t, out, "200 ", path)
			if err == nil {
				require.Equal(t, "0 ", out, "%s: it was answered", path)
			}
		}
	})
}

// ownedBy gives a machine's files to a uid.
func (m *machine) ownedBy(uid int) {
	require.NoError(m.t, filepath.WalkDir(m.dir, func(path string, _ os.DirEntry, err error) error {
		if err == nil && filepath.Base(path) != "s" {
			err = os.Lchown(path, uid, uid)
		}
		return err
	}))
}

func TestResponderUnderItsOwnUID(t *testing.T) {
	w := newWorld(t, "", "alpha")
	alpha := w.all["alpha"]
	alpha.file("disks/a", 100, 1)
	alpha.ownedBy(gantry)
	cmd := command(t, gantry, "run", alpha.config)
	cmd.Stderr = alpha.log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
	})
	socket := filepath.Join(alpha.dir, "s")
	require.Eventually(t, func() bool {
		_, err := asUID(t, gantry, "probe", alpha.config)
		return err == nil
	}, 20*time.Second, 50*time.Millisecond)
	info, err := os.Stat(socket)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o660), info.Mode().Perm())

	t.Run("its own uid may ask for health alone", func(t *testing.T) {
		out, err := asUID(t, gantry, "ask", socket, "/healthz")
		require.NoError(t, err, out)
		require.Contains(t, out, "200 ")
		out, err = asUID(t, gantry, "ask", socket, "/node/v1/status")
		require.NoError(t, err, out)
		require.Contains(t, out, "403 ")
		require.Contains(t, out, "front_not_trusted")
	})
	t.Run("the front may ask anything", func(t *testing.T) {
		r := alpha.ask("ann", "GET", "/status", nil, "")
		require.Equal(t, http.StatusOK, r.status, r.body)
		require.Contains(t, r.body, `"isolated":true`)
	})
	t.Run("a second one is refused and leaves the socket alone", func(t *testing.T) {
		out, err := asUID(t, gantry, "run", alpha.config)
		require.Error(t, err)
		require.Contains(t, out, "used by another responder")
		require.Equal(t, 200, alpha.ask("ann", "GET", "/status", nil, "").status)
	})
	t.Run("killed, it starts again over its stale socket", func(t *testing.T) {
		export, _ := w.pair("a")
		alpha.follow("ann", export)
		require.NoError(t, cmd.Process.Kill())
		require.Error(t, cmd.Wait())
		cmd = command(t, gantry, "run", alpha.config)
		cmd.Stderr = alpha.log
		require.NoError(t, cmd.Start())
		require.Eventually(t, func() bool {
			info, err := alpha.as("ann").Task(t.Context(), export.ID)
			return err == nil && info.Start == 2
		}, 20*time.Second, 50*time.Millisecond)
	})
	t.Run("SIGTERM drains and ends well", func(t *testing.T) {
		require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
		require.NoError(t, cmd.Wait())
		_, err := os.Stat(socket)
		require.ErrorIs(t, err, os.ErrNotExist)
	})
}

func TestRootIsRefused(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to be refused as root")
	}
	w := newWorld(t, "", "alpha")
	err := node.Run(t.Context(), node.Options{ConfigPath: w.all["alpha"].config})
	require.ErrorContains(t, err, "never runs as root")
}
