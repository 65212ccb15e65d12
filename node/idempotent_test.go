package node_test

import (
	"context"
	"fmt"
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

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// idAt makes a UUIDv7 of another time.
func idAt(t time.Time) string {
	u := uuid.Must(uuid.NewV7())
	ms := t.UnixMilli()
	for i := range 6 {
		u[i] = byte(ms >> (40 - 8*i))
	}
	return u.String()
}

func inode(t *testing.T, path string) uint64 {
	info, err := os.Stat(path)
	require.NoError(t, err)
	return info.Sys().(*syscall.Stat_t).Ino
}

// post sends the request once and returns the records of the reply.
func (m *machine) post(who string, req *api.TaskRequest) (reply, []feedback.Record, error) {
	r := m.ask(who, "POST", "/tasks", jsonType, string(api.Encode(req)))
	if r.status != 200 {
		return r, nil, nil
	}
	var all []feedback.Record
	err := feedback.NewReader(strings.NewReader(r.body), feedback.ReaderOptions{ID: req.ID}).Each(func(rec feedback.Record) error {
		all = append(all, rec)
		return nil
	})
	return r, all, err
}

func count(records []feedback.Record, state string) int {
	n := 0
	for _, rec := range records {
		if s, ok := rec.Body.(*feedback.State); ok && s.State == state {
			n++
		}
	}
	return n
}

// stored keeps the records that have a number: what every attach must repeat.
func stored(records []feedback.Record) []string {
	var lines []string
	for _, rec := range records {
		if rec.Seq > 0 {
			lines = append(lines, string(rec.Line))
		}
	}
	return lines
}

func TestSamePostManyTimes(t *testing.T) {
	w := newWorld(t, "", "alpha", "beta")
	alpha, beta := w.all["alpha"].start(), w.all["beta"].start()
	data := alpha.file("disks/vm1.img", 9<<20, 2)
	target := filepath.Join(beta.dir, "disks/vm1.img")
	beta.file("disks/vm1.img", 100, 3)
	before := inode(t, target)

	export, args := w.pair("vm1.img")
	args.Mode = api.ModeReplace
	alpha.follow("ann", export)

	req := newRequest(api.OpImport, args)
	const parallel = 100
	var wg sync.WaitGroup
	seen := make([][]string, parallel)
	for i := range parallel {
		wg.Go(func() {
			r, records, err := beta.post("ann", req)
			if err != nil || r.status != 200 {
				t.Errorf("post %d: HTTP %d, %v: %s", i, r.status, err, r.body)
				return
			}
			if n := count(records, api.StatePublishing); n != 1 {
				t.Errorf("post %d: %d publishing records, want 1", i, n)
			}
			seen[i] = stored(records)
		})
	}
	wg.Wait()
	for i := range parallel {
		require.Equal(t, seen[0], seen[i], "post %d saw other records", i)
	}
	require.Contains(t, seen[0][len(seen[0])-1], digest(data))
	after := inode(t, target)
	require.NotEqual(t, before, after)
	same := func(when string) {
		t.Helper()
		require.Equal(t, after, inode(t, target), "the file changed again %s", when)
	}

	t.Run("after the end", func(t *testing.T) {
		_, records, err := beta.post("ann", req)
		require.NoError(t, err)
		require.Equal(t, seen[0], stored(records))
		same("after the end")
	})
	t.Run("the same arguments written in another order", func(t *testing.T) {
		other := *req
		other.Args = reorder(t, req.Args)
		require.NotEqual(t, string(req.Args), string(other.Args))
		_, records, err := beta.post("ann", &other)
		require.NoError(t, err)
		require.Equal(t, seen[0], stored(records))
	})
	t.Run("after the ack", func(t *testing.T) {
		last := int64(len(seen[0]))
		require.NoError(t, beta.as("ann").Ack(context.Background(), req.ID, last))
		_, records, err := beta.post("ann", req)
		require.NoError(t, err)
		lines := stored(records)
		require.Equal(t, seen[0][last-1:], lines[len(lines)-1:])
		same("after the ack")
	})
	t.Run("after a restart", func(t *testing.T) {
		beta.restart()
		_, records, err := beta.post("ann", req)
		require.NoError(t, err)
		lines := stored(records)
		require.Equal(t, seen[0][len(seen[0])-1:], lines[len(lines)-1:])
		same("after a restart")
	})
	t.Run("D60 with another body", func(t *testing.T) {
		for _, change := range []func(*api.TaskRequest){
			func(r *api.TaskRequest) { r.RunFor = 7 },
			func(r *api.TaskRequest) { r.StallAfter = 7 },
			func(r *api.TaskRequest) { r.Op = api.OpDigest; r.Args = api.Encode(api.DigestArgs{File: args.File}) },
			func(r *api.TaskRequest) { a := args; a.Mode = api.ModeCreate; r.Args = api.Encode(a) },
		} {
			other := *req
			change(&other)
			r, _, _ := beta.post("ann", &other)
			require.Equal(t, "conflict", r.problem.Code, r.body)
			require.Equal(t, 409, r.status)
		}
		same("with another body")
	})
	t.Run("by another caller", func(t *testing.T) {
		r, _, _ := beta.post("bob", req)
		require.Equal(t, "conflict", r.problem.Code, r.body)
		same("by another caller")
	})
}

// reorder writes an object's members in reverse.
func reorder(t *testing.T, v api.Raw) api.Raw {
	var m map[string]api.Raw
	require.NoError(t, jsonUnmarshal(v, &m))
	var parts []string
	for k, x := range m {
		parts = append([]string{fmt.Sprintf(" %q : %s", k, x)}, parts...)
	}
	return api.Raw("{" + strings.Join(parts, ",") + "}")
}

func TestIDsOfOtherTimes(t *testing.T) {
	w := newWorld(t, "[limits]\nkeep_final = \"1ms\"", "alpha")
	alpha := w.all["alpha"].start()
	alpha.file("disks/a", 10, 1)
	args := api.DigestArgs{File: api.File{Resource: "disks", Path: "a"}}

	t.Run("from the future", func(t *testing.T) {
		req := newRequest(api.OpDigest, args)
		req.ID = idAt(time.Now().Add(6 * time.Minute))
		r, _, _ := alpha.post("ann", req)
		require.Equal(t, 409, r.status)
		require.Equal(t, "clock_ahead", r.problem.Code)
		require.Regexp(t, `made at \d{4}-.*Z, this node's clock says \d{4}-.*Z`, r.problem.Detail)
		require.True(t, r.problem.Retryable)
	})
	t.Run("a little ahead", func(t *testing.T) {
		req := newRequest(api.OpDigest, args)
		req.ID = idAt(time.Now().Add(4 * time.Minute))
		r, _, err := alpha.post("ann", req)
		require.NoError(t, err)
		require.Equal(t, 200, r.status)
	})
	req := newRequest(api.OpDigest, args)
	older := newRequest(api.OpDigest, args)
	older.ID = idAt(time.Now().Add(-time.Hour))
	t.Run("an hour old, and new here", func(t *testing.T) {
		rec, err := alpha.run("ann", older)
		resultOf[api.DigestResult](t, rec, err)
	})
	rec, err := alpha.run("ann", req)
	resultOf[api.DigestResult](t, rec, err)
	alpha.restart() // sweeps: every entry is older than keep_final
	require.Eventually(t, func() bool {
		list, err := alpha.as("ann").Tasks(context.Background(), "")
		return err == nil && len(list.Tasks) == 0
	}, 5*time.Second, 10*time.Millisecond)
	for name, req := range map[string]*api.TaskRequest{"forgotten": req, "older than a forgotten one": older} {
		t.Run(name, func(t *testing.T) {
			r, _, _ := alpha.post("ann", req)
			require.Equal(t, "too_old", r.problem.Code, r.body)
			_, err := os.Stat(filepath.Join(alpha.dir, "state/tasks", req.ID))
			require.ErrorIs(t, err, os.ErrNotExist)
		})
	}
	t.Run("the floor outlives a restart", func(t *testing.T) {
		alpha.restart()
		r, _, _ := alpha.post("ann", req)
		require.Equal(t, "too_old", r.problem.Code, r.body)
	})
}

func TestTasksGoOnAfterARestart(t *testing.T) {
	w := newWorld(t, "", "alpha", "beta")
	alpha, beta := w.all["alpha"].start(), w.all["beta"].start()
	data := alpha.file("disks/big", 20<<20, 5)
	export, args := w.pair("big")
	alpha.follow("ann", export)
	alpha.halt()

	req := newRequest(api.OpImport, args)
	final := make(chan feedback.Record, 1)
	starts := map[int]bool{}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		rec, err := beta.as("ann").Follow(ctx, client.Run{Request: req}, func(rec feedback.Record) error {
			if h, ok := rec.Body.(*feedback.Hello); ok {
				starts[h.Start] = true
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		final <- rec
	}()
	waitForTask(beta, "ann", req.ID)
	beta.restart() // the import waits for its source, which is down
	require.Equal(t, 2, waitForTask(beta, "ann", req.ID).Start)
	alpha.start()
	require.Equal(t, 2, waitForTask(alpha, "ann", export.ID).Start)

	result := resultOf[api.ImportResult](t, <-final, nil)
	require.Equal(t, digest(data), result.Digest)
	require.True(t, starts[1] && starts[2], "starts seen: %v", starts)
	require.Equal(t, 1, countPublishing(t, beta, req))

	t.Run("the source is told after a restart too", func(t *testing.T) {
		require.Eventually(t, func() bool {
			info, err := alpha.as("ann").Task(context.Background(), export.ID)
			return err == nil && info.Outcome == api.Done
		}, 20*time.Second, 20*time.Millisecond)
	})
}

func countPublishing(t *testing.T, m *machine, req *api.TaskRequest) int {
	_, records, err := m.post("ann", req)
	require.NoError(t, err)
	return count(records, api.StatePublishing)
}
