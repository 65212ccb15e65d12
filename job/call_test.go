package job_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"gantry/api"
	"gantry/client"
	"gantry/config"
	"gantry/feedback"
	"gantry/job"

	"github.com/stretchr/testify/require"
)

func TestCallsThatCannotBeMeant(t *testing.T) {
	ok := func() api.CallSpec { return api.CallSpec{Nodes: []string{"a", "b", "c"}, Op: api.CallStatus} }
	good := ok()
	require.NoError(t, job.CheckCall(&good))
	for want, change := range map[string]func(*api.CallSpec){
		"/call/nodes: names 0":                                 func(s *api.CallSpec) { s.Nodes = nil },
		"/call/nodes: names 4097":                              func(s *api.CallSpec) { s.Nodes = make([]string, 4097) },
		"/call/nodes/1: \"n[1-2]\" is no":                      func(s *api.CallSpec) { s.Nodes[1] = "n[1-2]" },
		"/call/nodes/2: \"a\" stands there":                    func(s *api.CallSpec) { s.Nodes[2] = "a" },
		"/call/op: \"delete\" is no":                           func(s *api.CallSpec) { s.Op = "delete" },
		"/call/window: is -1":                                  func(s *api.CallSpec) { s.Window = -1 },
		"/call/window: is 1025":                                func(s *api.CallSpec) { s.Window = 1025 },
		"/call/timeout: is 86401":                              func(s *api.CallSpec) { s.Timeout = 86401 },
		"/call/sample: is 4; allowed: 1 to 3":                  func(s *api.CallSpec) { s.Sample = 4 },
		"/call/waves: \"0\" is a wave of no":                   func(s *api.CallSpec) { s.Waves = []string{"0"} },
		"/call/waves: \"101%\" is no":                          func(s *api.CallSpec) { s.Waves = []string{"101%"} },
		"/call/waves: \"+1\" is no":                            func(s *api.CallSpec) { s.Waves = []string{"+1"} },
		"/call/waves: rest can only":                           func(s *api.CallSpec) { s.Waves = []string{"rest", "1"} },
		"/call/waves: there are 65":                            func(s *api.CallSpec) { s.Waves = make([]string, 65) },
		"/call/max_failed: \"few\" is no":                      func(s *api.CallSpec) { s.MaxFailed = "few" },
		"/call/args/resource: does not fit; write status":      func(s *api.CallSpec) { s.Args.Resource = "disks" },
		"/call/args/resource: does not fit; write list RES":    func(s *api.CallSpec) { s.Op = api.CallList },
		"/call/args/node: does not fit; write reach NODE":      func(s *api.CallSpec) { s.Op = api.CallReach },
		"/call/args/crl: does not fit; write crl":              func(s *api.CallSpec) { s.Op = api.CallCRL },
		"/call/args/full: does not fit":                        func(s *api.CallSpec) { s.Args.Full = true },
		"/call/args/crl: has 131073 bytes; allowed: at most 1": func(s *api.CallSpec) { s.Op, s.Args.CRL = api.CallCRL, make([]byte, 131073) },
	} {
		s := ok()
		change(&s)
		err := job.CheckCall(&s)
		require.ErrorContains(t, err, want)
		wire, isWire := errors.AsType[*feedback.Error](err)
		require.True(t, isWire)
		require.Equal(t, api.BadSpec.Name, wire.Code)
	}
	require.Error(t, job.CheckCall(nil))
}

// called is a world whose nodes answer status, and what a call at it left.
type called struct {
	*world
	mu   sync.Mutex
	seen []string
}

func newCalled(t *testing.T, answer func(node string, w http.ResponseWriter, r *http.Request)) *called {
	c := &called{world: newWorld(t)}
	clients := c.driver.Client
	for _, f := range []*fake{c.alpha, c.beta} {
		next := f.srv.Config.Handler
		f.srv.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != api.Prefix+"/status" {
				next.ServeHTTP(w, r)
				return
			}
			c.mu.Lock()
			c.seen = append(c.seen, f.name)
			c.mu.Unlock()
			answer(f.name, w, r)
		})
	}
	c.driver.Lean = func(node string) (*client.Client, error) {
		if node == "gone" {
			// nothing listens on the port of discard
			return client.New(client.Config{Node: config.ClusterNode{Name: node, URL: "https://127.0.0.1:9"}, TLS: client.TLS(c.operator, config.ClusterNode{Name: node}), Lean: true}), nil
		}
		return clients(node)
	}
	return c
}

func callOf(nodes ...string) job.Spec {
	return job.Spec{Kind: job.Call, Cluster: "demo", Call: &api.CallSpec{Nodes: nodes, Op: api.CallStatus}}
}

func version(node string, w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", api.TypeJSON)
	io.WriteString(w, fmt.Sprintf(`{"node":%q,"version":"v1"}`, node))
}

func TestCallRecordsEveryNode(t *testing.T) {
	w := newCalled(t, version)
	j, resumed, err := w.store.Begin(callOf("alpha", "beta"), false)
	require.NoError(t, err)
	require.False(t, resumed)
	defer j.Close()
	var heard []string
	w.driver.Heard = func(node string, rec feedback.Record) { w.mu.Lock(); heard = append(heard, node); w.mu.Unlock() }
	final, err := w.driver.Run(t.Context(), j)
	require.NoError(t, err)
	require.Contains(t, string(final.Line), `"kind":"result","value":{"op":"status","nodes":2,"counts":{"done":2}`)
	require.Len(t, heard, 2)
	answers, err := j.Answers()
	require.NoError(t, err)
	require.Len(t, answers, 2)
	for _, a := range answers {
		require.Contains(t, string(a.Answer), a.Node)
		require.Equal(t, api.Done, a.Outcome)
		require.NotEmpty(t, a.Pin)
		require.False(t, a.Expires.IsZero())
	}
	groups := job.FoldAnswers(api.CallStatus, answers)
	require.Len(t, groups, 1, "what only the node's name makes different is equal")
	require.Equal(t, "alpha,beta", groups[0].Set())
}

func TestCallNamesWhoIsNotDone(t *testing.T) {
	w := newCalled(t, func(node string, rw http.ResponseWriter, r *http.Request) {
		if node == "beta" {
			rw.Header().Set("Content-Type", api.TypeProblem)
			rw.WriteHeader(403)
			rw.Write(api.Encode(api.Problem{Status: 403, Code: api.Forbidden.Name, Detail: "no grant\x1b[2J"}))
			return
		}
		version(node, rw, r)
	})
	j, _, err := w.store.Begin(callOf("alpha", "beta", "gone"), false)
	require.NoError(t, err)
	defer j.Close()
	final, err := w.driver.Run(t.Context(), j)
	require.NoError(t, err)
	wire, ok := final.Body.(*feedback.Error)
	require.True(t, ok)
	require.Equal(t, api.NotAllDone.Name, wire.Code)
	require.Contains(t, wire.Message, "1 of 3 nodes are done; refused: beta; unreachable: gone")
	require.Contains(t, string(wire.Detail), `"not_done":{"refused":"beta","unreachable":"gone"}`)
	answers, err := j.Answers()
	require.NoError(t, err)

	// a retry calls those, and those only, whose recorded outcome is named
	again, ok := job.RetryCall(j.Spec.Call, j.ID, answers, []api.Outcome{api.Unreachable, api.Unknown})
	require.True(t, ok)
	require.Equal(t, []string{"gone"}, again.Nodes)
	require.Equal(t, j.ID, again.RetryOf)
	again, ok = job.RetryCall(j.Spec.Call, j.ID, answers, nil)
	require.True(t, ok)
	require.Equal(t, []string{"beta", "gone"}, again.Nodes)
	_, ok = job.RetryCall(j.Spec.Call, j.ID, answers, []api.Outcome{api.Failed})
	require.False(t, ok)
}

// A call that was cut off goes on: nodes whose outcome is in the feed are not
// called again.
func TestCallGoesOn(t *testing.T) {
	ctx, leave := context.WithCancelCause(t.Context())
	var w *called
	first := true
	w = newCalled(t, func(node string, rw http.ResponseWriter, r *http.Request) {
		if node == "beta" && first {
			first = false
			leave(job.ErrLeft)
			<-r.Context().Done()
			return
		}
		version(node, rw, r)
	})
	spec := callOf("alpha", "beta")
	spec.Call.Waves = []string{"1"}
	j, _, err := w.store.Begin(spec, false)
	require.NoError(t, err)
	_, err = w.driver.Run(ctx, j)
	require.ErrorIs(t, err, job.ErrLeft)
	require.NoError(t, j.Close())
	j, err = w.store.Open(j.ID)
	require.NoError(t, err)
	defer j.Close()
	final, err := w.driver.Run(t.Context(), j)
	require.NoError(t, err)
	require.Contains(t, string(final.Line), `"counts":{"done":2}`)
	require.Equal(t, "alpha beta beta", strings.Join(w.seen, " "))

	fresh, resumed, err := w.store.Begin(spec, false)
	require.NoError(t, err)
	require.False(t, resumed, "the same call asks afresh")
	require.NoError(t, fresh.Close())
}

// Whoever cancels keeps what came.
func TestCallCancelled(t *testing.T) {
	cancel := make(chan struct{})
	w := newCalled(t, func(node string, rw http.ResponseWriter, r *http.Request) {
		if node == "beta" {
			close(cancel)
			<-r.Context().Done()
			return
		}
		version(node, rw, r)
	})
	w.driver.Cancel = cancel
	spec := callOf("alpha", "beta", "gone")
	spec.Call.Waves = []string{"1", "1"}
	j, _, err := w.store.Begin(spec, false)
	require.NoError(t, err)
	defer j.Close()
	final, err := w.driver.Run(t.Context(), j)
	require.NoError(t, err)
	require.Equal(t, api.Cancelled, api.OutcomeOf(&final))
	require.Contains(t, string(final.Line), `"done":1`)
	require.Contains(t, string(final.Line), `"not_tried":"gone"`)
}

func TestCallDigest(t *testing.T) {
	w := newCalled(t, version)
	w.beta.run[api.OpDigest] = func(*fakeTask) string {
		return `"kind":"error","code":"io","message":"bad sector","retryable":true`
	}
	j, _, err := w.store.Begin(job.Spec{Kind: job.Call, Cluster: "demo", Call: &api.CallSpec{
		Nodes: []string{"alpha", "beta"}, Op: api.CallDigest, Args: api.CallArgs{Resource: "disks", Path: "a"},
	}}, false)
	require.NoError(t, err)
	defer j.Close()
	final, err := w.driver.Run(t.Context(), j)
	require.NoError(t, err)
	require.Contains(t, string(final.Line), `"counts":{"done":1,"failed":1}`)
	require.Contains(t, string(final.Line), "failed: beta")
}

func TestSampleIsReproducible(t *testing.T) {
	spec := callOf()
	for i := range 50 {
		spec.Call.Nodes = append(spec.Call.Nodes, fmt.Sprintf("n%d", i))
	}
	spec.Call.Sample = 5
	nodes := func(seed uint64) string {
		spec.Call.Seed = seed
		info, err := job.NewInfo(spec)
		require.NoError(t, err)
		require.Len(t, info.Tasks, 5)
		var all []string
		for _, n := range spec.Call.Nodes {
			if info.Tasks[n] != nil {
				all = append(all, n)
			}
		}
		return strings.Join(all, " ")
	}
	require.Equal(t, nodes(7), nodes(7))
	require.NotEqual(t, nodes(7), nodes(8))
}

func TestAnswersAreFolded(t *testing.T) {
	done := func(node, answer string) job.NodeAnswer {
		return job.NodeAnswer{Node: node, Outcome: api.Done, CallAnswer: api.CallAnswer{Answer: api.Raw(answer)}}
	}
	failed := func(node string, code *api.Code, text string) job.NodeAnswer {
		return job.NodeAnswer{Node: node, Outcome: code.Outcome, Err: code.Err(text)}
	}
	groups := job.FoldAnswers(api.CallReach, []job.NodeAnswer{
		done("n7", `{"b":1,"a":2}`), done("n1", `{"x":1}`), done("n2", `{"a":2,"b":1}`), done("n3", `{"b":1,"a":2}`),
		failed("n4", api.Unreached, "n4: no route"), failed("n5", api.NoAnswer, "n5: no route"), failed("n6", api.Unreached, "n6: no route"),
	})
	var got []string
	for _, g := range groups {
		got = append(got, g.Set()+" "+string(g.Outcome))
	}
	require.Equal(t, []string{"n[2-3,7] done", "n1 done", "n[4,6] unreachable", "n5 unknown"}, got, "the same text with another outcome is another group")
	require.Equal(t, "{\n  \"a\": 2,\n  \"b\": 1\n}", groups[0].Text)
}
