package node_test

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gantry/api"
	"gantry/config"
	"gantry/feedback"
	"gantry/node"

	"github.com/stretchr/testify/require"
)

// receive waits for a final.
func receive(t *testing.T, final <-chan feedback.Record) feedback.Record {
	t.Helper()
	select {
	case rec := <-final:
		return rec
	case <-time.After(20 * time.Second):
		t.Fatal("no final record within 20 s")
		return feedback.Record{}
	}
}

func TestCancel(t *testing.T) {
	w := newWorld(t, "", "alpha", "beta")
	alpha, beta := w.all["alpha"].start(), w.all["beta"].start()
	alpha.file("disks/a", 1000, 1)

	t.Run("an export", func(t *testing.T) {
		export, _ := w.pair("a")
		final := alpha.follow("ann", export)
		r := alpha.ask("ann", "DELETE", "/tasks/"+export.ID, nil, "")
		require.Equal(t, http.StatusAccepted, r.status, r.body)
		require.Equal(t, "cancelled", codeOf(t, receive(t, final), nil))
		require.Equal(t, http.StatusAccepted, alpha.ask("ann", "DELETE", "/tasks/"+export.ID, nil, "").status, "again")
		require.Equal(t, "too_late", alpha.ask("ann", "GET", "/tasks/"+export.ID+"/content", nil, "").problem.Code)
	})
	t.Run("an import that waits for its source", func(t *testing.T) {
		alpha.halt()
		_, args := w.pair("a")
		req := newRequest(api.OpImport, args)
		final := beta.follow("ann", req)
		require.Equal(t, http.StatusAccepted, beta.ask("ann", "DELETE", "/tasks/"+req.ID, nil, "").status)
		require.Equal(t, "cancelled", codeOf(t, receive(t, final), nil))
		left, err := filepath.Glob(filepath.Join(beta.dir, "disks/.gantry/*"))
		require.NoError(t, err)
		require.Empty(t, left, "stages left")
		alpha.start()
	})
	t.Run("after the end", func(t *testing.T) {
		req := newRequest(api.OpDigest, api.DigestArgs{File: api.File{Resource: "disks", Path: "a"}})
		rec, err := alpha.run("ann", req)
		resultOf[api.DigestResult](t, rec, err)
		r := alpha.ask("ann", "DELETE", "/tasks/"+req.ID, nil, "")
		require.Equal(t, "too_late", r.problem.Code)
		require.Equal(t, 409, r.status)
	})
}

// The source refuses before the first line of its manifest.
func TestImportFromNothing(t *testing.T) {
	w := newWorld(t, "", "alpha", "beta")
	alpha, beta := w.all["alpha"].start(), w.all["beta"].start()
	alpha.file("disks/a", 1000, 1)
	for range 20 {
		_, args := w.pair("a")
		rec, err := beta.run("ann", newRequest(api.OpImport, args))
		require.Equal(t, "unknown_task", codeOf(t, rec, err))
	}
	t.Run("with another's ticket", func(t *testing.T) {
		export, args := w.pair("a")
		alpha.follow("ann", export)
		args.Source.Ticket = api.NewTicket()
		rec, err := beta.run("ann", newRequest(api.OpImport, args))
		require.Equal(t, "unknown_task", codeOf(t, rec, err))
	})
	require.NoFileExists(t, filepath.Join(beta.dir, "disks/a"))
}

func TestDigest(t *testing.T) {
	w := newWorld(t, "", "alpha")
	alpha := w.all["alpha"].start()
	run := func(who, resource, path string) (feedback.Record, error) {
		return alpha.run(who, newRequest(api.OpDigest, api.DigestArgs{File: api.File{Resource: resource, Path: path}}))
	}
	for name, size := range map[string]int{"empty": 0, "small": 5, "piece": 4 << 20, "odd": 13<<20 + 777} {
		data := alpha.file("frozen/"+name, size, 1)
		rec, err := run("bob", "frozen", name)
		got := resultOf[api.DigestResult](t, rec, err)
		require.Equal(t, api.DigestResult{Digest: digest(data), Size: int64(size)}, got, name)
	}
	t.Run("what is not there", func(t *testing.T) {
		rec, err := run("bob", "frozen", "nothing")
		require.Equal(t, "not_found", codeOf(t, rec, err))
	})
	t.Run("a folder, a link, a pipe", func(t *testing.T) {
		require.NoError(t, os.Symlink("empty", filepath.Join(alpha.dir, "frozen/link")))
		for _, path := range []string{"link"} {
			rec, err := run("bob", "frozen", path)
			require.Equal(t, "not_regular", codeOf(t, rec, err), path)
		}
	})
	t.Run("without the right", func(t *testing.T) {
		for _, c := range [][2]string{{"bob", "disks"}, {"bob", "nosuch"}, {"hub", "frozen"}} {
			r, _, _ := alpha.post(c[0], newRequest(api.OpDigest, api.DigestArgs{File: api.File{Resource: c[1], Path: "empty"}}))
			require.Equal(t, 403, r.status)
			require.Equal(t, "forbidden", r.problem.Code)
		}
		r, _, _ := alpha.post("bob", newRequest(api.OpExport, api.ExportArgs{File: api.File{Resource: "frozen", Path: "empty"}}))
		require.Equal(t, "forbidden", r.problem.Code)
	})
}

func TestBounds(t *testing.T) {
	w := newWorld(t, "[limits]\ntasks = 2", "alpha", "beta")
	alpha, beta := w.all["alpha"].start(), w.all["beta"].start()
	alpha.file("disks/a", 1000, 1)

	t.Run("nothing moves", func(t *testing.T) {
		export, _ := w.pair("a")
		export.StallAfter = 1
		require.Equal(t, "stalled", codeOf(t, receive(t, alpha.follow("ann", export)), nil))
	})
	t.Run("time is up", func(t *testing.T) {
		export, _ := w.pair("a")
		export.RunFor = 1
		final := alpha.follow("ann", export)
		require.Equal(t, "run_for", codeOf(t, receive(t, final), nil))
	})
	t.Run("one writer per target", func(t *testing.T) {
		alpha.halt() // so that the import waits
		_, args := w.pair("a")
		first := newRequest(api.OpImport, args)
		final := beta.follow("ann", first)
		r, _, _ := beta.post("ann", newRequest(api.OpImport, args))
		require.Equal(t, 409, r.status)
		require.Equal(t, "busy", r.problem.Code)
		require.JSONEq(t, `{"task":"`+first.ID+`"}`, string(r.problem.More))
		beta.restart()
		r, _, _ = beta.post("ann", newRequest(api.OpImport, args))
		require.Equal(t, "busy", r.problem.Code, "after a restart")

		args.Path = "b"
		second := newRequest(api.OpImport, args)
		beta.follow("ann", second)
		args.Path = "c"
		third := newRequest(api.OpImport, args)
		r, _, _ = beta.post("ann", third)
		require.Equal(t, 503, r.status)
		require.Equal(t, "too_many", r.problem.Code)
		require.True(t, r.problem.Retryable)
		require.NoError(t, beta.as("ann").Cancel(context.Background(), first.ID))
		receive(t, final)
		require.Eventually(t, func() bool { // a refused id was never used
			r := beta.ask("ann", "DELETE", "/tasks/"+third.ID, nil, "")
			return r.problem.Code == "unknown_task"
		}, time.Second, 10*time.Millisecond)
		require.NoError(t, beta.as("ann").Cancel(context.Background(), second.ID))
	})
	t.Run("an import into a frozen resource", func(t *testing.T) {
		_, args := w.pair("a")
		args.Resource = "frozen"
		r, _, _ := beta.post("ann", newRequest(api.OpImport, args))
		require.Equal(t, "denied", r.problem.Code)
	})
	t.Run("an import from a node that is in no list", func(t *testing.T) {
		_, args := w.pair("a")
		args.Source.Node = "gamma"
		r, _, _ := beta.post("ann", newRequest(api.OpImport, args))
		require.Equal(t, "not_found", r.problem.Code)
	})
}

func TestExportOfAChangedFile(t *testing.T) {
	w := newWorld(t, "", "alpha")
	alpha := w.all["alpha"].start()
	t.Run("while it runs", func(t *testing.T) {
		alpha.file("disks/a", 1000, 1)
		export, _ := w.pair("a")
		final := alpha.follow("ann", export)
		require.Equal(t, 200, alpha.ask("ann", "HEAD", "/tasks/"+export.ID+"/content", nil, "").status)
		alpha.file("disks/a", 2000, 2)
		r := alpha.ask("ann", "GET", "/tasks/"+export.ID+"/content", nil, "")
		require.Equal(t, 409, r.status)
		require.Equal(t, "source_changed", r.problem.Code)
		require.Equal(t, "source_changed", codeOf(t, receive(t, final), nil))
	})
	t.Run("while the responder is down", func(t *testing.T) {
		alpha.file("disks/b", 1000, 1)
		export, _ := w.pair("b")
		final := alpha.follow("ann", export)
		// An export that nobody has asked yet may not have opened its file.
		require.Equal(t, 200, alpha.ask("ann", "HEAD", "/tasks/"+export.ID+"/content", nil, "").status)
		alpha.halt()
		require.NoError(t, os.Remove(filepath.Join(alpha.dir, "disks/b")))
		alpha.file("disks/b", 1000, 2)
		alpha.start()
		require.Equal(t, "source_changed", codeOf(t, receive(t, final), nil))
	})
}

func TestResumeOfAFailedImport(t *testing.T) {
	w := newWorld(t, "", "alpha", "beta")
	alpha, beta := w.all["alpha"].start(), w.all["beta"].start()
	data := alpha.file("disks/a", 9<<20, 1)
	export, args := w.pair("a")
	alpha.follow("ann", export)
	args.Expect = digest([]byte("something else"))
	first := newRequest(api.OpImport, args)
	rec, err := beta.run("ann", first)
	require.Equal(t, "digest_mismatch", codeOf(t, rec, err))
	_, err = os.Stat(filepath.Join(beta.dir, "disks/a"))
	require.ErrorIs(t, err, os.ErrNotExist)

	for name, change := range map[string]func(*api.ImportArgs){
		"of nobody":         func(a *api.ImportArgs) { a.Resume = api.NewID() },
		"of another target": func(a *api.ImportArgs) { a.Path = "b" },
	} {
		other := args
		other.Resume = first.ID
		change(&other)
		r, _, _ := beta.post("ann", newRequest(api.OpImport, other))
		require.Contains(t, []string{"unknown_task", "conflict"}, r.problem.Code, name)
	}
	args.Expect, args.Resume = digest(data), first.ID
	rec, err = beta.run("ann", newRequest(api.OpImport, args))
	result := resultOf[api.ImportResult](t, rec, err)
	require.Equal(t, digest(data), result.Digest)
	require.Equal(t, int64(len(data)), result.Bytes.Carried, "%+v", result)
	require.Zero(t, result.Attempts, "content was fetched again")
}

func TestListsAndStatus(t *testing.T) {
	w := newWorld(t, "", "alpha")
	alpha := w.all["alpha"].start()
	for _, name := range []string{"c", "a", "b/x", "b/y", "d"} {
		alpha.file("disks/"+name, 10, 1)
	}
	require.NoError(t, os.MkdirAll(filepath.Join(alpha.dir, "disks/.gantry"), 0o700))
	defer os.Remove(filepath.Join(alpha.dir, "disks/.gantry"))
	require.NoError(t, os.Symlink("/etc", filepath.Join(alpha.dir, "disks/etc")))

	ctx := context.Background()
	names := func(path, query string) string {
		r := alpha.ask("ann", "GET", "/resources/disks/files?path="+path+query, nil, "")
		require.Equal(t, 200, r.status, r.body)
		var page api.Files
		require.NoError(t, jsonUnmarshal([]byte(r.body), &page))
		var out []string
		for _, f := range page.Files {
			out = append(out, f.Name+":"+f.Type)
		}
		if page.Next != "" {
			out = append(out, "next "+page.Next)
		}
		return strings.Join(out, " ")
	}
	require.Equal(t, "a:file b:dir c:file d:file etc:symlink", names("", ""))
	require.Equal(t, "a:file b:dir next b", names("", "&n=2"))
	require.Equal(t, "c:file d:file next d", names("", "&n=2&cursor=b"))
	require.Equal(t, "etc:symlink", names("", "&n=2&cursor=d"))
	require.Equal(t, "x:file y:file", names("b", ""))
	for path, status := range map[string]int{"..": 400, "etc": 0, "b/../..": 400, ".gantry": 400, "nothing": 404, "/etc": 400, "a": 0} {
		r := alpha.ask("ann", "GET", "/resources/disks/files?path="+path, nil, "")
		require.GreaterOrEqual(t, r.status, 400, "%s: %s", path, r.body)
		if status != 0 {
			require.Equal(t, status, r.status, "%s: %s", path, r.body)
		}
		require.NotEmpty(t, r.problem.Code)
	}
	require.Equal(t, 403, alpha.ask("bob", "GET", "/resources/disks/files", nil, "").status)
	require.Equal(t, 403, alpha.ask("bob", "GET", "/resources/nosuch/files", nil, "").status)
	require.Equal(t, 403, alpha.ask("ann", "GET", "/resources/nosuch/files", nil, "").status, "no grant names it")

	resources, err := alpha.as("ann").Resources(ctx)
	require.NoError(t, err)
	require.Len(t, resources.Resources, 2)
	require.True(t, resources.Resources[0].Writable)
	require.Positive(t, resources.Resources[0].Free)
	require.Equal(t, 403, alpha.ask("bob", "GET", "/resources", nil, "").status)

	status, err := alpha.as("bob").Status(ctx)
	require.NoError(t, err)
	require.Equal(t, "spiffe://demo/operator/bob", status.Caller)
	require.Equal(t, "alpha", status.Node)
	require.Equal(t, "test", status.Version)
	require.False(t, status.Isolated, "front and responder share this test's uid")
	require.Contains(t, strings.Join(status.Warnings, "\n"), "not isolated")
	require.Len(t, status.May, 1)
	require.Equal(t, 403, alpha.ask("hub", "GET", "/status", nil, "").status)
	require.Equal(t, 403, alpha.ask("bob", "GET", "/selftest/echo", nil, "").status)
}

func TestRoomForJournals(t *testing.T) {
	w := newWorld(t, "[limits]\njournal_per_task = \"1MiB\"\njournal_per_node = \"1MiB\"\ntasks = 100", "alpha")
	alpha := w.all["alpha"].start()
	alpha.file("disks/a", 10, 1)
	digested := func() *api.TaskRequest {
		return newRequest(api.OpDigest, api.DigestArgs{File: api.File{Resource: "disks", Path: "a"}})
	}
	// Ended tasks give up all but their finals for new ones.
	first := digested()
	for i := range 60 {
		req := digested()
		if i == 0 {
			req = first
		}
		r, records, err := alpha.post("ann", req)
		require.NoError(t, err)
		require.Equal(t, 200, r.status, "task %d: %s", i, r.body)
		require.Equal(t, feedback.KindResult, records[len(records)-1].Kind)
	}
	_, records, err := alpha.post("ann", first)
	require.NoError(t, err)
	require.Equal(t, feedback.KindResult, records[len(records)-1].Kind)
	// Running ones do not.
	var r reply
	for range 60 {
		export, _ := w.pair("a")
		status := alpha.begin(export)
		if status != 200 {
			r, _, _ = alpha.post("ann", export)
			break
		}
	}
	require.Equal(t, 507, r.status, r.body)
	require.Equal(t, "no_room", r.problem.Code)
}

func TestWhatAStartFinds(t *testing.T) {
	w := newWorld(t, "", "alpha")
	alpha := w.all["alpha"].start()
	alpha.file("disks/a", 10, 1)
	export, _ := w.pair("a")
	final := alpha.follow("ann", export)
	require.Equal(t, 200, alpha.ask("ann", "HEAD", "/tasks/"+export.ID+"/content", nil, "").status)
	alpha.halt()
	tasks := filepath.Join(alpha.dir, "state/tasks")

	t.Run("a folder that was never accepted", func(t *testing.T) {
		id := api.NewID()
		require.NoError(t, os.MkdirAll(filepath.Join(tasks, id, "work"), 0o700))
		alpha.start()
		require.NoDirExists(t, filepath.Join(tasks, id))
		alpha.halt()
	})
	t.Run("a resource that is configured no more", func(t *testing.T) {
		text, err := os.ReadFile(alpha.config)
		require.NoError(t, err)
		changed := strings.ReplaceAll(strings.Replace(string(text), `name = "disks"`, `name = "other"`, 1), `"disks"`, `"other"`)
		require.NoError(t, os.WriteFile(alpha.config, []byte(changed), 0o644))
		alpha.start()
		require.Equal(t, "not_found", codeOf(t, receive(t, final), nil))
		alpha.halt()
	})
	t.Run("a stranger's folder", func(t *testing.T) {
		require.NoError(t, os.Mkdir(filepath.Join(tasks, "notes"), 0o700))
		cfg, err := config.LoadNode(alpha.config)
		require.NoError(t, err)
		_, err = node.New(cfg, node.Options{})
		require.ErrorContains(t, err, "is no task")
	})
}

func TestImportArguments(t *testing.T) {
	w := newWorld(t, "", "alpha", "beta")
	beta := w.all["beta"].start()
	for name, change := range map[string]func(*api.ImportArgs){
		"mode":      func(a *api.ImportArgs) { a.Mode = "overwrite" },
		"verify":    func(a *api.ImportArgs) { a.Verify = "maybe" },
		"task":      func(a *api.ImportArgs) { a.Source.Task = "x" },
		"node":      func(a *api.ImportArgs) { a.Source.Node = "" },
		"ticket":    func(a *api.ImportArgs) { a.Source.Ticket = strings.Repeat("A", 64) },
		"expect":    func(a *api.ImportArgs) { a.Expect = "sha256:00" },
		"resume":    func(a *api.ImportArgs) { a.Resume = "../x" },
		"retry_for": func(a *api.ImportArgs) { a.RetryFor = -1 },
		"path":      func(a *api.ImportArgs) { a.Path = "a/../../b" },
	} {
		_, args := w.pair("a")
		change(&args)
		r, _, _ := beta.post("ann", newRequest(api.OpImport, args))
		require.Equal(t, 400, r.status, "%s: %s", name, r.body)
		require.NotContains(t, r.body, args.Source.Ticket)
	}
	_, args := w.pair("nosuch/a")
	r, _, _ := beta.post("ann", newRequest(api.OpImport, args))
	require.Equal(t, "not_found", r.problem.Code, "the target's folder is not there")
}
