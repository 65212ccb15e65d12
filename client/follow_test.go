package client_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"gantry/api"
	"gantry/client"
	"gantry/feedback"

	"github.com/stretchr/testify/require"
)

const (
	getFeed  = "GET /node/v1/tasks/" + taskID + "/feed"
	getTask  = "GET /node/v1/tasks/" + taskID
	postTask = "POST /node/v1/tasks"
)

func unknownHere(w http.ResponseWriter, _ *http.Request) { refuse(w, api.UnknownTask, dirA) }

func sends(lines ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { send(w, lines...) }
}

// breaks sends lines and then cuts the connection.
func breaks(lines ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		send(w, lines...)
		panic(http.ErrAbortHandler)
	}
}

func page(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(status)
		io.WriteString(w, "<html>\x1b[31mwelcome</html>")
	}
}

func silent(lines ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		send(w, lines...)
		<-r.Context().Done()
	}
}

// TestFollow plays what goes wrong between a client and a node, and what the
// client must make of it.
func TestFollow(t *testing.T) {
	first := []http.HandlerFunc{unknownHere, sends(hello(dirA, 0), state(1), result(2))}
	tests := []struct {
		name  string
		run   client.Run
		steps []http.HandlerFunc
		want  []string // requests
		seen  []string // records
		err   string   // "" done; else a part of it
		out   api.Outcome
	}{
		{"asks before it starts, and ends at the final", client.Run{Request: request()}, first,
			[]string{getFeed, postTask}, []string{"hello 0", "state 1", "result 2"}, "", api.Done},
		{"attaches to what runs already", client.Run{Request: request()},
			[]http.HandlerFunc{sends(hello(dirA, 1), state(1), result(2))},
			[]string{getFeed}, []string{"hello 0", "state 1", "result 2"}, "", api.Done},
		{"C47 clean end without a final is a cut", client.Run{Request: request()},
			[]http.HandlerFunc{unknownHere, sends(hello(dirA, 0), state(1)), sends(hello(dirA, 1), result(2))},
			[]string{getFeed, postTask, getFeed + "?after=1"}, []string{"hello 0", "state 1", "hello 0", "result 2"}, "", api.Done},
		{"C36 cut in the middle of a line", client.Run{Request: request()},
			[]http.HandlerFunc{unknownHere, breaks(hello(dirA, 0), state(1), state(2)[:20]), sends(hello(dirA, 1), state(2), result(3))},
			[]string{getFeed, postTask, getFeed + "?after=1"}, []string{"hello 0", "state 1", "hello 0", "state 2", "result 3"}, "", api.Done},
		{"cut before the answer: asked, proved not started, started again", client.Run{Request: request()},
			[]http.HandlerFunc{unknownHere, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, unknownHere, sends(hello(dirA, 0), result(1))},
			[]string{getFeed, postTask, getFeed, postTask}, []string{"hello 0", "result 1"}, "", api.Done},
		{"502 to the start: asked, and it runs", client.Run{Request: request()},
			[]http.HandlerFunc{unknownHere, page(502), sends(hello(dirA, 0), result(1))},
			[]string{getFeed, postTask, getFeed}, []string{"hello 0", "result 1"}, "", api.Done},
		{"502, 504 and HTML to an attach are tried again", client.Run{Request: request()},
			[]http.HandlerFunc{unknownHere, sends(hello(dirA, 0), state(1)), page(502), page(504), page(200), sends(hello(dirA, 1), result(2))},
			[]string{getFeed, postTask, getFeed + "?after=1", getFeed + "?after=1", getFeed + "?after=1", getFeed + "?after=1"},
			[]string{"hello 0", "state 1", "hello 0", "result 2"}, "", api.Done},
		{"silence is a cut", client.Run{Request: request()},
			[]http.HandlerFunc{unknownHere, silent(hello(dirA, 0), heartbeat, state(1)), sends(hello(dirA, 1), result(2))},
			[]string{getFeed, postTask, getFeed + "?after=1"}, []string{"hello 0", "heartbeat 0", "state 1", "hello 0", "result 2"}, "", api.Done},
		{"404 under another dir_id is unknown", client.Run{Request: request()},
			[]http.HandlerFunc{unknownHere, breaks(), func(w http.ResponseWriter, _ *http.Request) { refuse(w, api.UnknownTask, dirB) }},
			[]string{getFeed, postTask, getFeed}, nil, "dir_id", api.Unknown},
		{"a hello under another dir_id is unknown", client.Run{Request: request()},
			[]http.HandlerFunc{unknownHere, sends(hello(dirB, 0), result(1))},
			[]string{getFeed, postTask}, nil, "dir_id", api.Unknown},
		{"sent in an earlier life, same dir_id: started again", client.Run{Request: request(), Sent: true, DirID: dirA}, first,
			[]string{getFeed, postTask}, []string{"hello 0", "state 1", "result 2"}, "", api.Done},
		{"sent in an earlier life, dir_id never known: unknown", client.Run{Request: request(), Sent: true},
			[]http.HandlerFunc{unknownHere}, []string{getFeed}, nil, "dir_id", api.Unknown},
		{"records were seen and the node has forgotten the task: unknown", client.Run{Request: request(), After: 3, DirID: dirA},
			[]http.HandlerFunc{unknownHere}, []string{getFeed + "?after=3"}, nil, "forgotten", api.Unknown},
		{"refused start never ran", client.Run{Request: request()},
			[]http.HandlerFunc{unknownHere, func(w http.ResponseWriter, _ *http.Request) { refuse(w, api.Forbidden, "") }},
			[]string{getFeed, postTask}, nil, "forbidden", api.Refused},
		{"refused start behind a doubtful one is unknown", client.Run{Request: request()},
			[]http.HandlerFunc{unknownHere, page(504), unknownHere, func(w http.ResponseWriter, _ *http.Request) { refuse(w, api.NoRoom, "") }},
			[]string{getFeed, postTask, getFeed, postTask}, nil, "no_room", api.Unknown},
		{"refused attach to what may run is unknown", client.Run{Request: request(), Sent: true, DirID: dirA},
			[]http.HandlerFunc{func(w http.ResponseWriter, _ *http.Request) { refuse(w, api.Revoked, "") }},
			[]string{getFeed}, nil, "certificate_revoked", api.Unknown},
		{"draining is waited for", client.Run{Request: request()},
			[]http.HandlerFunc{unknownHere, func(w http.ResponseWriter, _ *http.Request) { refuse(w, api.Draining, "") }, unknownHere, sends(hello(dirA, 0), result(1))},
			[]string{getFeed, postTask, getFeed, postTask}, []string{"hello 0", "result 1"}, "", api.Done},
		{"403 of a front before anything was sent", client.Run{Request: request()},
			[]http.HandlerFunc{page(403)}, []string{getFeed}, nil, "not a node's", api.Refused},
		{"redirect is not followed", client.Run{Request: request()},
			[]http.HandlerFunc{func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) }},
			[]string{getFeed}, nil, "302", api.Refused},
		{"C44 something after the final, three times, then the task says", client.Run{Request: request()},
			[]http.HandlerFunc{unknownHere, sends(hello(dirA, 0), result(1), state(2)), sends(hello(dirA, 2), result(1), state(2)), sends(hello(dirA, 2), result(1), state(2)),
				func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", api.TypeJSON)
					w.Write(api.Encode(api.TaskInfo{ID: taskID, Op: "digest", State: api.StateEnded, Final: api.Raw(result(1)[:len(result(1))-1])}))
				}},
			[]string{getFeed, postTask, getFeed, getFeed, getTask}, []string{"hello 0", "hello 0", "hello 0", "result 1"}, "", api.Done},
		{"C48 another id, three times, and the task still runs: unknown", client.Run{Request: request()},
			[]http.HandlerFunc{unknownHere, sends(other()), sends(other()), sends(other()), func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", api.TypeJSON)
				w.Write(api.Encode(api.TaskInfo{ID: taskID, Op: "digest", State: api.StateRunning}))
			}},
			[]string{getFeed, postTask, getFeed, getFeed, getTask}, nil, "another id", api.Unknown},
		{"C43 a gap in the numbers once is only a cut", client.Run{Request: request()},
			[]http.HandlerFunc{unknownHere, sends(hello(dirA, 0), state(1), state(3)), sends(hello(dirA, 3), state(2), state(3), result(4))},
			[]string{getFeed, postTask, getFeed + "?after=1"}, []string{"hello 0", "state 1", "hello 0", "state 2", "state 3", "result 4"}, "", api.Done},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{t: t, steps: tt.steps}
				c := node(t, s.ServeHTTP, nil)
				var seen []string
				final, err := c.Follow(t.Context(), tt.run, collect(&seen))
				require.Equal(t, tt.want, s.requests())
				require.Equal(t, tt.seen, seen)
				if tt.err == "" {
					require.NoError(t, err)
					require.Equal(t, tt.out, api.OutcomeOf(&final))
					return
				}
				require.ErrorContains(t, err, tt.err)
				require.Equal(t, tt.out, outcome(err))
			})
		})
	}
}

func other() string {
	return `{"kind":"hello","v":1,"id":"0199a7e0-0000-7000-8000-00000000ffff","op":"digest","node":"alpha","start":1,"interval":10,"last":0,"dir_id":"` + dirA + `"}` + "\n"
}

// outcome is what a driver must conclude from an error of Follow.
func outcome(err error) api.Outcome {
	if _, ok := errors.AsType[*client.UnknownError](err); ok {
		return api.Unknown
	}
	if w, ok := errors.AsType[*feedback.Error](err); ok {
		return api.CodeOf(w.Code).Outcome
	}
	return client.AnswerTo(err).Unsent
}

func TestFollowWaitsThreeIntervals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{t: t, steps: []http.HandlerFunc{silent(hello(dirA, 0)), sends(hello(dirA, 0), result(1))}}
		c := node(t, s.ServeHTTP, nil)
		begin := time.Now()
		var lost time.Duration
		_, err := c.Follow(t.Context(), client.Run{ID: taskID, Lost: func(err error, wait time.Duration) {
			lost = time.Since(begin)
			require.ErrorContains(t, err, "silent")
		}}, func(feedback.Record) error { return nil })
		require.NoError(t, err)
		require.Equal(t, 30*time.Second, lost)
	})
}

func TestFollowGivesUp(t *testing.T) {
	for name, sent := range map[string]bool{"soon when nothing was sent": false, "after an hour when it may run": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := node(t, page(502), nil)
				begin := time.Now()
				_, err := c.Follow(t.Context(), client.Run{Request: request(), Sent: sent, DirID: dirA}, nil)
				require.ErrorContains(t, err, "502")
				took := time.Since(begin)
				if sent {
					require.Equal(t, api.Unknown, outcome(err))
					require.Greater(t, took, time.Hour)
					require.Less(t, took, time.Hour+time.Minute)
					return
				}
				require.Equal(t, api.Unreachable, outcome(err))
				require.Less(t, took, 20*time.Second)
			})
		})
	}
}

// A node that says for too long that it will answer better soon has refused.
func TestFollowOfANodeThatDrainsForLong(t *testing.T) {
	draining := func(w http.ResponseWriter, _ *http.Request) { refuse(w, api.Draining, "") }
	for name, sent := range map[string]bool{"refused when nothing was sent": false, "unknown when it may run": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := node(t, draining, nil)
				_, err := c.Follow(t.Context(), client.Run{Request: request(), Sent: sent, DirID: dirA}, nil)
				require.ErrorContains(t, err, "draining")
				require.Equal(t, sent, outcome(err) == api.Unknown)
			})
		})
	}
}

func TestFollowObeysItsContext(t *testing.T) {
	left := errors.New("left")
	for name, h := range map[string]http.HandlerFunc{"while reading": silent(hello(dirA, 0)), "while waiting": page(502)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := node(t, h, nil)
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(5*time.Second, func() { cancel(left) })
				_, err := c.Follow(ctx, client.Run{ID: taskID, Sent: true}, func(feedback.Record) error { return nil })
				require.Equal(t, left, err)
			})
		})
	}
}

func TestFollowStopsWhenTheCallerCannotStore(t *testing.T) {
	full := errors.New("disk full")
	synctest.Test(t, func(t *testing.T) {
		s := &script{t: t, steps: []http.HandlerFunc{unknownHere}}
		c := node(t, s.ServeHTTP, nil)
		_, err := c.Follow(t.Context(), client.Run{Request: request(), Starting: func(dir string) error {
			require.Equal(t, dirA, dir)
			return full
		}}, nil)
		require.Equal(t, full, err)
		require.Equal(t, []string{getFeed}, s.requests()) // nothing was started
	})
}

func TestWrongServers(t *testing.T) {
	tests := []struct {
		name   string
		change func(*client.Config, *tls.Config, *authority)
		row    *client.Answer
	}{
		{"G106 front of another CA", func(c *client.Config, s *tls.Config, a *authority) {
			other := newAuthority(t)
			s.Certificates = []tls.Certificate{other.front.Cert}
		}, &client.WrongServer},
		{"G109 front of another node", func(c *client.Config, s *tls.Config, a *authority) {
			s.Certificates = []tls.Certificate{a.issue(t, "front", "beta").Cert}
		}, &client.WrongServer},
		{"another role under the node's name", func(c *client.Config, s *tls.Config, a *authority) {
			s.Certificates = []tls.Certificate{a.issue(t, "node", "alpha").Cert}
		}, &client.WrongServer},
		{"G107 right CA, another pin", func(c *client.Config, s *tls.Config, a *authority) {
			c.TLS = pinned(a)
		}, &client.WrongPin},
		{"our certificate is of another CA", func(c *client.Config, s *tls.Config, a *authority) {
			s.ClientCAs = otherPool(t)
		}, &client.CertRefused},
		{"nobody listens", func(c *client.Config, s *tls.Config, a *authority) {
			p := newPipes()
			p.Close()
			c.Dial = p.dial
		}, &client.NoConnection},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := node(t, sends(hello(dirA, 0), result(1)), tt.change)
			_, err := c.Status(t.Context())
			require.Error(t, err)
			row := client.AnswerTo(err)
			if tt.row == &client.CertRefused && row == &client.BrokenRequest {
				// The alert comes after the handshake (TLS 1.3), and a server
				// that hangs up behind it can overtake it.
				return
			}
			require.Equal(t, tt.row.Name, row.Name, "%v", err)
			require.ErrorContains(t, err, tt.row.Remedy)
		})
	}
}
