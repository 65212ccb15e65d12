package node_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gantry/api"

	"github.com/stretchr/testify/require"
)

// fill makes a pattern of the route table a path.
func fill(pattern, id string) string {
	return strings.NewReplacer("{id}", id, "{resource}", "disks", "{node}", "beta", "{check:.*}", "echo").Replace(pattern)
}

func TestEveryRoute(t *testing.T) {
	w := newWorld(t, "", "alpha")
	alpha := w.all["alpha"].start()
	unknown := api.NewID()
	allowed := map[string][]string{}
	media := map[string]string{}
	for _, r := range api.Routes {
		allowed[r.Path] = append(allowed[r.Path], r.Method)
		if r.Media != "" {
			media[r.Method+" "+r.Path] = r.Media
		}
	}
	t.Run("D54 wrong method", func(t *testing.T) {
		for pattern, methods := range allowed {
			for _, method := range []string{"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"} {
				if strings.Contains(strings.Join(methods, " "), method) {
					continue
				}
				r := alpha.ask("ann", method, fill(pattern, unknown), nil, "")
				require.Equal(t, 405, r.status, "%s %s: %s", method, pattern, r.body)
				require.Equal(t, "bad_method", r.problem.Code)
				for _, m := range methods {
					require.Contains(t, r.header.Get("Allow"), m, "%s %s", method, pattern)
				}
			}
		}
	})
	t.Run("D55 wrong media type", func(t *testing.T) {
		for route, want := range media {
			method, pattern, _ := strings.Cut(route, " ")
			for _, got := range []string{"", "text/plain", "application/x-www-form-urlencoded", "application/problem+json", ";", "application/json, text/plain"} {
				r := alpha.ask("ann", method, fill(pattern, unknown), map[string]string{"Content-Type": got}, "{}")
				require.Equal(t, 415, r.status, "%s with %q: %s", route, got, r.body)
				require.Contains(t, r.problem.Detail, want)
			}
		}
	})
	t.Run("unknown routes", func(t *testing.T) {
		for _, path := range []string{"/", "/nothing", "/tasks/", "/tasks/" + unknown + "/nothing", "/status/x"} {
			r := alpha.ask("ann", "GET", path, nil, "")
			require.Equal(t, 404, r.status, path)
			require.Equal(t, "not_found", r.problem.Code, path)
			require.NotContains(t, r.body, "nothing")
		}
	})
	t.Run("reserved header", func(t *testing.T) {
		r := alpha.ask("ann", "GET", "/status", map[string]string{api.FenceHeader: "1"}, "")
		require.Equal(t, 400, r.status)
	})
	t.Run("a page of another site", func(t *testing.T) {
		r := alpha.ask("ann", "POST", "/tasks", map[string]string{"Content-Type": api.TypeJSON, "Sec-Fetch-Site": "cross-site"}, "{}")
		require.Equal(t, 403, r.status)
		require.Equal(t, "cross_site", r.problem.Code)
		r = alpha.ask("ann", "POST", "/tasks", map[string]string{"Content-Type": api.TypeJSON, "Origin": "https://evil.example"}, "{}")
		require.Equal(t, "cross_site", r.problem.Code)
	})
}

func TestBodies(t *testing.T) {
	w := newWorld(t, "", "alpha")
	alpha := w.all["alpha"].start()
	id := api.NewID()
	good := fmt.Sprintf(`{"id":%q,"op":"digest","args":{"resource":"disks","path":"a"}}`, id)

	t.Run("D56 body over 1 MiB", func(t *testing.T) {
		r := alpha.ask("ann", "POST", "/tasks", jsonType, `{"id":"`+strings.Repeat("x", api.MaxBody)+`"}`)
		require.Equal(t, 413, r.status)
		require.Equal(t, "too_large", r.problem.Code)
		r = alpha.ask("ann", "PUT", "/crl", map[string]string{"Content-Type": api.TypeCRL}, strings.Repeat("x", api.MaxCRL+1))
		require.Equal(t, 413, r.status)
	})
	t.Run("D57 chunked and length both", func(t *testing.T) {
		// No front lets it through; one that did must not be believed.
		rec, err := direct(filepath.Join(alpha.dir, "s"), "POST", api.Prefix+"/tasks", string(pemOf(w.ids["ann"])), map[string]string{
			"CONTENT_TYPE": api.TypeJSON, "HTTP_CONTENT_TYPE": api.TypeJSON, "CONTENT_LENGTH": "2", "HTTP_TRANSFER_ENCODING": "chunked",
		})
		require.NoError(t, err)
		require.Equal(t, 400, rec.Code, rec.Body.String())
		require.Contains(t, rec.Body.String(), "both a length and a transfer encoding")
	})
	t.Run("D58 trailing JSON", func(t *testing.T) {
		r := alpha.ask("ann", "POST", "/tasks", jsonType, good+"{}")
		require.Equal(t, 400, r.status)
		require.Equal(t, "bad_request", r.problem.Code)
	})
	for name, c := range map[string]struct{ body, pointer string }{
		"unknown field":           {strings.Replace(good, `"op"`, `"opp"`, 1), "/opp"},
		"unknown argument":        {strings.Replace(good, `"path"`, `"user":"root","path"`, 1), "/user"},
		"field twice":             {strings.Replace(good, `"op":`, `"op":"digest","op":`, 1), "/op"},
		"field in other case":     {strings.Replace(good, `"op"`, `"OP"`, 1), "/OP"},
		"wrong type":              {strings.Replace(good, `"digest"`, `7`, 1), "/op"},
		"not JSON":                {`{"id":`, ""},
		"not UTF-8":               {strings.Replace(good, `"a"`, "\"\xff\"", 1), ""},
		"empty":                   {``, ""},
		"too deep":                {strings.Replace(good, `"a"`, strings.Repeat("[", 20)+strings.Repeat("]", 20), 1), ""},
		"no arguments":            {fmt.Sprintf(`{"id":%q,"op":"digest"}`, id), ""},
		"unknown operation":       {strings.Replace(good, "digest", "shell", 1), ""},
		"id of another version":   {strings.Replace(good, id, "6ba7b810-9dad-11d1-80b4-00c04fd430c8", 1), ""},
		"id in upper case":        {strings.Replace(good, id, strings.ToUpper(id), 1), ""},
		"negative run_for":        {strings.Replace(good, `"op"`, `"run_for":-1,"op"`, 1), ""},
		"stall_after of ages":     {strings.Replace(good, `"op"`, `"stall_after":99999999999,"op"`, 1), ""},
		"path that climbs":        {strings.Replace(good, `"a"`, `"../a"`, 1), ""},
		"absolute path":           {strings.Replace(good, `"a"`, `"/etc/passwd"`, 1), ""},
		"path of the stages":      {strings.Replace(good, `"a"`, `".gantry/x"`, 1), ""},
		"an empty resource":       {strings.Replace(good, `"disks"`, `""`, 1), ""},
		"somebody else's by":      {strings.Replace(good, `"op"`, `"by":"spiffe://demo/operator/bob","op"`, 1), ""},
		"a by that is no id":      {strings.Replace(good, `"op"`, `"by":"bob","op"`, 1), ""},
		"import without a source": {strings.Replace(good, `"digest"`, `"import"`, 1), ""},
	} {
		t.Run(name, func(t *testing.T) {
			header := jsonType
			r := alpha.ask("ann", "POST", "/tasks", header, c.body)
			require.Contains(t, []int{400, 403, 411}, r.status, r.body)
			require.NotEmpty(t, r.problem.Code, r.body)
			if c.pointer != "" {
				require.JSONEq(t, `{"pointer":"`+c.pointer+`"}`, string(r.problem.More), r.body)
			}
			_, err := os.Stat(filepath.Join(alpha.dir, "state/tasks", id))
			require.ErrorIs(t, err, os.ErrNotExist)
		})
	}
	t.Run("the unharmed one is taken", func(t *testing.T) {
		alpha.file("disks/a", 10, 1)
		require.Equal(t, 200, alpha.ask("ann", "POST", "/tasks", jsonType, good).status)
	})
	t.Run("a master may name another", func(t *testing.T) {
		body := strings.Replace(strings.Replace(good, `"op"`, `"by":"spiffe://demo/operator/bob","op"`, 1), id, api.NewID(), 1)
		r := alpha.ask("hub", "POST", "/tasks", jsonType, body)
		require.Equal(t, 200, r.status, r.body)
	})
}

func TestTasksOfOthers(t *testing.T) {
	w := newWorld(t, "", "alpha")
	alpha := w.all["alpha"].start()
	alpha.file("disks/a", 10, 1)
	export, _ := w.pair("a")
	alpha.follow("ann", export)

	t.Run("D59 another caller's task id", func(t *testing.T) {
		for _, route := range api.Routes {
			if !route.Task {
				continue
			}
			header := map[string]string{}
			body := ""
			if route.Media != "" {
				header["Content-Type"] = route.Media
				body = map[string]string{api.RouteAck: `{"seq":1}`, api.RouteLimit: `{"bwlimit":0}`, api.RouteFinish: `{"digest":"b3:` + strings.Repeat("0", 64) + `"}`}[route.Name]
			}
			theirs := alpha.ask("bob", route.Method, fill(route.Path, export.ID), header, body)
			nobodys := alpha.ask("bob", route.Method, fill(route.Path, api.NewID()), header, body)
			require.Equal(t, 404, theirs.status, "%s: %s", route.Name, theirs.body)
			require.Equal(t, nobodys.body, theirs.body, route.Name)
			require.Equal(t, nobodys.header.Get("Content-Type"), theirs.header.Get("Content-Type"))
			if route.Method != http.MethodHead {
				require.Equal(t, "unknown_task", theirs.problem.Code, route.Name)
				require.NotEmpty(t, theirs.problem.DirID)
			}
		}
		require.Equal(t, api.StateRunning, waitForTask(alpha, "ann", export.ID).State)
	})
	t.Run("D66 id ..%2f", func(t *testing.T) {
		for _, id := range []string{"..%2f", "..%2f..%2fstatus", "%2e%2e%2f", "..%5c", "%00", "x", export.ID + "%2f", strings.ToUpper(export.ID)} {
			for _, rest := range []string{"", "/feed", "/content"} {
				r := alpha.ask("ann", "GET", "/tasks/"+id+rest, nil, "")
				require.Contains(t, []int{400, 404}, r.status, "%s%s: %s", id, rest, r.body)
				require.NotContains(t, r.body, "%2")
			}
		}
	})
	t.Run("lists show the caller's own", func(t *testing.T) {
		r := alpha.ask("bob", "GET", "/tasks", nil, "")
		require.JSONEq(t, `{"tasks":[]}`, r.body)
		r = alpha.ask("ann", "GET", "/tasks", nil, "")
		require.Contains(t, r.body, export.ID)
		r = alpha.ask("ann", "GET", "/tasks?n=1000000000", nil, "")
		require.Equal(t, 400, r.status)
	})
	t.Run("D62 offset mismatch", func(t *testing.T) {
		for _, r := range []reply{
			alpha.ask("ann", "GET", "/tasks/"+export.ID+"/feed?after=1000", nil, ""),
			alpha.ask("ann", "POST", "/tasks/"+export.ID+"/ack", jsonType, `{"seq":1000}`),
		} {
			require.Equal(t, 409, r.status, r.body)
			require.Equal(t, "above_last", r.problem.Code)
		}
		for _, after := range []string{"-1", "x", "1e3", "9007199254740993", "99999999999999999999"} {
			r := alpha.ask("ann", "GET", "/tasks/"+export.ID+"/feed?after="+after, nil, "")
			require.Equal(t, 400, r.status, after)
		}
	})
	t.Run("no ticket in any record, list or log", func(t *testing.T) {
		export, args := w.pair("a")
		args.Source.Node = "alpha"
		args.Path = "b"
		alpha.follow("ann", export)
		req := newRequest(api.OpImport, args)
		alpha.post("ann", req)
		info := alpha.ask("ann", "GET", "/tasks/"+req.ID, nil, "")
		require.Equal(t, 200, info.status)
		require.NotContains(t, info.body, args.Source.Ticket)
		require.NotContains(t, alpha.log.String(), args.Source.Ticket)
		require.NotContains(t, alpha.ask("ann", "GET", "/tasks", nil, "").body, args.Source.Ticket)
	})
}

func TestContent(t *testing.T) {
	w := newWorld(t, "", "alpha")
	alpha := w.all["alpha"].start()
	data := string(alpha.file("disks/a", 600_000, 1))
	export, args := w.pair("a")
	alpha.follow("ann", export)
	path := "/tasks/" + export.ID + "/content"
	get := func(header map[string]string) reply { return alpha.ask("ann", "GET", path, header, "") }

	whole := get(nil)
	require.Equal(t, 200, whole.status)
	require.Equal(t, data, whole.body)
	etag := whole.header.Get("ETag")
	require.Regexp(t, `^"[0-9a-f]{32}"$`, etag)
	require.Equal(t, "bytes", whole.header.Get("Accept-Ranges"))
	require.NotEmpty(t, whole.header.Get("Last-Modified"))

	for _, c := range []struct {
		name, header string
		from, to     int
	}{
		{"the first byte", "bytes=0-0", 0, 1},
		{"a middle", "bytes=1000-270000", 1000, 270001},
		{"to the end", "bytes=599990-", 599990, 600000},
		{"beyond the end, cut", "bytes=599990-700000", 599990, 600000},
		{"the last bytes", "bytes=-10", 599990, 600000},
		{"more last bytes than there are", "bytes=-700000", 0, 600000},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := get(map[string]string{"Range": c.header})
			require.Equal(t, 206, r.status)
			require.Equal(t, fmt.Sprintf("bytes %d-%d/600000", c.from, c.to-1), r.header.Get("Content-Range"))
			require.True(t, data[c.from:c.to] == r.body)
			require.Equal(t, etag, r.header.Get("ETag"))
		})
	}
	for _, c := range []struct{ name, header string }{
		{"D61 Range in two parts", "bytes=0-1,5-6"},
		{"D61 beyond the end", "bytes=600000-"},
		{"D61 reversed", "bytes=5-2"},
		{"D61 of 2^64", "bytes=0-18446744073709551616"},
		{"D61 with a sign", "bytes=+1-2"},
		{"D61 empty suffix", "bytes=-0"},
		{"D61 without numbers", "bytes=-"},
		{"D61 without a unit", "0-5"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := get(map[string]string{"Range": c.header})
			require.Equal(t, 416, r.status)
			require.Equal(t, "bad_range", r.problem.Code)
			require.Equal(t, "bytes */600000", r.header.Get("Content-Range"))
		})
	}
	t.Run("another unit is the whole", func(t *testing.T) {
		require.Equal(t, 200, get(map[string]string{"Range": "pieces=1-2"}).status)
	})
	t.Run("If-Range", func(t *testing.T) {
		r := get(map[string]string{"Range": "bytes=0-4", "If-Range": etag})
		require.Equal(t, 206, r.status)
		for _, other := range []string{`"0123"`, "W/" + etag, whole.header.Get("Last-Modified")} {
			r = get(map[string]string{"Range": "bytes=0-4", "If-Range": other})
			require.Equal(t, 200, r.status, other)
			require.Len(t, r.body, 600_000)
		}
	})
	t.Run("HEAD", func(t *testing.T) {
		r := alpha.ask("ann", "HEAD", path, map[string]string{"Range": "bytes=0-4"}, "")
		require.Equal(t, 206, r.status)
		require.Equal(t, "5", r.header.Get("Content-Length"))
		require.Empty(t, r.body)
		r = alpha.ask("ann", "HEAD", path, nil, "")
		require.Equal(t, 200, r.status)
		require.Equal(t, "600000", r.header.Get("Content-Length"))
	})
	t.Run("named reader and ticket are the whole right", func(t *testing.T) {
		w.ids["beta"] = w.identity(filepath.Join(w.dir, "beta"), "node", "beta")
		ticket := map[string]string{api.TicketHeader: args.Source.Ticket}
		require.Equal(t, 200, alpha.ask("beta", "GET", path, ticket, "").status)
		require.Equal(t, 404, alpha.ask("beta", "GET", path, nil, "").status)
		require.Equal(t, 404, alpha.ask("beta", "GET", path, map[string]string{api.TicketHeader: api.NewTicket()}, "").status)
		require.Equal(t, 404, alpha.ask("bob", "GET", path, ticket, "").status)
		require.Equal(t, 404, alpha.ask("beta", "GET", "/tasks/"+export.ID, ticket, "").status)
		require.Equal(t, 404, alpha.ask("beta", "DELETE", "/tasks/"+export.ID, ticket, "").status)
	})
	t.Run("manifest", func(t *testing.T) {
		r := alpha.ask("ann", "GET", "/tasks/"+export.ID+"/manifest?from=0&n=64", nil, "")
		require.Equal(t, 200, r.status)
		require.Contains(t, r.body, digest([]byte(data)))
		require.Equal(t, api.TypeFeed, r.header.Get("Content-Type"))
		for _, q := range []string{"from=-1", "n=0", "n=1025", "from=x", "piece=1", "rehash=1", "piece=x&rehash=1", "piece=0&sub=65536&rehash=1"} {
			r := alpha.ask("ann", "GET", "/tasks/"+export.ID+"/manifest?"+q, nil, "")
			require.Equal(t, 400, r.status, "%s: %s", q, r.body)
		}
		require.Equal(t, 416, alpha.ask("ann", "GET", "/tasks/"+export.ID+"/manifest?from=7", nil, "").status)
		require.Equal(t, 200, alpha.ask("ann", "GET", "/tasks/"+export.ID+"/manifest?piece=0&rehash=1", nil, "").status)
	})
	t.Run("finish", func(t *testing.T) {
		finish := func(d string) reply {
			return alpha.ask("ann", "POST", "/tasks/"+export.ID+"/finish", jsonType, `{"digest":"`+d+`"}`)
		}
		require.Equal(t, 400, finish("b3:XYZ").status)
		require.Equal(t, "digest_mismatch", finish(digest([]byte("other"))).problem.Code)
		first := finish(digest([]byte(data)))
		require.Equal(t, 200, first.status, first.body)
		require.Equal(t, first.body, finish(digest([]byte(data))).body, "again")
		require.Equal(t, "conflict", finish(digest([]byte("other"))).problem.Code)
		require.Equal(t, "too_late", get(nil).problem.Code)
		alpha.restart()
		require.Equal(t, first.body, finish(digest([]byte(data))).body, "after a restart")
	})
}
