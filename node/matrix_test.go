package node_test

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"gantry/api"
	"gantry/internal/testkit"

	"github.com/stretchr/testify/require"
)

// asks says for each route whom docs/protocol.md lets in, in its own words
// (the last column of its table of calls), and how the test asks: what follows
// the path, the body, and the answer to whoever may.
var asks = map[string]struct {
	who, query, body string
	answer           int
}{
	"status":        {"`status`", "", "", 200},
	"resources":     {"`list`", "", "", 200},
	"files":         {"`list`", "", "", 200},
	"check":         {"`list`", "", "", 200},
	"start":         {perOperation, "", "", 200},
	"tasks":         {"the caller's own", "", "", 200},
	"task":          {"creator", "", "", 200},
	"feed":          {"creator", "", "", 200},
	"cancel":        {"creator", "", "", 202},
	"ack":           {"creator", "", `{"seq":1}`, 200},
	"limit":         {"creator", "", `{"bwlimit":0}`, 200},
	"manifest":      {orReader, "?from=0&n=64", "", 200},
	"content":       {orReader, "", "", 200},
	"pieces":        {orReader, "?r=0-10", "", 200},
	"finish":        {orReader, "", `{"digest":"b3:` + strings.Repeat("0", 64) + `"}`, 409}, // it is another
	"missing":       {orPusher, "", "", 200},
	"push manifest": {orPusher, "?want=1&last=1", "x", 409}, // nobody wants that
	"push pieces":   {orPusher, "?want=1&last=1", "x", 409},
	"push content":  {orPusher, "?want=1", "x", 409},
	"reach":         {"`status`", "", "", 200},
	"crl":           {bySignature, "", "", 409}, // it is in force already
	"selftest":      {"`selftest`", "", "x", 200},
}

const (
	perOperation = "of the operation: `export`, `import:create`, `import:replace`, `import:update`, `digest`; for a resource of kind command also `command`"
	orReader     = "creator or named reader"
	orPusher     = "creator or named pusher"
	bySignature  = "the CA's signature and a higher number"
)

// starts are the operations and what each needs.
var starts = []struct {
	op, resource, args string
	needs              []api.Right
}{
	{"export", "disks", ``, []api.Right{"export"}},
	{"digest", "disks", ``, []api.Right{"digest"}},
	{"import", "disks", `,"push":{}`, []api.Right{"import:create"}},
	{"import", "disks", `,"push":{},"mode":"create"`, []api.Right{"import:create"}},
	{"import", "disks", `,"push":{},"mode":"replace"`, []api.Right{"import:replace"}},
	{"import", "disks", `,"push":{},"mode":"update"`, []api.Right{"import:update"}},
	{"import", "disks", `,"push":{},"mode":"update","extraneous":"delete"`, []api.Right{"import:replace"}},
	{"export", "dump", ``, []api.Right{"export", "command"}},
	{"import", "restore", `,"push":{},"mode":"replace"`, []api.Right{"import:replace", "command"}},
	{"export", "frozen", ``, []api.Right{"export"}},
	{"digest", "frozen", ``, []api.Right{"digest"}},
	{"export", "nobody", ``, []api.Right{"export"}},
}

// TestMatrixIsTheDocumented holds the test's table and the route table to
// docs/protocol.md.
func TestMatrixIsTheDocumented(t *testing.T) {
	documented := testkit.Table(t, "../docs/protocol.md", "| route | call | body | right |")
	require.Len(t, documented, len(asks))
	for _, row := range documented {
		require.Equal(t, row[3], asks[row[0]].who, "route %s", row[0])
	}
	for _, route := range api.Routes {
		_, ok := asks[route.Name]
		require.True(t, ok, "route %s %s (%s) has no row here and in docs/protocol.md: say there who may ask", route.Method, route.Path, route.Name)
	}
}

// TestAuthorisationMatrix asks every route of the table as every kind of caller.
func TestAuthorisationMatrix(t *testing.T) {
	x := newMatrix(t)
	ticket := api.NewTicket()
	named := fmt.Sprintf(`{"id":"spiffe://demo/node/beta","ticket_sha256":%q}`, api.TicketSHA256(ticket))
	// Two tasks of each kind: one that names beta, and one of a master that was
	// asked by dora, who is not its creator.
	type object struct{ id, kind, creator, names string }
	var objects []object
	for _, o := range []object{{"", "export", "dora", "beta"}, {"", "import", "dora", "beta"}, {"", "export", "m1", ""}, {"", "import", "m1", ""}, {"", "digest", "cleo", ""}} {
		args := map[string]string{"export": `,"reader":`, "import": `,"push":`}[o.kind]
		switch {
		case o.names != "":
			args += named
		case o.kind == "import":
			args += "{}"
		default:
			args = ""
		}
		var r reply
		o.id, r = x.startTask(o.creator, o.kind, "disks", args)
		require.Equal(t, 200, r.status, r.body)
		objects = append(objects, o)
	}
	asked := 0

	t.Run("strangers", func(t *testing.T) {
		for name, more := range x.refuse {
			texts := map[string]bool{}
			for _, route := range api.Routes {
				ids := []string{objects[0].id, api.NewID()}
				if !route.Task {
					ids = ids[:1]
				}
				for _, id := range ids {
					r := x.ask(route, id, "disks", more)
					asked++
					require.Equal(t, 403, r.status, "%s: %s %s: %s", name, route.Method, route.Path, r.body)
					if route.Method != http.MethodHead {
						texts[names.ReplaceAllString(r.body, "X")] = true
					}
				}
			}
			for _, path := range []string{"/nothing", "/tasks/" + objects[0].id + "/nothing"} {
				texts[names.ReplaceAllString(x.via("GET", path, "", "", false, more).body, "X")] = true
				texts[names.ReplaceAllString(x.via("PATCH", path, "", "", false, more).body, "X")] = true
			}
			require.Len(t, texts, 1, "%s: whoever is nobody gets one answer to everything: %v", name, texts)
		}
	})
	t.Run("routes", func(t *testing.T) {
		for who := range x.ids {
			for _, route := range api.Routes {
				if route.Task || route.Name == api.RouteStart {
					continue
				}
				resources := []string{""}
				if strings.Contains(route.Path, "{resource}") {
					resources = []string{"disks", "frozen", "nobody"}
				}
				forbidden := map[string]string{}
				for _, resource := range resources {
					name := fmt.Sprintf("%s: %s %s of %q", who, route.Method, route.Name, resource)
					r := x.ask(route, "", resource, x.as(who))
					asked++
					rule := asks[route.Name].who
					right, single := strings.CutPrefix(rule, "`")
					switch {
					case single && !x.holds(who, resource, api.Right(strings.TrimSuffix(right, "`"))):
						require.Equal(t, 403, r.status, "%s: %s", name, r.body)
						if route.Method != http.MethodHead {
							require.Equal(t, "forbidden", r.problem.Code, name)
						}
						forbidden[resource] = masked(r)
					case resource == "nobody":
						require.Equal(t, 404, r.status, "%s: %s", name, r.body)
					default:
						require.Equal(t, asks[route.Name].answer, r.status, "%s: %s", name, r.body)
					}
				}
				// What he may not see and what there is not look alike.
				if theirs, ok := forbidden["frozen"]; ok {
					require.Equal(t, forbidden["nobody"], theirs, "%s: %s", who, route.Name)
				}
			}
		}
	})
	t.Run("operations", func(t *testing.T) {
		for who := range x.ids {
			answers := map[string]string{}
			for _, s := range starts {
				name := fmt.Sprintf("%s: %s of %s%s", who, s.op, s.resource, s.args)
				id, r := x.startTask(who, s.op, s.resource, s.args)
				asked++
				answers[s.op+s.resource] = masked(r)
				switch {
				case !x.holds(who, s.resource, s.needs...):
					require.Equal(t, 403, r.status, "%s: %s", name, r.body)
					require.Equal(t, "forbidden", r.problem.Code, name)
					r = x.via("GET", "/tasks/"+id, "", "", false, x.as(who))
					require.Equal(t, 404, r.status, "%s: a task that was refused is there: %s", name, r.body)
				case s.resource == "nobody":
					require.Equal(t, 404, r.status, "%s: %s", name, r.body)
				default:
					require.Equal(t, 200, r.status, "%s: %s", name, r.body)
					r = x.via("DELETE", "/tasks/"+id, "", "", false, x.as(who))
					require.Contains(t, []int{202, 409}, r.status, "%s: %s", name, r.body) // 409: it has ended
				}
			}
			if !x.holds(who, "nobody") && !x.holds(who, "frozen") {
				require.Equal(t, answers["exportnobody"], answers["exportfrozen"], who)
			}
		}
	})
	t.Run("tasks", func(t *testing.T) {
		nobodys := map[string]string{} // answers about tasks that there are not, by caller and route
		// Those who may cancel come last: nobody else's request may have changed anything.
		for _, last := range []bool{false, true} {
			for _, who := range []string{"dora", "cleo", "root", "eve", "beta", "m1"} {
				for _, o := range objects {
					for said, header := range map[string]string{"no ticket": "", "the ticket": ticket, "a wrong ticket": api.NewTicket()} {
						if header != "" && o.names == "" {
							continue
						}
						more := x.as(who)
						if header != "" {
							more["HTTP_GANTRY_TICKET"] = header
						}
						for _, route := range api.Routes {
							if !route.Task || last != (route.Name == api.RouteCancel && who == o.creator && said == "a wrong ticket" == (o.names != "")) {
								continue
							}
							name := fmt.Sprintf("%s with %s: %s %s of the %s of %s", who, said, route.Method, route.Name, o.kind, o.creator)
							named := who == o.names && said == "the ticket"
							may := who == o.creator
							switch asks[route.Name].who {
							case orReader:
								may = o.kind == "export" && (may || named)
							case orPusher:
								may = o.kind == "import" && (may || named)
							}
							if !may {
								key := who + header + route.Method + route.Name
								if nobodys[key] == "" {
									nobodys[key] = masked(x.ask(route, api.NewID(), "", more))
								}
								theirs := x.ask(route, o.id, "", more)
								asked++
								require.Equal(t, 404, theirs.status, "%s: %s", name, theirs.body)
								if route.Method != http.MethodHead {
									require.Equal(t, "unknown_task", theirs.problem.Code, name)
								}
								require.Equal(t, nobodys[key], masked(theirs), name)
								continue
							}
							if route.Name == api.RouteCancel && !last {
								continue
							}
							want := asks[route.Name].answer
							if o.kind == "digest" && (route.Name == api.RouteLimit || route.Name == api.RouteCancel) {
								want = 409 // it is over
							}
							r := x.ask(route, o.id, "", more)
							asked++
							require.Equal(t, want, r.status, "%s: %s", name, r.body)
						}
					}
				}
			}
			for _, o := range objects {
				if last || o.kind == "digest" {
					continue
				}
				require.Equal(t, api.StateRunning, x.task(o.creator, o.id).State, "%v", o)
			}
		}
	})
	t.Run("lists and details agree", func(t *testing.T) {
		for who := range x.ids {
			var listed, shown []string
			list := x.via("GET", "/tasks?n=1000", "", "", false, x.as(who))
			var tasks api.TaskList
			require.NoError(t, api.DecodeBytes([]byte(list.body), &tasks))
			for _, info := range tasks.Tasks {
				require.Equal(t, info.ID, x.task(who, info.ID).ID)
				require.Equal(t, x.ids[who], info.Caller)
			}
			for _, o := range objects {
				if slices.ContainsFunc(tasks.Tasks, func(i api.TaskInfo) bool { return i.ID == o.id }) {
					listed = append(listed, o.id)
				}
				if x.via("GET", "/tasks/"+o.id, "", "", false, x.as(who)).status == 200 {
					shown = append(shown, o.id)
				}
			}
			require.Equal(t, shown, listed, who)
			if !x.holds(who, "", api.MayList) {
				continue
			}
			var resources api.Resources
			require.NoError(t, api.DecodeBytes([]byte(x.via("GET", "/resources", "", "", false, x.as(who)).body), &resources))
			for _, name := range []string{"disks", "frozen", "dump", "restore"} {
				i := slices.IndexFunc(resources.Resources, func(r api.Resource) bool { return r.Name == name })
				require.Equal(t, x.holds(who, name), i >= 0, "%s: %s", who, name)
				for _, sub := range []string{"/files", "/check"} {
					status := x.via("GET", "/resources/"+name+sub, "", "", false, x.as(who)).status
					require.Equal(t, i < 0, status == 403, "%s: %s%s is %d", who, name, sub, status)
				}
				if i < 0 {
					continue
				}
				for _, right := range resources.Resources[i].May {
					require.True(t, x.holds(who, name, right), "%s: %s on %s", who, right, name)
				}
			}
		}
	})
	t.Run("D64 pages of other sites", func(t *testing.T) {
		for _, route := range api.Routes {
			for _, o := range []object{objects[2], {id: api.NewID()}} {
				for _, said := range []map[string]string{
					{"HTTP_SEC_FETCH_SITE": "cross-site"}, {"HTTP_SEC_FETCH_SITE": "same-site"}, {"HTTP_ORIGIN": "https://evil.example"}, {"HTTP_ORIGIN": "null"},
				} {
					more := x.as("root")
					maps.Copy(more, said)
					r := x.ask(route, o.id, "disks", more)
					asked++
					if route.Method == http.MethodGet || route.Method == http.MethodHead { // the page does not get to read it
						require.Empty(t, r.header.Get("Access-Control-Allow-Origin"), route.Name)
						continue
					}
					require.Equal(t, 403, r.status, "%s %s with %v: %s", route.Method, route.Name, said, r.body)
					require.Equal(t, "cross_site", r.problem.Code)
				}
			}
		}
	})
	require.Greater(t, asked, 1000)
}
