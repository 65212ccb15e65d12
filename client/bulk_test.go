package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"gantry/api"
	"gantry/client"
	"gantry/feedback"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// ranged answers with status, Content-Range and body, and then cuts the
// connection if cut is set.
func ranged(status int, contentRange, body string, length int, cut bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", api.TypeBytes)
		if contentRange != "" {
			w.Header().Set("Content-Range", contentRange)
		}
		if length >= 0 {
			w.Header().Set("Content-Length", fmt.Sprint(length))
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
		w.(http.Flusher).Flush()
		if cut {
			panic(http.ErrAbortHandler)
		}
	}
}

func TestContent(t *testing.T) {
	tests := []struct {
		name   string
		answer http.HandlerFunc
		want   string
		err    string
	}{
		{"the range", ranged(206, "bytes 4-9/100", "abcdef", 6, false), "abcdef", ""},
		{"the range without a length", ranged(206, "bytes 4-9/100", "abcdef", -1, false), "abcdef", ""},
		{"more than the range, chunked", ranged(206, "bytes 4-9/100", "abcdefgh", -1, false), "abcdef", ""},
		{"200 with the whole file", ranged(200, "", "0123abcdef", 10, false), "", "not a node's"},
		{"200 that claims to be the range", ranged(200, "bytes 4-9/100", "abcdef", 6, false), "", "not a node's"},
		{"another range", ranged(206, "bytes 5-10/100", "bcdefg", 6, false), "", "not a node's"},
		{"another length", ranged(206, "bytes 4-9/100", "abcde", 5, false), "", "not a node's"},
		{"no Content-Range", ranged(206, "", "abcdef", 6, false), "", "not a node's"},
		{"clean end too early", ranged(206, "bytes 4-9/100", "abc", -1, false), "abc", "unexpected EOF"},
		{"cut", ranged(206, "bytes 4-9/100", "abc", 6, true), "abc", "unexpected EOF"},
		{"502", page(502), "", "502"},
		{"HTML", page(200), "", "not a node's"},
		{"D61 beyond the end", func(w http.ResponseWriter, _ *http.Request) { refuse(w, api.BadRange, "") }, "", "bad_range"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := node(t, func(w http.ResponseWriter, r *http.Request) {
				assert.Equal(t, "bytes=4-9", r.Header.Get("Range"))
				assert.Equal(t, "secret", r.Header.Get(api.TicketHeader))
				tt.answer(w, r)
			}, nil)
			body, err := c.Content(t.Context(), taskID, "secret", 4, 6)
			var got []byte
			if err == nil {
				got, err = io.ReadAll(body)
				body.Close()
			}
			require.Equal(t, tt.want, string(got))
			if tt.err == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, tt.err)
			}
		})
	}
}

func TestContentSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := node(t, func(w http.ResponseWriter, r *http.Request) {
			ranged(206, "bytes 0-99/100", "abc", 100, false)(w, r)
			<-r.Context().Done()
		}, nil)
		body, err := c.Content(t.Context(), taskID, "", 0, 100)
		require.NoError(t, err)
		defer body.Close()
		// A reader that takes its time between two reads is no silence.
		_, err = io.ReadFull(body, make([]byte, 3))
		require.NoError(t, err)
		time.Sleep(time.Hour)
		begin := time.Now()
		_, err = body.Read(make([]byte, 3))
		require.ErrorContains(t, err, "silent")
		require.Equal(t, 30*time.Second, time.Since(begin))
	})
}

func TestContentObeysItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := node(t, silentRange, nil)
		ctx, cancel := context.WithCancel(t.Context())
		body, err := c.Content(ctx, taskID, "", 0, 100)
		require.NoError(t, err)
		defer body.Close()
		time.AfterFunc(time.Second, cancel)
		_, err = body.Read(make([]byte, 3))
		require.ErrorIs(t, err, context.Canceled)
	})
}

func silentRange(w http.ResponseWriter, r *http.Request) {
	ranged(206, "bytes 0-99/100", "", 100, false)(w, r)
	<-r.Context().Done()
}

func TestManifestQueries(t *testing.T) {
	var asked []string
	c := node(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.RawQuery)
		send(w, `{"kind":"window","next":1}`+"\n")
	}, nil)
	src := client.Source{Client: c, Task: taskID}
	for _, open := range []func() (io.ReadCloser, error){
		func() (io.ReadCloser, error) { return src.Window(t.Context(), 64, 32, 0) },
		func() (io.ReadCloser, error) { return src.Rehash(t.Context(), 9) },
	} {
		body, err := open()
		require.NoError(t, err)
		text, err := io.ReadAll(body)
		require.NoError(t, err)
		require.Equal(t, `{"kind":"window","next":1}`+"\n", string(text))
		body.Close()
	}
	require.Equal(t, []string{"from=64&n=32", "piece=9&rehash=1"}, asked)
}

// TestSourceErrors: what carries a code, and what is a broken connection.
func TestSourceErrors(t *testing.T) {
	tests := []struct {
		name   string
		answer http.HandlerFunc
		code   string // "" = a broken connection, tried again
	}{
		{"502", page(502), ""},
		{"HTML", page(200), ""},
		{"cut", breaks(), ""},
		{"draining", func(w http.ResponseWriter, _ *http.Request) { refuse(w, api.Draining, "") }, "draining"},
		{"source changed", func(w http.ResponseWriter, _ *http.Request) { refuse(w, api.SourceChanged, "") }, "source_changed"},
		{"unknown task", unknownHere, "unknown_task"},
		{"403 of a front", page(403), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := node(t, tt.answer, nil)
			body, err := client.Source{Client: c, Task: taskID}.Content(t.Context(), 0, 10)
			if err == nil {
				_, err = io.ReadAll(body)
				body.Close()
			}
			require.Error(t, err)
			e, ok := errors.AsType[*feedback.Error](err)
			require.Equal(t, tt.code != "", ok, "%v", err)
			if ok {
				require.Equal(t, tt.code, e.Code)
			}
		})
	}
}

func TestShortCalls(t *testing.T) {
	tests := []struct {
		name   string
		answer string
		status int
		media  string
		err    string
	}{
		{"a newer node with more fields", `{"node":"alpha","new":{"x":1}}`, 200, api.TypeJSON, ""},
		{"no JSON", `{"node":`, 200, api.TypeJSON, "not a node's"},
		{"twins", `{"node":"alpha","node":"beta"}`, 200, api.TypeJSON, "not a node's"},
		{"JSON under the name of HTML", `{"node":"alpha"}`, 200, "text/html", "not a node's"},
		{"nothing where there must be something", "", 204, api.TypeJSON, "not a node's"},
		{"a problem without a code", `{"title":"x"}`, 403, api.TypeProblem, "not a node's"},
		{"a problem under a good status", `{"code":"busy","detail":"no"}`, 200, api.TypeProblem, "not a node's"},
		{"a problem", `{"code":"busy","detail":"another task writes there"}`, 409, api.TypeProblem, "another task writes there (busy)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := node(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", tt.media)
				w.WriteHeader(tt.status)
				io.WriteString(w, tt.answer)
			}, nil)
			status, err := c.Status(t.Context())
			if tt.err == "" {
				require.NoError(t, err)
				require.Equal(t, "alpha", status.Node)
				return
			}
			require.ErrorContains(t, err, tt.err)
		})
	}
}

func TestLongReplyIsCutOff(t *testing.T) {
	c := node(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", api.TypeJSON)
		io.WriteString(w, `{"node":"`)
		for range 5 << 10 {
			if _, err := w.Write(make([]byte, 1<<10)); err != nil {
				return
			}
		}
	}, nil)
	_, err := c.Status(t.Context())
	require.ErrorContains(t, err, "larger than")
}

func TestUnsafeCalls(t *testing.T) {
	var seen []string
	c := node(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		seen = append(seen, fmt.Sprintf("%s %s %s %s", r.Method, r.URL.Path, r.Header.Get("Content-Type"), body))
		w.WriteHeader(http.StatusNoContent)
	}, nil)
	ctx := t.Context()
	require.NoError(t, c.Cancel(ctx, taskID))
	require.NoError(t, c.Ack(ctx, taskID, 7))
	require.NoError(t, c.Finish(ctx, taskID, "", "b3:00"))
	require.NoError(t, c.PutCRL(ctx, []byte("der")))
	base := "/node/v1/tasks/" + taskID
	require.Equal(t, []string{
		"DELETE " + base + "  ",
		"POST " + base + `/ack application/json {"seq":7}`,
		"POST " + base + `/finish application/json {"digest":"b3:00"}`,
		"PUT /node/v1/crl application/pkix-crl der",
	}, seen)
}

// TestAnswers holds the table to its promise: none of its rows is a success,
// and nothing that was sent is ever called failed.
func TestAnswers(t *testing.T) {
	names := map[string]bool{}
	for _, a := range client.Answers {
		require.NotEmpty(t, a.Name)
		require.False(t, names[a.Name], a.Name)
		names[a.Name] = true
		require.NotEqual(t, api.Done, a.Sent, a.Name)
		require.NotEqual(t, api.Done, a.Unsent, a.Name)
		if a != &client.NeverStarted {
			require.Equal(t, api.Unknown, a.Sent, a.Name)
		}
		require.True(t, a.Remedy != "" || a == &client.Refusal, a.Name)
	}
}

func TestAnswersPrintNoEscapes(t *testing.T) {
	c := node(t, page(200), nil)
	_, err := c.Status(t.Context())
	e, ok := errors.AsType[*client.NotOurs](err)
	require.True(t, ok)
	require.True(t, e.Temporary())
	require.NotContains(t, e.Text, "\x1b")
	require.Equal(t, feedback.Printable(e.Text), e.Text)
}
