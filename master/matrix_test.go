package master_test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"gantry/api"
	"gantry/config"
	"gantry/job"

	"github.com/stretchr/testify/require"
)

// askAs makes a request on the local socket as another user of the machine.
// Only root can.
func (w *world) askAs(uid int, method, path, media, body string) reply {
	w.t.Helper()
	if os.Getuid() != 0 {
		w.t.Skip("only root can ask as another user")
	}
	curl, err := exec.LookPath("curl")
	if err != nil {
		w.t.Skip("curl is not installed")
	}
	args := []string{"-sS", "--path-as-is", "--max-time", "20", "--unix-socket", filepath.Join(w.dir, "local"), "-X", method, "-w", "\n%{http_code} %{content_type}"}
	if method == http.MethodHead {
		args = append(args, "-I")
	}
	if media != "" {
		args = append(args, "-H", "Content-Type: "+media, "--data-binary", body)
	}
	cmd := exec.Command(curl, append(args, "http://local"+api.MasterPrefix+path)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid), NoSetGroups: true}}
	out, err := cmd.CombinedOutput()
	require.NoError(w.t, err, "%s", out)
	text := strings.TrimSuffix(string(out), "\n")
	i := strings.LastIndexByte(text, '\n')
	status, media, _ := strings.Cut(text[i+1:], " ")
	code, err := strconv.Atoi(status)
	require.NoError(w.t, err, "%s", out)
	r := reply{status: code, header: http.Header{"Content-Type": {media}}, body: text[:max(i, 0)]}
	if code >= 400 && method != http.MethodHead {
		require.NoError(w.t, api.DecodeBytes([]byte(r.body), &r.problem), r.body)
	}
	return r
}

// TestAuthorisationMatrix asks every route of the table as every kind of caller,
// with jobs of his own and of others. What must come out is computed from the
// grants in the configuration and the table alone.
func TestAuthorisationMatrix(t *testing.T) {
	w := newWorld(t, "").start()
	cfg, err := config.LoadMaster(w.config)
	require.NoError(t, err)
	rights := map[string]map[api.Right]bool{} // by who of a grant
	for _, g := range cfg.Grants {
		if rights[g.Who] == nil {
			rights[g.Who] = map[api.Right]bool{}
		}
		for _, may := range g.May {
			rights[g.Who][api.Right(may)] = true
		}
	}
	type caller struct {
		name, id string
		uid      int // -1: by certificate
	}
	callers := []caller{
		{"ann", "spiffe://demo/operator/ann", -1}, {"bob", "spiffe://demo/operator/bob", -1}, {"eve", "spiffe://demo/operator/eve", -1},
		{"root", "spiffe://demo/operator/root", -1}, {"sue", "spiffe://demo/operator/sue", -1}, {"alpha", "spiffe://demo/node/alpha", -1},
		{"hub", "spiffe://demo/master/hub", -1}, {self, "", -1},
	}
	if os.Getuid() == 0 {
		callers = append(callers, caller{other, "local:1000", 1000}, caller{alien, "local:1001", 1001})
	}
	list, err := w.ca.CRL()
	require.NoError(t, err)
	bodies := map[string]string{
		api.RouteSubmit: later(digestSpec("a")), api.RouteRetry: "{}", api.RouteSelftest: "x", api.RouteCRL: string(list.PEM),
		api.RouteRecords: `{"records":[{"seq":1,"t":"2026-01-01T00:00:00.000Z","kind":"log","level":"info","text":"x"}]}`,
	}
	asked := 0
	for _, c := range callers {
		// may says whether a grant, or being the master's own user, gives a right.
		may := func(right api.Right) bool { return c.name == self || rights[c.id][right] }
		ask := func(route api.Route, id string) reply {
			body := ""
			if route.Media != "" {
				body = bodies[route.Name]
			}
			path := strings.Replace(fill(route.Path, id), "headers", map[string]string{"GET": "headers", "HEAD": "range", "POST": "echo"}[route.Method], 1)
			asked++
			if c.uid >= 0 {
				return w.askAs(c.uid, route.Method, path, route.Media, body)
			}
			return w.ask(c.name, route.Method, path, map[string]string{"Content-Type": route.Media}, body)
		}
		// Jobs that have ended, so that no request waits for an end.
		foreign := w.ended("root")
		if c.name == "root" {
			foreign = w.ended(self)
		}
		own := ""
		if may(api.MayDigest) && c.name != "bob" {
			if c.uid >= 0 {
				own = into[api.Job](t, w.askAs(c.uid, "POST", "/jobs", api.TypeJSON, later(digestSpec("a")))).ID
				require.Equal(t, 202, w.askAs(c.uid, "DELETE", "/jobs/"+own, "", "").status)
			} else {
				own = w.ended(c.name)
			}
		}
		for _, route := range api.MasterRoutes {
			for object, id := range map[string]string{"own": own, "foreign": foreign, "unknown": api.NewID()} {
				if id == "" || !route.Task && object != "unknown" {
					continue
				}
				name := fmt.Sprintf("%s %s %s of %s job", c.name, route.Method, route.Name, object)
				r := ask(route, id)
				switch {
				case c.name == alien:
					require.Equal(t, 403, r.status, name)
				case route.Task && (object == "unknown" || object == "foreign" && (route.Right == api.NoRight || !may(route.Right))):
					require.Equal(t, 404, r.status, "%s: %s", name, r.body)
					require.Equal(t, "unknown_job", r.problem.Code, name)
				case !route.Task && route.Right != api.NoRight && !may(route.Right),
					(route.Name == api.RouteSubmit || route.Name == api.RouteRetry) && !may(api.MayDigest):
					require.Equal(t, 403, r.status, "%s: %s", name, r.body)
				default:
					// Let through: what follows is about the request, not about rights.
					require.NotContains(t, []int{401, 403, 404, 500}, r.status, "%s: %s", name, r.body)
				}
			}
		}
	}
	require.Greater(t, asked, 200)
	if os.Getuid() != 0 {
		t.Log("other users of the machine were left out: only root can ask as them")
	}
}

// ended is a job of a caller that was cancelled before it began.
func (w *world) ended(who string) string {
	w.t.Helper()
	id := w.submit(who, "a").ID
	require.Equal(w.t, 202, w.ask(who, "DELETE", "/jobs/"+id, nil, "").status)
	return id
}

func callOf(op, resource string, nodes ...string) job.Spec {
	return job.Spec{Kind: job.Call, Call: &api.CallSpec{Nodes: nodes, Op: op, Args: api.CallArgs{Resource: resource}}}
}

// A master lends nobody its own rights at the nodes: each part of a job needs a
// grant for that node and resource.
func TestJobsNeedTheRightsOfTheirTasks(t *testing.T) {
	w := newWorld(t, `[[grant]]
who = "spiffe://demo/operator/una"
may = ["export", "import:create", "import:update"]
nodes = ["*"]
resources = ["disks"]
`)
	w.ids["una"] = w.identity(filepath.Join(w.dir, "una"), "operator", "una")
	w.start()
	place := func(node, resource string) job.Place {
		return job.Place{Node: node, File: api.File{Resource: resource, Path: "a"}}
	}
	for name, c := range map[string]struct {
		who  string
		spec job.Spec
		want int
	}{
		"digest":                      {"ann", job.Spec{Kind: job.Digest, From: place("alpha", "disks")}, 201},
		"digest of another resource":  {"ann", job.Spec{Kind: job.Digest, From: place("alpha", "mail")}, 403},
		"digest at another node":      {"ann", job.Spec{Kind: job.Digest, From: place("gamma", "disks")}, 403},
		"copy":                        {"ann", job.Spec{Kind: job.Copy, From: place("alpha", "disks"), To: place("beta", "disks")}, 201},
		"copy that replaces":          {"ann", job.Spec{Kind: job.Copy, Mode: api.ModeReplace, From: place("alpha", "disks"), To: place("beta", "disks")}, 403},
		"copy that updates":           {"ann", job.Spec{Kind: job.Copy, Mode: api.ModeUpdate, From: place("alpha", "disks"), To: place("beta", "disks")}, 403},
		"copy that deletes":           {"una", job.Spec{Kind: job.Copy, Mode: api.ModeUpdate, From: place("alpha", "disks"), To: place("beta", "disks"), Options: job.Options{Extraneous: api.ExtraneousDelete}}, 403},
		"the same without deleting":   {"una", job.Spec{Kind: job.Copy, Mode: api.ModeUpdate, From: place("alpha", "disks"), To: place("beta", "disks")}, 201},
		"copy from elsewhere":         {"ann", job.Spec{Kind: job.Copy, From: place("alpha", "mail"), To: place("beta", "disks")}, 403},
		"copy to elsewhere":           {"ann", job.Spec{Kind: job.Copy, From: place("alpha", "disks"), To: place("beta", "mail")}, 403},
		"copy of who only exports":    {"bob", job.Spec{Kind: job.Copy, From: place("alpha", "mail"), To: place("beta", "mail")}, 403},
		"verify":                      {"ann", job.Spec{Kind: job.Verify, From: place("alpha", "disks"), To: place("beta", "disks")}, 201},
		"verify against elsewhere":    {"ann", job.Spec{Kind: job.Verify, From: place("alpha", "disks"), To: place("beta", "mail")}, 403},
		"export":                      {"bob", job.Spec{Kind: job.Export, From: place("alpha", "mail"), Local: "/x"}, 201},
		"import of who only exports":  {"bob", job.Spec{Kind: job.Import, To: place("alpha", "mail"), Local: "/x"}, 403},
		"command by arguments":        {"ann", job.Spec{Kind: job.Digest, From: place("alpha", "disks"), Options: job.Options{Args: []string{"A=b"}}}, 403},
		"command at the target":       {"ann", job.Spec{Kind: job.Copy, From: place("alpha", "disks"), To: place("beta", "disks"), Options: job.Options{TargetArgs: []string{"A=b"}}}, 403},
		"unknown node, all granted":   {"root", job.Spec{Kind: job.Digest, From: place("gamma", "disks")}, 422},
		"unknown node, own user":      {self, job.Spec{Kind: job.Digest, From: place("gamma", "disks")}, 422},
		"everything for the own user": {self, job.Spec{Kind: job.Copy, Mode: api.ModeReplace, From: place("alpha", "x"), To: place("beta", "y")}, 201},
		"call":                        {"ann", callOf(api.CallDigest, "disks", "alpha", "beta"), 201},
		"call of another resource":    {"ann", callOf(api.CallDigest, "mail", "alpha"), 403},
		"call of one node too many":   {"ann", callOf(api.CallDigest, "disks", "alpha", "gamma"), 403},
		"call that lists":             {"ann", callOf(api.CallList, "disks", "alpha"), 403},
		"call of unknown nodes":       {"root", callOf(api.CallStatus, "", "alpha", "gamma"), 422},
		"nothing without a grant":     {"eve", job.Spec{Kind: job.Digest, From: place("alpha", "disks")}, 403},
	} {
		t.Run(name, func(t *testing.T) {
			r := w.ask(c.who, "POST", "/jobs", jsonType, later(c.spec))
			require.Equal(t, c.want, r.status, r.body)
		})
	}
}
