package selftest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"sync"
	"time"
)

// maxWatches bounds what is remembered of "cancel"; the oldest goes first.
const maxWatches = 256

// writeEvery is the pause between lines of mode=write.
const writeEvery = 10 * time.Millisecond

// Cancel is the answer to "cancel/ask".
type Cancel struct {
	State string `json:"state"` // "none" so far, "running", "ended"
	Cause string `json:"cause,omitzero"`
	Bytes int64  `json:"bytes"` // read of the body
	// Complete is true if the handler saw the body's proper end.
	Complete bool `json:"complete"`
	// Left is true if the request's context ended because of the client, not
	// because MaxWait was over or the body complete.
	Left bool `json:"left"`
}

// watch is one request that waits for its client to leave.
type watch struct {
	id             string
	started, ended chan struct{}
	result         Cancel // written before ended is closed
	once           sync.Once
}

type watches struct {
	mu   sync.Mutex
	list []*watch // guarded by mu; oldest first
}

// of returns the watch of id, made by whichever request names it first.
func (l *watches) of(id string) *watch {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range l.list {
		if w.id == id {
			return w
		}
	}
	w := &watch{id: id, started: make(chan struct{}), ended: make(chan struct{})}
	l.list = append(l.list, w)
	if len(l.list) > maxWatches {
		l.list = l.list[1:]
	}
	return w
}

// The caller draws the id, so that nobody else asks for it by chance.
var plainID = regexp.MustCompile(`^[0-9a-f]{16,64}$`)

func (h *handlers) watchOf(w http.ResponseWriter, r *http.Request) *watch {
	id := r.URL.Query().Get("id")
	if !plainID.MatchString(id) {
		http.Error(w, "id: want 16 to 64 hexadecimal digits", http.StatusBadRequest)
		return nil
	}
	return h.watched.of(id)
}

func (h *handlers) cancelStart(w http.ResponseWriter, r *http.Request) {
	watch := h.watchOf(w, r)
	if watch == nil {
		return
	}
	first := false
	watch.once.Do(func() { first = true; close(watch.started) })
	if !first {
		http.Error(w, "id: used before", http.StatusConflict)
		return
	}
	ctx, stop := context.WithTimeout(r.Context(), MaxWait)
	defer stop()
	defer close(watch.ended)
	switch mode := r.URL.Query().Get("mode"); mode {
	case "read":
		// No reply meanwhile: nginx stops sending a body when one begins.
		var err error
		watch.result.Bytes, err = io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, MaxBytes))
		watch.result.Complete = err == nil
		// The end of the body may be known before the end of the context.
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	case "write":
		rc := stream(w)
		for i := 1; ctx.Err() == nil; i++ {
			if line(w, rc, Line{i, time.Now(), false}) != nil {
				<-ctx.Done()
			}
			rest(r.WithContext(ctx), writeEvery)
		}
	default:
		line(w, stream(w), Line{1, time.Now(), false})
		<-ctx.Done()
	}
	watch.result.Left = r.Context().Err() != nil
	watch.result.Cause = fmt.Sprint(context.Cause(r.Context()))
}

func (h *handlers) cancelAsk(w http.ResponseWriter, r *http.Request) {
	watch := h.watchOf(w, r)
	if watch == nil {
		return
	}
	until := watch.ended
	if r.URL.Query().Get("until") == "started" {
		until = watch.started
	}
	select {
	case <-until:
	case <-time.After(MaxWait):
	case <-r.Context().Done():
		return
	}
	answer := Cancel{State: "none"}
	select {
	case <-watch.started:
		answer.State = "running"
	default:
	}
	select {
	case <-watch.ended:
		answer = watch.result
		answer.State = "ended"
	default:
	}
	reply(w, answer)
}
