package selftest

import (
	"io"
	"net/http"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"

	"gantry/api"
)

// maxFlows bounds what is remembered of "flow"; the oldest goes first.
const maxFlows = 64

// Flow is the answer to "flow/ask".
type Flow struct {
	Taken int64 `json:"taken"` // bytes
}

// flows counts what fronts took of replies, by the id that the caller drew.
type flows struct {
	mu    sync.Mutex
	taken map[string]*atomic.Int64 // guarded by mu
	order []string                 // guarded by mu; oldest first
}

var flowID = regexp.MustCompile(`^[0-9a-f]{32}$`)

// of returns the counter of the request's id, nil after it answered an error.
func (f *flows) of(w http.ResponseWriter, r *http.Request) *atomic.Int64 {
	id := r.URL.Query().Get("id")
	if !flowID.MatchString(id) {
		http.Error(w, "id: 32 hex digits, drawn by the caller", http.StatusBadRequest)
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if n, ok := f.taken[id]; ok {
		return n
	}
	if f.taken == nil {
		f.taken = map[string]*atomic.Int64{}
	}
	if len(f.order) == maxFlows {
		delete(f.taken, f.order[0])
		f.order = f.order[1:]
	}
	n := new(atomic.Int64)
	f.taken[id], f.order = n, append(f.order, id)
	return n
}

// flow is bulk, not a feed: without X-Accel-Buffering, as content is.
func (h *handlers) flow(w http.ResponseWriter, r *http.Request) {
	taken := h.flows.of(w, r)
	if taken == nil {
		return
	}
	w.Header().Set("Content-Type", api.TypeBytes)
	w.Header().Set("Content-Length", strconv.Itoa(FlowSize))
	io.Copy(countTo{w, taken}, NewContent(FlowSize))
}

type countTo struct {
	io.Writer
	n *atomic.Int64
}

func (c countTo) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.n.Add(int64(n))
	return n, err
}

func (h *handlers) flowAsk(w http.ResponseWriter, r *http.Request) {
	if taken := h.flows.of(w, r); taken != nil {
		reply(w, Flow{taken.Load()})
	}
}

// short is how a reply looks whose handler died.
func (h *handlers) short(w http.ResponseWriter, r *http.Request) {
	n, ok := number(w, r, "n", MaxBytes)
	if !ok {
		return
	}
	w.Header().Set("Content-Type", api.TypeBytes)
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	io.Copy(w, NewContent(n/2))
}
