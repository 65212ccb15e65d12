package master_test

import (
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"gantry/api"
	"gantry/job"

	"github.com/stretchr/testify/require"
)

// fill makes a pattern of the route table a path.
func fill(pattern, id string) string {
	return strings.NewReplacer("{id}", id, "{check:.*}", "headers").Replace(pattern)
}

func TestEveryRouteOfTheMaster(t *testing.T) {
	w := newWorld(t, "").start()
	unknown := api.NewID()
	allowed, media := map[string][]string{}, map[string]string{}
	for _, r := range api.MasterRoutes {
		allowed[r.Path] = append(allowed[r.Path], r.Method)
		if r.Media != "" {
			media[r.Method+" "+r.Path] = r.Media
		}
	}
	for _, who := range []string{"root", self} {
		t.Run("D54 wrong method, "+who, func(t *testing.T) {
			for pattern, methods := range allowed {
				for _, method := range []string{"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"} {
					if strings.Contains(strings.Join(methods, " "), method) {
						continue
					}
					r := w.ask(who, method, fill(pattern, unknown), nil, "")
					require.Equal(t, 405, r.status, "%s %s: %s", method, pattern, r.body)
					for _, m := range methods {
						require.Contains(t, r.header.Get("Allow"), m)
					}
				}
			}
		})
		t.Run("D55 wrong media type, "+who, func(t *testing.T) {
			for route, want := range media {
				method, pattern, _ := strings.Cut(route, " ")
				for _, got := range []string{"", "text/plain", "application/x-www-form-urlencoded", "application/json, text/plain"} {
					r := w.ask(who, method, fill(pattern, unknown), map[string]string{"Content-Type": got}, "{}")
					require.Equal(t, 415, r.status, "%s with %q: %s", route, got, r.body)
					require.Contains(t, r.problem.Detail, want)
				}
			}
		})
		t.Run("unknown routes, "+who, func(t *testing.T) {
			for _, path := range []string{"/", "/nothing", "/jobs/", "/jobs/" + unknown + "/nothing", "/status/x"} {
				r := w.ask(who, "GET", path, nil, "")
				require.Equal(t, 404, r.status, path)
				require.Equal(t, "not_found", r.problem.Code, path)
				require.NotContains(t, r.body, "nothing")
			}
		})
		t.Run("reserved header, "+who, func(t *testing.T) {
			require.Equal(t, 400, w.ask(who, "GET", "/status", map[string]string{api.FenceHeader: "1"}, "").status)
		})
		t.Run("D64 a page of another site, "+who, func(t *testing.T) {
			for pattern, methods := range allowed {
				for _, method := range methods {
					if method == "GET" || method == "HEAD" {
						continue
					}
					for _, header := range []map[string]string{{"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "same-site"}} {
						header = maps.Clone(header)
						header["Content-Type"] = api.TypeJSON
						r := w.ask(who, method, fill(pattern, unknown), header, "{}")
						require.Equal(t, 403, r.status, "%s %s", method, pattern)
						require.Equal(t, "cross_site", r.problem.Code)
					}
				}
			}
		})
		t.Run("D66 ids that are none, "+who, func(t *testing.T) {
			ids := []string{"..%2f", "%00"}
			if who != self {
				ids = nil // a front lets them through to nobody
			}
			for _, id := range append(ids, "x", strings.ToUpper(unknown), unknown+"x", "00000000-0000-0000-0000-000000000000") {
				r := w.ask(who, "GET", "/jobs/"+id, nil, "")
				require.Equal(t, 404, r.status, id)
			}
		})
	}
}

func TestBodiesOfTheMaster(t *testing.T) {
	w := newWorld(t, "").start()
	good := later(digestSpec("a"))
	t.Run("D56 body over 1 MiB", func(t *testing.T) {
		for _, path := range []string{"/jobs", "/jobs/" + w.submit("ann", "a").ID + "/retry"} {
			r := w.ask("ann", "POST", path, jsonType, `{"spec":"`+strings.Repeat("x", api.MaxBody)+`"}`)
			require.Equal(t, 413, r.status, r.body)
		}
	})
	t.Run("D58 trailing JSON", func(t *testing.T) {
		require.Equal(t, "bad_request", w.ask("ann", "POST", "/jobs", jsonType, good+"{}").problem.Code)
	})
	t.Run("D65 pages of 10^9", func(t *testing.T) {
		for _, path := range []string{"/jobs?limit=1000000000", "/jobs?limit=0", "/jobs?limit=-1", "/jobs?limit=x", "/jobs?limit=1001", "/jobs?limit=+5", "/jobs?limit=1e3"} {
			r := w.ask("ann", "GET", path, nil, "")
			require.Equal(t, 400, r.status, path)
			require.Contains(t, r.problem.Detail, "allowed are 1 to 1000")
		}
		require.Equal(t, 400, w.ask("root", "GET", "/audit?limit=1000000000", nil, "").status)
		require.Equal(t, 400, w.ask("root", "GET", "/audit?after=-1", nil, "").status)
	})
	t.Run("a query that nobody knows", func(t *testing.T) {
		for _, path := range []string{"/jobs?stat=done", "/status?x=1", "/jobs?state=done&state=failed", "/jobs?state=over", "/jobs?state=%zz", "/jobs?owner=a;b"} {
			require.Equal(t, 400, w.ask("ann", "GET", path, nil, "").status, path)
		}
	})
	for name, c := range map[string]struct {
		body    string
		status  int
		pointer string
	}{
		"no spec":                         {`{}`, 422, "/spec"},
		"F92 unknown kind":                {strings.Replace(good, `"digest"`, `"shell"`, 1), 422, "/spec/kind"},
		"F93 unknown field of a spec":     {strings.Replace(good, `"kind"`, `"user":"root","kind"`, 1), 422, "/spec/user"},
		"F93 unknown field":               {strings.Replace(good, `{"spec"`, `{"dependencies":[],"spec"`, 1), 400, "/dependencies"},
		"F94 duplicate key":               {strings.Replace(good, `"kind"`, `"kind":"digest","kind"`, 1), 400, "/spec/kind"},
		"F94 key in other case":           {strings.Replace(good, `"kind"`, `"Kind"`, 1), 422, "/spec/Kind"},
		"F95 target equals source":        {`{"spec":{"kind":"copy","from":{"node":"alpha","resource":"disks","path":"a"},"to":{"node":"alpha","resource":"disks","path":"a"}}}`, 422, "/spec/to"},
		"F96 path that climbs":            {strings.Replace(good, `"a"`, `"../a"`, 1), 422, "/spec/from/path"},
		"F96 absolute path":               {strings.Replace(good, `"a"`, `"/etc/passwd"`, 1), 422, "/spec/from/path"},
		"F96 path of the stages":          {strings.Replace(good, `"a"`, `".gantry/x"`, 1), 422, "/spec/from/path"},
		"F96 path in its long form":       {strings.Replace(good, `"a"`, `"b/../a"`, 1), 422, "/spec/from/path"},
		"F97 user in a spec":              {strings.Replace(good, `"kind"`, `"user":"0","kind"`, 1), 422, "/spec/user"},
		"F98 argument that is an option":  {`{"spec":{"kind":"digest","from":{"node":"alpha","resource":"disks","path":"a"},"args":["-rf"]}}`, 422, "/spec/args/0"},
		"F101 attempts 2^31":              {strings.Replace(good, `{"spec"`, `{"max_attempts":2147483648,"spec"`, 1), 422, "/max_attempts"},
		"F101 attempts below none":        {strings.Replace(good, `{"spec"`, `{"max_attempts":-1,"spec"`, 1), 422, "/max_attempts"},
		"F102 schedule in the past":       {`{"not_before":"2020-01-01T00:00:00Z","spec":` + string(api.Encode(digestSpec("a"))) + `}`, 422, "/not_before"},
		"F102 schedule in another age":    {`{"not_before":"2120-01-01T00:00:00Z","spec":` + string(api.Encode(digestSpec("a"))) + `}`, 422, "/not_before"},
		"F103 dependency on itself":       {strings.Replace(good, `"kind"`, `"after":"x","kind"`, 1), 422, "/spec/after"},
		"F104 secret in a spec":           {strings.Replace(good, `"kind"`, `"source":{"ticket":"00"},"kind"`, 1), 422, "/spec/source"},
		"priority out of range":           {strings.Replace(good, `{"spec"`, `{"priority":101,"spec"`, 1), 422, "/priority"},
		"a limit that there is not":       {strings.Replace(good, `{"spec"`, `{"limits":["uplink","x"],"spec"`, 1), 422, "/limits/1"},
		"a limit twice":                   {strings.Replace(good, `{"spec"`, `{"limits":["uplink","uplink"],"spec"`, 1), 422, "/limits/1"},
		"another cluster":                 {strings.Replace(good, `"demo"`, `"other"`, 1), 422, "/spec/cluster"},
		"bandwidth that looks dead":       {strings.Replace(good, `"kind"`, `"bwlimit":1,"kind"`, 1), 422, "/spec/bwlimit"},
		"an unknown mode":                 {strings.Replace(good, `"kind"`, `"mode":"append","kind"`, 1), 422, "/spec/mode"},
		"a digest with a target":          {strings.Replace(good, `"kind"`, `"local":"/x","kind"`, 1), 422, "/spec"},
		"too deep":                        {`{"spec":` + strings.Repeat("[", 20) + strings.Repeat("]", 20) + `}`, 400, ""},
		"not JSON":                        {`{"spec":`, 400, ""},
		"F99 shell characters, as a path": {strings.Replace(good, `"a"`, `"$(reboot); \u0026 | `+"`x`"+`"`, 1), 201, ""},
	} {
		t.Run(name, func(t *testing.T) {
			before := len(into[api.JobList](t, w.ask("ann", "GET", "/jobs", nil, "")).Jobs)
			r := w.ask("ann", "POST", "/jobs", jsonType, c.body)
			require.Equal(t, c.status, r.status, r.body)
			after := len(into[api.JobList](t, w.ask("ann", "GET", "/jobs", nil, "")).Jobs)
			if c.status == 201 {
				require.Equal(t, before+1, after)
				return
			}
			require.Equal(t, before, after, "a refused job was kept")
			if c.status == 422 {
				require.Equal(t, "bad_spec", r.problem.Code)
			}
			if c.pointer != "" {
				require.Contains(t, string(r.problem.More), `"pointer":"`+c.pointer+`"`, r.body)
			}
		})
	}
	t.Run("F92 the refusal says what is allowed", func(t *testing.T) {
		r := w.ask("ann", "POST", "/jobs", jsonType, strings.Replace(good, `"digest"`, `"shell"`, 1))
		require.Contains(t, string(r.problem.More), `"allowed":["copy"`)
	})
}

func TestIdempotencyKeys(t *testing.T) {
	w := newWorld(t, "").start()
	key := func(k string) map[string]string {
		return map[string]string{"Content-Type": api.TypeJSON, api.IdempotencyHeader: k}
	}
	body := later(digestSpec("a"))
	first := w.ask("ann", "POST", "/jobs", key("k1"), body)
	require.Equal(t, 201, first.status, first.body)
	made := into[api.Job](t, first)
	require.Equal(t, api.MasterPrefix+"/jobs/"+made.ID, first.header.Get("Location"))
	again := w.ask("ann", "POST", "/jobs", key("k1"), "\n "+body)
	require.Equal(t, 200, again.status, again.body)
	require.Equal(t, made.ID, into[api.Job](t, again).ID)
	t.Run("D60 key reused with another body", func(t *testing.T) {
		r := w.ask("ann", "POST", "/jobs", key("k1"), later(digestSpec("b")))
		require.Equal(t, 409, r.status)
		require.Equal(t, "key_reused", r.problem.Code)
		// nor for another action
		require.Equal(t, 202, w.ask("ann", "DELETE", "/jobs/"+made.ID, nil, "").status)
		r = w.ask("ann", "POST", "/jobs/"+made.ID+"/retry", key("k1"), "{}")
		require.Equal(t, "key_reused", r.problem.Code, r.body)
	})
	require.Equal(t, 201, w.ask(self, "POST", "/jobs", key("k1"), body).status, "a key is its caller's alone")
	for _, bad := range []string{"", "a b", strings.Repeat("x", api.MaxKey+1), "ä"} {
		require.Equal(t, 400, w.ask("ann", "POST", "/jobs", key(bad), body).status, "%q", bad)
	}
	require.Equal(t, 201, w.ask("ann", "POST", "/jobs", jsonType, body).status)
	require.Equal(t, 201, w.ask("ann", "POST", "/jobs", jsonType, body).status, "without a key each request is a job")

	// The key outlives the master.
	w.halt()
	w.start()
	require.Equal(t, made.ID, into[api.Job](t, w.ask("ann", "POST", "/jobs", key("k1"), body)).ID)
}

// TestAnswerOfAFullMaster: who lost the answer to a submission gets it, even
// when nothing new would be taken.
func TestAnswerOfAFullMaster(t *testing.T) {
	w := newWorld(t, "")
	text, err := os.ReadFile(w.config)
	require.NoError(t, err)
	w.write("master.toml", strings.Replace(string(text), "[limits]\n", "[limits]\nqueued = 1\n", 1))
	w.start()
	key := map[string]string{"Content-Type": api.TypeJSON, api.IdempotencyHeader: "k1"}
	body := later(digestSpec("a"))
	made := into[api.Job](t, w.ask("ann", "POST", "/jobs", key, body))
	require.Equal(t, "too_many", w.ask("ann", "POST", "/jobs", jsonType, later(digestSpec("b"))).problem.Code)
	again := w.ask("ann", "POST", "/jobs", key, body)
	require.Equal(t, 200, again.status, again.body)
	require.Equal(t, made.ID, into[api.Job](t, again).ID)
	require.Equal(t, api.MasterPrefix+"/jobs/"+made.ID, again.header.Get("Location"))
}

func TestListAndDetailAgree(t *testing.T) {
	w := newWorld(t, "").start()
	var mine []string
	for i := range 7 {
		mine = append(mine, w.submit("ann", fmt.Sprint(i)).ID)
	}
	theirs := w.submit("root", "x")
	require.Equal(t, 202, w.ask("ann", "DELETE", "/jobs/"+mine[3], nil, "").status)
	require.Eventually(t, func() bool {
		return into[api.Job](t, w.ask("ann", "GET", "/jobs/"+mine[3], nil, "")).State == api.JobCancelled
	}, 10*time.Second, time.Millisecond)

	pages := func(who, query string) (all []api.Job) {
		next := ""
		for range 20 {
			list := into[api.JobList](t, w.ask(who, "GET", "/jobs?limit=3"+query+next, nil, ""))
			require.LessOrEqual(t, len(list.Jobs), 3)
			all = append(all, list.Jobs...)
			if list.Next == "" {
				return all
			}
			require.NotEmpty(t, list.Jobs)
			next = "&cursor=" + list.Next
		}
		require.Fail(t, "the list does not end")
		return nil
	}
	for who, want := range map[string]int{"ann": 7, "root": 8, "sue": 8, "bob": 0, "eve": 0, self: 8} {
		list := pages(who, "")
		require.Len(t, list, want, who)
		seen := map[string]bool{}
		for i, j := range list {
			require.False(t, seen[j.ID])
			seen[j.ID] = true
			require.True(t, i == 0 || j.ID < list[i-1].ID, "newest first")
			detail := into[api.Job](t, w.ask(who, "GET", "/jobs/"+j.ID, nil, ""))
			detail.Attempts = nil
			require.Equal(t, j, detail)
		}
		for _, id := range append(mine, theirs.ID) {
			status := w.ask(who, "GET", "/jobs/"+id, nil, "").status
			require.Equal(t, seen[id], status == 200, "%s %s: %d", who, id, status)
		}
	}
	require.Len(t, pages("ann", "&state=cancelled"), 1)
	require.Len(t, pages("ann", "&state=queued,cancelled&node=alpha&kind=digest"), 7)
	require.Empty(t, pages("ann", "&node=beta"))
	require.Len(t, pages("sue", "&owner="+url.QueryEscape("spiffe://demo/operator/root")), 1)
	require.Empty(t, pages("ann", "&owner="+url.QueryEscape("spiffe://demo/operator/root")), "as for an owner without jobs")

	// A cursor is of the list that gave it.
	list := into[api.JobList](t, w.ask("ann", "GET", "/jobs?limit=3", nil, ""))
	for _, cursor := range []string{"x", list.Next + "A", list.Next[1:], strings.Repeat("A", 1000), "%00", base64.RawURLEncoding.EncodeToString(make([]byte, 21))} {
		r := w.ask("ann", "GET", "/jobs?cursor="+cursor, nil, "")
		require.Equal(t, "bad_cursor", r.problem.Code, cursor)
	}
	require.Equal(t, "bad_cursor", w.ask("ann", "GET", "/jobs?state=queued&cursor="+list.Next, nil, "").problem.Code)
}

// What may not be seen looks as if it were not there, on every route.
func TestForeignAndUnknownLookAlike(t *testing.T) {
	w := newWorld(t, "").start()
	foreign, unknown := w.submit("ann", "a").ID, api.NewID()
	for _, route := range api.MasterRoutes {
		if !route.Task {
			continue
		}
		t.Run("D59 "+route.Name, func(t *testing.T) {
			body, header := "", map[string]string(nil)
			if route.Media != "" {
				body, header = "{}", jsonType
			}
			a := w.ask("bob", route.Method, fill(route.Path, foreign), header, body)
			b := w.ask("bob", route.Method, fill(route.Path, unknown), header, body)
			require.Equal(t, 404, a.status)
			a.header.Del("Date")
			b.header.Del("Date")
			require.Equal(t, strings.ReplaceAll(b.body, unknown, foreign), a.body)
			require.Equal(t, b.header, a.header)
		})
	}
	require.Equal(t, 200, w.ask("ann", "GET", "/jobs/"+foreign, nil, "").status)
}

func TestRetryAndCancel(t *testing.T) {
	w := newWorld(t, "").start()
	j := w.submit("ann", "a")
	r := w.ask("ann", "POST", "/jobs/"+j.ID+"/retry", jsonType, "{}")
	require.Equal(t, "job_unfinished", r.problem.Code)
	require.Equal(t, "job_not_unknown", w.ask("ann", "DELETE", "/jobs/"+j.ID+"?abandon=true", nil, "").problem.Code)
	require.Equal(t, "bad_request", w.ask("ann", "DELETE", "/jobs/"+j.ID+"?abandon=1", nil, "").problem.Code)
	require.Equal(t, "unknown_job", w.ask("bob", "DELETE", "/jobs/"+j.ID+"?abandon=true", nil, "").problem.Code)
	require.Equal(t, http.StatusAccepted, w.ask("ann", "DELETE", "/jobs/"+j.ID, nil, "").status)
	require.Equal(t, "job_ended", w.ask("ann", "DELETE", "/jobs/"+j.ID, nil, "").problem.Code)
	ended := into[api.Job](t, w.ask("ann", "GET", "/jobs/"+j.ID, nil, ""))
	require.Equal(t, api.JobCancelled, ended.State)
	require.Equal(t, "spiffe://demo/operator/ann", ended.CancelBy)
	require.NotEmpty(t, ended.Final)

	r = w.ask("root", "POST", "/jobs/"+j.ID+"/retry", jsonType, "{}")
	require.Equal(t, 201, r.status, r.body)
	again := into[api.Job](t, r)
	require.Equal(t, j.ID, again.RetryOf)
	require.Equal(t, "spiffe://demo/operator/root", again.Owner, "a retry is of whoever asks for it")
	require.Equal(t, 403, w.ask("sue", "POST", "/jobs/"+j.ID+"/retry", jsonType, "{}").status, "seeing a job is not the right to do it")
	for body, code := range map[string]string{`{"from":"start"}`: "bad_spec", `{"only":["failed"]}`: "bad_spec", `{"from":"publish"}`: "bad_request"} {
		require.Equal(t, code, w.ask("ann", "POST", "/jobs/"+j.ID+"/retry", jsonType, body).problem.Code, body)
	}
}

// A job with a local side is driven by its owner, who tells the master.
func TestRecordsOfADriver(t *testing.T) {
	w := newWorld(t, "").start()
	spec := job.Spec{Kind: job.Export, Cluster: "demo", From: digestSpec("a").From, Local: "/tmp/a"}
	named := func(spec job.Spec, id string) string {
		return string(api.Encode(api.JobRequest{Spec: api.Encode(spec), ID: id}))
	}
	for name, body := range map[string]string{
		"not the master's to name": named(digestSpec("a"), api.NewID()), "no id": named(spec, "x"),
	} {
		require.Equal(t, "bad_spec", w.ask("ann", "POST", "/jobs", jsonType, body).problem.Code, name)
	}
	id := api.NewID()
	require.Equal(t, "clock_ahead", w.ask("ann", "POST", "/jobs", jsonType, named(spec, "0f"+id[2:])).problem.Code)
	j := into[api.Job](t, w.ask("ann", "POST", "/jobs", map[string]string{"Content-Type": api.TypeJSON, api.IdempotencyHeader: id}, named(spec, id)))
	require.Equal(t, id, j.ID)
	require.Equal(t, "spiffe://demo/operator/ann", j.Driver)
	require.Equal(t, api.JobRunning, j.State, "its owner drives it")
	again := w.ask("ann", "POST", "/jobs", map[string]string{"Content-Type": api.TypeJSON, api.IdempotencyHeader: id}, named(spec, id))
	require.Equal(t, 200, again.status, again.body)
	require.Equal(t, "bad_request", w.ask("root", "POST", "/jobs", jsonType, named(spec, id)).problem.Code, "the name is taken")
	task, at := api.NewID(), time.Now().UTC().Format("2006-01-02T15:04:05.000Z")
	line := func(seq int, rest string) string { return fmt.Sprintf(`{"seq":%d,"t":%q,%s}`, seq, at, rest) }
	send := func(who string, lines ...string) reply {
		return w.ask(who, "POST", "/jobs/"+j.ID+"/records", jsonType, `{"records":[`+strings.Join(lines, ",")+`]}`)
	}
	one := line(1, `"kind":"log","level":"info","text":"hello"`)
	two := line(2, fmt.Sprintf(`"kind":"task","node":"alpha","task":%q,"record":%s`, task, line(1, `"kind":"state","state":"running"`)))
	three := line(3, `"kind":"result","value":{"digest":"b3:x"}`)
	for range 2 { // again, as after an answer that was lost
		r := send("ann", one, two)
		require.Equal(t, 200, r.status, r.body)
		require.EqualValues(t, 2, into[api.RecordsReply](t, r).Last)
	}
	require.Equal(t, 404, send("root", one).status, "records are the owner's alone")
	for name, bad := range map[string][]string{
		"no record": {`{}`}, "a live one": {`{"kind":"progress","item":"a","phase":"b","done":1,"total":2,"unit":"bytes"}`},
		"backwards": {two, one}, "after the final": {three, line(4, `"kind":"log","level":"info","text":"x"`)},
		"from the future": {strings.Replace(one, at[:4], "2199", 1)}, "a text": {`"x"`},
	} {
		require.Equal(t, 400, send("ann", bad...).status, name)
	}
	progress := func(items ...string) reply {
		return w.ask("ann", "POST", "/jobs/"+j.ID+"/records", jsonType, `{"records":[],"progress":[`+strings.Join(items, ",")+`]}`)
	}
	moves := `{"kind":"progress","item":"alpha:a","phase":"fetch","done":1,"total":2,"unit":"bytes"}`
	require.Equal(t, 200, progress(moves).status, "without records: he lives")
	for name, bad := range map[string][]string{"another kind": {one}, "a text": {`"x"`}, "too many": slices.Repeat([]string{moves}, api.MaxDriverItems+1)} {
		require.Equal(t, 400, progress(bad...).status, name)
	}
	require.Equal(t, "bad_request", w.ask("ann", "POST", "/jobs/"+j.ID+"/retry", jsonType, "{}").problem.Code, "who has the local side drives it again")
	for range 2 {
		require.Equal(t, 200, send("ann", three).status)
	}
	require.Equal(t, "job_ended", send("ann", line(4, `"kind":"log","level":"info","text":"late"`)).problem.Code)
	require.Equal(t, "job_ended", send("ann", line(3, `"kind":"error","code":"io","message":"x","retryable":true`)).problem.Code)
	require.Equal(t, 200, send("ann", one).status, "a repeat of what is there")
	done := into[api.Job](t, w.ask("ann", "GET", "/jobs/"+j.ID, nil, ""))
	require.Equal(t, api.JobDone, done.State)
	feed := w.ask("ann", "GET", "/jobs/"+j.ID+"/feed", nil, "").body
	require.Equal(t, 1, strings.Count(feed, `"text":"hello"`), feed)
	require.Equal(t, 1, strings.Count(feed, task), feed)
	require.Equal(t, 1, strings.Count(feed, "driven by spiffe://demo/operator/ann"), feed)
	require.Equal(t, 1, strings.Count(feed, `"kind":"result"`), feed)

	// The master's own jobs take none.
	j = w.submit("ann", "b")
	require.Equal(t, "bad_request", send("ann", one).problem.Code)
}
