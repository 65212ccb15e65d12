package client_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gantry/api"
	"gantry/client"
	"gantry/config"
	"gantry/pki"

	"github.com/stretchr/testify/require"
)

// swarm is many nodes of one cluster in a bubble; each is what its kind says.
type swarm struct {
	t     *testing.T
	a     *authority
	nodes map[string]*swarmNode
	names []string
}

type swarmNode struct {
	config.ClusterNode
	pipes *pipes
	calls atomic.Int64
}

func newSwarm(t *testing.T) *swarm {
	return &swarm{t: t, a: newAuthority(t), nodes: map[string]*swarmNode{}}
}

// add makes a node. change may be nil; a nil handler listens and says nothing,
// not even in TLS.
func (s *swarm) add(name string, handler http.HandlerFunc, change func(*swarmNode, *tls.Config)) {
	n := &swarmNode{ClusterNode: config.ClusterNode{Name: name, URL: "https://" + name + ".test:8443"}, pipes: newPipes()}
	s.nodes[name] = n
	s.names = append(s.names, name)
	var done sync.WaitGroup
	if handler == nil {
		done.Go(func() {
			for {
				conn, err := n.pipes.Accept()
				if err != nil {
					return
				}
				n.calls.Add(1)
				done.Go(func() { io.Copy(io.Discard, conn); conn.Close() })
			}
		})
		s.t.Cleanup(func() { n.pipes.Close(); done.Wait() })
		return
	}
	server := pki.ServerTLS(s.a.issue(s.t, pki.RoleFront, name))
	if change != nil {
		change(n, server)
	}
	counted := func(w http.ResponseWriter, r *http.Request) { n.calls.Add(1); handler(w, r) }
	srv := &http.Server{Handler: http.HandlerFunc(counted), TLSConfig: server, ErrorLog: log.New(io.Discard, "", 0)}
	done.Go(func() { srv.ServeTLS(n.pipes, "", "") })
	s.t.Cleanup(func() { srv.Close(); n.pipes.Close(); done.Wait() })
}

func (s *swarm) client(name string) (*client.Client, error) {
	n := s.nodes[name]
	if n == nil {
		return nil, errors.New("there is no such node")
	}
	return client.New(client.Config{Node: n.ClusterNode, TLS: client.TLS(s.a.operator, n.ClusterNode), Dial: n.pipes.dial, Lean: true}), nil
}

func (s *swarm) fan() client.Fan { return client.Fan{Nodes: s.names, Client: s.client} }

func status(ctx context.Context, c *client.Client) (string, error) {
	st, err := c.Status(ctx)
	if err != nil {
		return "", err
	}
	return st.Version, nil
}

func answer(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", api.TypeJSON)
	w.Write(api.Encode(api.Status{Version: "v1"}))
}

func answerAfter(d time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(d):
			answer(w, r)
		case <-r.Context().Done():
		}
	}
}

func never(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// bubble runs fn with virtual time; what add started ends within it.
func bubble(t *testing.T, fn func(t *testing.T, s *swarm)) {
	synctest.Test(t, func(t *testing.T) { fn(t, newSwarm(t)) })
}

// Every way in which a node can fail to answer has its own code and outcome, and
// none of them costs the others anything.
func TestEachNodeHasItsOutcome(t *testing.T) {
	bubble(t, func(t *testing.T, s *swarm) {
		want := map[string]struct {
			code    string
			outcome api.Outcome
		}{}
		add := func(name, code string, handler http.HandlerFunc, change func(*swarmNode, *tls.Config)) {
			s.add(name, handler, change)
			outcome := api.Done
			if code != "" {
				outcome = api.CodeOf(code).Outcome
			}
			want[name] = struct {
				code    string
				outcome api.Outcome
			}{code, outcome}
		}
		stranger := newAuthority(t)
		add("good", "", answer, nil)
		add("slow", "", answerAfter(8*time.Second), nil)
		add("pinned", "", answer, func(n *swarmNode, server *tls.Config) {
			n.PinSet.Next = pki.Pin(server.Certificates[0].Leaf)
			n.Pins = []string{pki.Pin(s.a.operator.Cert.Leaf), n.PinSet.Next}
		})
		add("dead", "unreachable", answer, func(n *swarmNode, _ *tls.Config) { n.pipes.Close() })
		add("hanging", "unreachable", nil, nil)
		add("silent", "no_answer", never, nil)
		add("wrongpin", "pin_mismatch", answer, func(n *swarmNode, _ *tls.Config) { n.Pins = []string{pki.Pin(s.a.operator.Cert.Leaf)} })
		add("othernode", "server_certificate", answer, func(_ *swarmNode, server *tls.Config) { server.Certificates = []tls.Certificate{s.a.front.Cert} })
		add("otherca", "server_certificate", answer, func(_ *swarmNode, server *tls.Config) {
			server.Certificates = []tls.Certificate{stranger.issue(t, pki.RoleFront, "otherca").Cert}
		})
		add("refusing", "forbidden", func(w http.ResponseWriter, _ *http.Request) { refuse(w, api.Forbidden, dirA) }, nil)
		add("failing", "io", func(w http.ResponseWriter, _ *http.Request) { refuse(w, api.IO, dirA) }, nil)
		add("html", "not_ours", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<!doctype html><h1>It works!") }, nil)
		add("gateway", "unreachable", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "bad gateway", http.StatusBadGateway) }, nil)
		add("elsewhere", "front_refused", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "https://a/", http.StatusFound) }, nil)
		add("dying", "no_answer", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", api.TypeJSON)
			w.Header().Set("Content-Length", "1000")
			io.WriteString(w, `{"version":`)
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, nil)
		add("huge", "too_large", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", api.TypeJSON)
			w.Write(make([]byte, client.MaxLean+1))
		}, nil)
		s.names = append(s.names, "nobody")
		want["nobody"] = want["good"]

		began := time.Now()
		fan := s.fan()
		fan.Timeout = 10 * time.Second
		all := client.Call(t.Context(), fan, status).All()
		require.Equal(t, 10*time.Second, time.Since(began), "the deadline of the silent ones, and nothing on top")
		require.Len(t, all, len(s.names))
		for i, a := range all {
			require.Equal(t, s.names[i], a.Node, "in the order of the nodes")
			if a.Node == "nobody" {
				require.Equal(t, api.NotTried, a.Outcome())
				require.ErrorContains(t, a.Err, "there is no such node")
				continue
			}
			code := ""
			if a.Err != nil {
				code = a.Err.Code
				require.Contains(t, a.Err.Message, a.Node, "the message names the node")
			}
			require.Equal(t, want[a.Node].code, code, "%s: %v", a.Node, a.Err)
			require.Equal(t, want[a.Node].outcome, a.Outcome(), a.Node)
			require.Equal(t, a.Err == nil, a.Value == "v1")
		}
		by := map[string]client.Answered[string]{}
		for _, a := range all {
			by[a.Node] = a
		}
		require.Equal(t, config.PinNext, by["pinned"].Peer.Role)
		require.NotEmpty(t, by["wrongpin"].Peer.Pin, "the key that was shown is worth knowing")
		require.Empty(t, by["wrongpin"].Peer.Role)
		require.WithinDuration(t, time.Now().Add(48*time.Hour), by["good"].Peer.Expires, time.Hour)
		require.Equal(t, 8*time.Second, by["slow"].Took.Round(time.Second))
	})
}

// What was sent, could have changed something and was not answered is unknown.
func TestAnUnansweredChangeIsUnknown(t *testing.T) {
	bubble(t, func(t *testing.T, s *swarm) {
		s.add("dying", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, nil)
		s.add("gateway", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "bad gateway", http.StatusBadGateway) }, nil)
		s.add("hanging", nil, nil)
		for changes, want := range map[bool][]api.Outcome{
			false: {api.Unreachable, api.Unreachable, api.Unreachable},
			true:  {api.Unknown, api.Unknown, api.Unreachable},
		} {
			fan := s.fan()
			fan.Changes = changes
			for i, a := range client.Call(t.Context(), fan, status).All() {
				require.Equal(t, want[i], a.Outcome(), "%s, changes %t: %v", a.Node, changes, a.Err)
			}
		}
	})
}

// The window slides: the next node begins where one ends, never more than W of
// those that answer, and silent ones stand beside it.
func TestWindowSlides(t *testing.T) {
	bubble(t, func(t *testing.T, s *swarm) {
		var running, most atomic.Int64
		for i := range 20 {
			s.add(fmt.Sprintf("n%d", i), func(w http.ResponseWriter, r *http.Request) {
				most.Store(max(most.Load(), running.Add(1)))
				defer running.Add(-1)
				answerAfter(500*time.Millisecond)(w, r)
			}, nil)
		}
		fan := s.fan()
		fan.Window = 4
		began := time.Now()
		for a := range client.Call(t.Context(), fan, status).Each() {
			require.Nil(t, a.Err)
		}
		require.Equal(t, 2500*time.Millisecond, time.Since(began), "20 nodes, 4 at a time, half a second each")
		require.EqualValues(t, 4, most.Load())
	})
	bubble(t, func(t *testing.T, s *swarm) {
		for i := range 10 {
			s.add(fmt.Sprintf("silent%d", i), nil, nil)
		}
		for i := range 10 {
			s.add(fmt.Sprintf("n%d", i), answer, nil)
		}
		fan := s.fan()
		fan.Window, fan.Timeout = 2, 30*time.Second
		began := time.Now()
		var last time.Duration
		for a := range client.Call(t.Context(), fan, status).Each() {
			if a.Err == nil {
				last = time.Since(began)
			}
		}
		require.LessOrEqual(t, last, 6*client.Patience, "ten silent nodes before them cost their patience, not their deadlines")
		require.LessOrEqual(t, time.Since(began), 36*time.Second)
	})
}

func TestWaves(t *testing.T) {
	bubble(t, func(t *testing.T, s *swarm) {
		began := time.Now()
		at := map[string]time.Duration{}
		var mu sync.Mutex
		for i := range 6 {
			name := fmt.Sprintf("n%d", i)
			s.add(name, func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				at[name] = time.Since(began)
				mu.Unlock()
				answerAfter(time.Second)(w, r)
			}, nil)
		}
		fan := s.fan()
		fan.Waves = []int{1, 2}
		client.Call(t.Context(), fan, status).All()
		require.Equal(t, map[string]time.Duration{"n0": 0, "n1": time.Second, "n2": time.Second, "n3": 2 * time.Second, "n4": 2 * time.Second, "n5": 2 * time.Second}, at)
	})
}

// After too many failures no further node is begun; those under way go on.
func TestStopAfter(t *testing.T) {
	bubble(t, func(t *testing.T, s *swarm) {
		for i := range 6 {
			s.add(fmt.Sprintf("n%d", i), func(w http.ResponseWriter, _ *http.Request) { refuse(w, api.Forbidden, dirA) }, nil)
		}
		fan := s.fan()
		fan.Window, fan.StopAfter = 1, 2
		var outcomes []api.Outcome
		for _, a := range client.Call(t.Context(), fan, status).All() {
			outcomes = append(outcomes, a.Outcome())
		}
		require.Equal(t, []api.Outcome{api.Refused, api.Refused, api.NotTried, api.NotTried, api.NotTried, api.NotTried}, outcomes)
		require.Zero(t, s.nodes["n2"].calls.Load())
	})
}

func TestFirstAndAny(t *testing.T) {
	bubble(t, func(t *testing.T, s *swarm) {
		s.add("refusing", func(w http.ResponseWriter, _ *http.Request) { refuse(w, api.Forbidden, dirA) }, nil)
		for i := range 4 {
			s.add(fmt.Sprintf("n%d", i), answerAfter(time.Duration(i+1)*time.Second), nil)
		}
		s.add("silent", never, nil)
		began := time.Now()
		first, ok := client.Call(t.Context(), s.fan(), status).First()
		require.True(t, ok)
		require.Equal(t, "refusing", first.Node)
		require.Zero(t, time.Since(began))

		done, others := client.Call(t.Context(), s.fan(), status).Any(2)
		require.Equal(t, []string{"n0", "n1"}, nodesOf(done))
		require.Equal(t, []string{"refusing"}, nodesOf(others))
		require.Equal(t, 2*time.Second, time.Since(began), "nobody waits for the rest")

		done, others = client.Call(t.Context(), s.fan(), status).Any(5)
		require.Len(t, done, 4, "fewer than asked for, and it says so")
		require.Len(t, others, 2)
		_, ok = client.Call(t.Context(), client.Fan{Client: s.client}, status).First()
		require.False(t, ok)
	})
}

func nodesOf(all []client.Answered[string]) (names []string) {
	for _, a := range all {
		names = append(names, a.Node)
	}
	slices.Sort(names)
	return names
}

// When the caller leaves, what came stays, what was under way is cancelled, or
// unknown where it may have changed something, and the rest is not tried.
func TestLeaving(t *testing.T) {
	for changes, want := range map[bool]api.Outcome{false: api.Cancelled, true: api.Unknown} {
		bubble(t, func(t *testing.T, s *swarm) {
			s.add("good", answer, nil)
			s.add("silent", never, nil)
			s.add("hanging", nil, nil)
			s.add("later", answer, nil)
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			fan := s.fan()
			fan.Window, fan.Changes = 3, changes
			fan.Waves = []int{3}
			began := time.Now()
			all := client.Call(ctx, fan, status).All()
			require.Equal(t, 500*time.Millisecond, time.Since(began))
			var got []api.Outcome
			for _, a := range all {
				got = append(got, a.Outcome())
			}
			require.Equal(t, []api.Outcome{api.Done, want, api.Cancelled, api.NotTried}, got)
			require.Zero(t, s.nodes["later"].calls.Load())
		})
	}
}

// However long a node may take, no other deadline comes first.
func TestTheCallsDeadlineIsTheOnlyOne(t *testing.T) {
	bubble(t, func(t *testing.T, s *swarm) {
		s.add("slow", answerAfter(4*time.Minute), nil)
		s.add("silent", never, nil)
		s.add("hanging", nil, nil)
		fan := s.fan()
		fan.Timeout = 5 * time.Minute
		began := time.Now()
		var got []api.Outcome
		for _, a := range client.Call(t.Context(), fan, status).All() {
			got = append(got, a.Outcome())
		}
		require.Equal(t, []api.Outcome{api.Done, api.Unknown, api.Unreachable}, got)
		require.Equal(t, 5*time.Minute, time.Since(began))
	})
}
