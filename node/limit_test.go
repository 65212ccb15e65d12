package node_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"gantry/api"
	"gantry/config"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestBoundsOfABandwidthAgree(t *testing.T) {
	require.EqualValues(t, config.MinRate, api.MinBandwidth)
	require.EqualValues(t, config.MaxRate, api.MaxBandwidth)
}

// A read that would take five minutes ends when its limit is taken away.
func TestLimitIsChangedWhileItIsRead(t *testing.T) {
	w := newWorld(t, "", "alpha", "beta")
	alpha := w.all["alpha"].start()
	data := alpha.file("disks/a", 20<<20, 1)
	req := newRequest(api.OpExport, api.ExportArgs{File: api.File{Resource: "disks", Path: "a"}, Bandwidth: api.MinBandwidth})
	alpha.follow("ann", req)

	get, err := http.NewRequest("GET", "https://"+alpha.addr+api.Prefix+"/tasks/"+req.ID+"/content", nil)
	require.NoError(t, err)
	resp, err := alpha.http("ann").Do(get)
	require.NoError(t, err)
	defer resp.Body.Close()
	first := make([]byte, 20_000) // some parts of 6 KiB: each is sent at once
	_, err = io.ReadFull(resp.Body, first)
	require.NoError(t, err)
	c := alpha.as("ann")
	require.NoError(t, c.Limit(t.Context(), req.ID, 0))
	rest, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, digest(data), digest(append(first, rest...)))

	require.NoError(t, c.Finish(t.Context(), req.ID, "", digest(data)))
	require.ErrorContains(t, c.Limit(t.Context(), req.ID, 0), "has ended")
}

// The importer's limit holds the import up, is changed, and is kept over a
// restart.
func TestLimitOfAnImport(t *testing.T) {
	w := newWorld(t, "", "alpha", "beta")
	alpha, beta := w.all["alpha"].start(), w.all["beta"].start()
	data := alpha.file("disks/a", 40<<20, 1)
	export, args := w.pair("a")
	args.Bandwidth = api.MinBandwidth
	alpha.follow("ann", export)
	req := newRequest(api.OpImport, args)
	done := beta.follow("ann", req)
	c := beta.as("ann")
	require.NoError(t, c.Limit(t.Context(), req.ID, 2*api.MinBandwidth))
	beta.restart()
	text, err := os.ReadFile(beta.dir + "/state/tasks/" + req.ID + "/task.json")
	require.NoError(t, err)
	require.Contains(t, string(text), fmt.Sprintf(`"limit":%d`, 2*api.MinBandwidth))
	waitForTask(beta, "ann", req.ID)
	require.Equal(t, api.StateRunning, waitForTask(beta, "ann", req.ID).State)
	require.NoError(t, c.Limit(t.Context(), req.ID, 0))
	select {
	case final := <-done:
		require.Equal(t, digest(data), resultOf[api.ImportResult](t, final, nil).Digest)
	case <-time.After(40 * time.Second):
		require.Fail(t, "still limited")
	}
}

func TestLimitIsRefused(t *testing.T) {
	w := newWorld(t, "", "alpha")
	alpha := w.all["alpha"].start()
	alpha.file("disks/a", 10, 1)
	export, _ := w.pair("a")
	alpha.follow("ann", export)
	path := "/tasks/" + export.ID + "/limit"
	for body, code := range map[string]string{
		`{"bwlimit":1}`: "bad_request", `{"bwlimit":-1}`: "bad_request", `{"bwlimit":65535}`: "bad_request",
		`{"bwlimit":1099511627777}`: "bad_request", `{"bwlimit":"10M"}`: "bad_request", `{"rate":65536}`: "bad_request",
	} {
		r := alpha.ask("ann", "PUT", path, jsonType, body)
		require.Equal(t, code, r.problem.Code, "%s: %s", body, r.body)
	}
	r := alpha.ask("bob", "PUT", path, jsonType, `{"bwlimit":0}`)
	require.Equal(t, "unknown_task", r.problem.Code)
	for _, op := range []string{api.OpExport, api.OpImport} {
		body := fmt.Sprintf(`{"id":%q,"op":%q,"args":{"resource":"disks","path":"a","bwlimit":7%s}}`, api.NewID(), op,
			map[string]string{api.OpExport: "", api.OpImport: `,"source":{"node":"beta","task":"` + api.NewID() + `","ticket":"` + strings.Repeat("0", 64) + `"}`}[op])
		r := alpha.ask("ann", "POST", "/tasks", jsonType, body)
		require.Equal(t, "bad_request", r.problem.Code, r.body)
		require.Contains(t, r.body, "args.bwlimit")
	}
}

// The front cannot be limited, so it is not asked to send what has a limit.
func TestLimitedContentIsStreamed(t *testing.T) {
	w := newWorld(t, "", "alpha")
	alpha := w.all["alpha"]
	data := alpha.file("disks/a", 1000, 1)
	text, err := os.ReadFile(alpha.config)
	require.NoError(t, err)
	edited := strings.Replace(strings.Replace(string(text), `kind = "embedded"`, `kind = "nginx"`, 1), "writable = true\n", "writable = true\nsend = \"front\"\n", 1)
	require.NoError(t, os.WriteFile(alpha.config, []byte(edited), 0o644))
	alpha.start()
	export, _ := w.pair("a")
	alpha.follow("ann", export)
	content := "/node/v1/tasks/" + export.ID + "/content"
	ask := func() http.Header {
		rec, err := direct(alpha.dir+"/s", "GET", content, string(pemOf(w.ids["ann"])), nil)
		require.NoError(t, err)
		require.Equal(t, 200, rec.Code)
		if rec.Header().Get("X-Accel-Redirect") == "" {
			require.Equal(t, string(data), rec.Body.String())
		}
		return rec.Header()
	}
	require.NotEmpty(t, ask().Get("X-Accel-Redirect"))
	require.NoError(t, alpha.as("ann").Limit(t.Context(), export.ID, 1<<20))
	require.Empty(t, ask().Get("X-Accel-Redirect"))
	require.NoError(t, alpha.as("ann").Limit(t.Context(), export.ID, 0))
	require.NotEmpty(t, ask().Get("X-Accel-Redirect"))
}

// Every thread of a responder has the class of the configuration.
func TestIOPriority(t *testing.T) {
	for class, want := range map[string]int{"idle": 3 << 13, "best-effort": 2<<13 | 7} {
		t.Run(class, func(t *testing.T) {
			w := newWorld(t, "[limits]\nio_priority = \""+class+"\"\n", "alpha")
			alpha := w.all["alpha"]
			alpha.ownedBy(gantry)
			cmd := command(t, gantry, "run", alpha.config)
			cmd.Stderr = alpha.log
			require.NoError(t, cmd.Start())
			defer cmd.Wait()
			defer cmd.Process.Signal(unix.SIGTERM)
			require.Eventually(t, func() bool {
				_, err := alpha.as("ann").Status(t.Context())
				return err == nil
			}, 20*time.Second, 20*time.Millisecond)
			threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", cmd.Process.Pid))
			require.NoError(t, err)
			require.Greater(t, len(threads), 1)
			for _, thread := range threads {
				var tid int
				_, err := fmt.Sscan(thread.Name(), &tid)
				require.NoError(t, err)
				got, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, 1, uintptr(tid), 0)
				if errno == 0 {
					require.Equal(t, want, int(got), "thread %d", tid)
				}
			}
		})
	}
}

// Every way in which content leaves or enters a node is bound: what takes longer
// cannot be counted against it, so the time has only a lower bound.
func TestLimitBindsEveryWay(t *testing.T) {
	const size = 2 * api.MinBandwidth
	w := newWorld(t, "[[peer]]\nname = \"alpha\"\nbandwidth = \"64K\"\n", "alpha", "beta")
	alpha, beta := w.all["alpha"].start(), w.all["beta"].start()
	data := alpha.file("disks/a", size, 1)
	limited := newRequest(api.OpExport, api.ExportArgs{File: api.File{Resource: "disks", Path: "a"}, Bandwidth: api.MinBandwidth})
	alpha.follow("ann", limited)
	export, args := w.pair("a") // at beta alpha's limit binds
	alpha.follow("ann", export)
	for name, do := range map[string]func(t *testing.T){
		"content": func(t *testing.T) {
			r := alpha.ask("ann", "GET", "/tasks/"+limited.ID+"/content", nil, "")
			require.Equal(t, string(data), r.body)
		},
		"pieces": func(t *testing.T) {
			r := alpha.ask("ann", "GET", fmt.Sprintf("/tasks/%s/pieces?r=0-%d", limited.ID, size), nil, "")
			require.Contains(t, r.body, string(data))
		},
		"import": func(t *testing.T) {
			final, err := beta.run("ann", newRequest(api.OpImport, args))
			require.Equal(t, digest(data), resultOf[api.ImportResult](t, final, err).Digest)
		},
	} {
		began := time.Now()
		do(t)
		require.Greater(t, time.Since(began), 1500*time.Millisecond, name)
	}
}
