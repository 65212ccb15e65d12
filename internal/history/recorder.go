package history

import (
	"encoding/json"
	"io"
	"slices"
	"sync"
	"time"
)

// A Recorder keeps a history in memory and writes it, line by line, to a file.
// Its methods may be called from several goroutines.
type Recorder struct {
	mu     sync.Mutex
	out    *json.Encoder // guarded by mu
	events []Event       // guarded by mu
	err    error         // guarded by mu
}

// NewRecorder starts an empty history; w may be nil.
func NewRecorder(w io.Writer) *Recorder {
	r := &Recorder{}
	if w != nil {
		r.out = json.NewEncoder(w)
		r.out.SetEscapeHTML(false)
	}
	return r
}

// Add appends e, with the present time unless it has one.
func (r *Recorder) Add(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.T.IsZero() {
		e.T = time.Now()
	}
	r.events = append(r.events, e)
	if r.out != nil && r.err == nil {
		r.err = r.out.Encode(e)
	}
}

// Events returns what was added so far.
func (r *Recorder) Events() []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// Err is the first error of writing.
func (r *Recorder) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}
