package main

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gantry/api"
	"gantry/client"
	"gantry/feedback"
	"gantry/internal/cluster"

	"github.com/stretchr/testify/require"
)

// outside is a cluster with a master, and a file of size bytes at this side.
func outside(t *testing.T, size int64) (c *cluster.Cluster, m *client.Master, home, file string) {
	c, home = newClusterOf(t, cluster.Options{Master: "hub"})
	m = c.MasterClient()
	t.Cleanup(m.Close)
	file = filepath.Join(t.TempDir(), "vm1.img")
	f, err := os.Create(file)
	require.NoError(t, err)
	_, err = io.Copy(f, cluster.Random(1, size))
	require.NoError(t, err)
	require.NoError(t, f.Close())
	return c, m, home, file
}

// begun is a command with its standard error, which was read up to a text.
func begun(t *testing.T, cmd *exec.Cmd, until string) *strings.Builder {
	t.Helper()
	pipe, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var text strings.Builder
	lines := bufio.NewScanner(pipe)
	for !strings.Contains(text.String(), until) {
		require.True(t, lines.Scan(), "%s", &text)
		text.WriteString(lines.Text() + "\n")
	}
	done := make(chan struct{})
	go func() { defer close(done); _, _ = io.Copy(io.Discard, pipe) }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-done })
	return &text
}

func onlyJob(t *testing.T, m *client.Master) *api.Job {
	t.Helper()
	list, err := m.Jobs(t.Context(), nil)
	require.NoError(t, err)
	require.Len(t, list.Jobs, 1)
	j, err := m.Job(t.Context(), list.Jobs[0].ID)
	require.NoError(t, err)
	return j
}

// TestRecordedFromOutside: a transfer from a file of this machine is recorded at
// the master while it goes, is watched from elsewhere, goes on as the same job
// after its command was killed, and has one end.
func TestRecordedFromOutside(t *testing.T) {
	c, m, home, file := outside(t, 96<<20)
	state := t.TempDir()
	args := []string{"import", file, "beta:disks/vm1.img", "--bwlimit", "12M"}
	cmd := command(t, home, state, args...)
	begun(t, cmd, "is recorded at master hub")
	first := onlyJob(t, m)
	require.Equal(t, api.JobRunning, first.State)
	require.Equal(t, "spiffe://"+cluster.Name+"/operator/operator", first.Driver)
	elsewhere := t.TempDir()
	list, err := command(t, home, elsewhere, "jobs").CombinedOutput()
	require.NoError(t, err, "%s", list)
	require.Regexp(t, ` running +hub, by operator +import `+file+` beta:disks/vm1.img`, string(list))

	// Somebody else sees it move.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	moved := errTest("it moves")
	_, err = m.Watch(ctx, first.ID, 0, nil, func(rec feedback.Record) error {
		if p, ok := rec.Body.(*feedback.Progress); ok && p.Done > 0 && strings.HasPrefix(p.Item, "beta:") {
			return moved
		}
		return nil
	})
	require.ErrorIs(t, err, moved)

	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	require.Equal(t, api.JobRunning, onlyJob(t, m).State, "not done, and not yet lost")
	out, err := command(t, home, state, args...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "going on with job")
	done := onlyJob(t, m)
	require.Equal(t, first.ID, done.ID)
	require.Equal(t, api.JobDone, done.State)

	// Each record of the driver's own feed is there once, and in its order.
	feed, finals, driven := map[string]int{}, 0, 0
	_, err = m.Watch(ctx, done.ID, 0, nil, func(rec feedback.Record) error {
		if body, ok := rec.Body.(*feedback.Task); ok {
			feed[body.Task+string(body.Record)]++
		}
		if body, ok := rec.Body.(*feedback.Log); ok && strings.Contains(body.Text, "driven by") {
			driven++
		}
		if rec.Kind.Final() {
			finals++
		}
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, 1, finals)
	require.Equal(t, 1, driven)
	for line, n := range feed {
		require.Equal(t, 1, n, line)
	}
	require.FileExists(t, c.Path("beta", "vm1.img"))
	list, err = command(t, home, state, "jobs").CombinedOutput()
	require.NoError(t, err)
	require.Equal(t, 2, strings.Count(string(list), "\n"), "one job has one line: %s", list)

	// What comes from a node to here, and what is compared with it, too.
	back := filepath.Join(t.TempDir(), "back")
	out, err = command(t, home, state, "export", "beta:disks/vm1.img", back).CombinedOutput()
	require.NoError(t, err, "%s", out)
	out, err = command(t, home, state, "verify", "beta:disks/vm1.img", back).CombinedOutput()
	require.NoError(t, err, "%s", out)
	jobs, err := m.Jobs(t.Context(), nil)
	require.NoError(t, err)
	for k, kind := range []string{"verify", "export", "import"} {
		require.Equal(t, kind, jobs.Jobs[k].Kind)
		require.Equal(t, api.JobDone, jobs.Jobs[k].State)
	}
}

type errTest string

func (e errTest) Error() string { return string(e) }

// TestCancelledFromOutside: who cancels such a job at the master ends the command
// that drives it.
func TestCancelledFromOutside(t *testing.T) {
	c, m, home, file := outside(t, 64<<20)
	cmd := command(t, home, t.TempDir(), "import", file, "beta:disks/vm1.img", "--bwlimit", "1M")
	begun(t, cmd, "is recorded at master hub")
	out, err := command(t, home, t.TempDir(), "cancel", onlyJob(t, m).ID).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Equal(t, api.ExitFailed, exitOf(cmd.Wait()))
	j := onlyJob(t, m)
	require.Equal(t, api.JobCancelled, j.State)
	require.Equal(t, j.Driver, j.CancelBy)
	require.NoFileExists(t, c.Path("beta", "vm1.img"))
}

// TestRecordedLater: without a master the transfer goes on and says so once; the
// master hears of it when it is back.
func TestRecordedLater(t *testing.T) {
	c, m, home, file := outside(t, 1<<20)
	state := t.TempDir()
	list := filepath.Join(home, "cluster.toml")
	text, err := os.ReadFile(list)
	require.NoError(t, err)
	head, tail, ok := strings.Cut(string(text), "[[master]]")
	require.True(t, ok)
	url := tail[strings.Index(tail, "https://"):strings.LastIndex(tail, "\"")]
	require.NoError(t, os.WriteFile(list, []byte(head+"[[master]]"+strings.Replace(tail, url, "https://127.0.0.1:1", 1)), 0o600))
	out, err := command(t, home, state, "import", file, "beta:disks/vm1.img").CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Equal(t, 1, strings.Count(string(out), "master hub cannot be reached"), "%s", out)
	require.Contains(t, string(out), "master hub does not know that job")
	require.FileExists(t, c.Path("beta", "vm1.img"))
	require.NoError(t, os.WriteFile(list, text, 0o600))
	_, id, _ := strings.Cut(string(out), "gantry watch ")
	out, err = command(t, home, state, "watch", strings.Fields(id)[0]).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Equal(t, api.JobDone, onlyJob(t, m).State)
	// Once more changes nothing.
	out, err = command(t, home, state, "watch", strings.Fields(id)[0]).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NotContains(t, string(out), "does not record")
}
