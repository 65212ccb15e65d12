package history

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"
)

// reply is what is read of a job in a reply.
type reply struct {
	ID      string          `json:"id"`
	Spec    json.RawMessage `json:"spec"`
	State   string          `json:"state"`
	Outcome string          `json:"outcome"`
	Final   json.RawMessage `json:"final"`
	RetryOf string          `json:"retry_of"`
}

// spec is what is read of what a job shall do.
type spec struct {
	Kind  string `json:"kind"`
	From  place  `json:"from"`
	To    place  `json:"to"`
	Local string `json:"local"`
}

type place struct {
	Node     string `json:"node"`
	Resource string `json:"resource"`
	Path     string `json:"path"`
}

func (p place) String() string {
	if p.Node == "" {
		return ""
	}
	return p.Node + ":" + p.Resource + "/" + p.Path
}

// ends are where the bytes come from and where they go; "" where there is none.
func (s spec) ends() (from, to string) {
	local := ""
	if strings.HasPrefix(s.Local, "/") {
		local = Local + s.Local
	}
	switch s.Kind {
	case "import":
		return local, s.To.String()
	case "export":
		return s.From.String(), local
	}
	return s.From.String(), s.To.String()
}

// record is what is read of a line of a feed.
type record struct {
	Kind   string    `json:"kind"`
	Seq    int64     `json:"seq"`
	T      time.Time `json:"t"`
	State  string    `json:"state"`
	Detail struct {
		Attempt int `json:"attempt"`
	} `json:"detail"`
	Node    string          `json:"node"`
	Task    string          `json:"task"`
	Record  json.RawMessage `json:"record"`
	Value   json.RawMessage `json:"value"`
	Code    string          `json:"code"`
	From    int64           `json:"from"`
	To      int64           `json:"to"`
	Last    int64           `json:"last"`
	Text    string          `json:"text"`
	Item    string          `json:"item"`
	Phase   string          `json:"phase"`
	Done    int64           `json:"done"`
	Stalled int64           `json:"stalled"`
}

// decode reads a line; a detail that is no object is none of ours.
func decode(raw []byte) (record, error) {
	var r record
	err := json.Unmarshal(raw, &r)
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && strings.HasPrefix(wrong.Field, "detail") {
		err = nil
	}
	return r, err
}

func (r record) stored() bool { return r.Seq > 0 }

func (r record) final() bool { return r.stored() && (r.Kind == "result" || r.Kind == "error") }

// seen is one final record as somebody saw it.
type seen struct {
	raw string // compact
	t   time.Time
	how string
}

// shown is one stored record of a job as a reader saw it first.
type shown struct {
	record
	raw    string
	seen   time.Time
	reader int
}

// reader is one stream of one job.
type reader struct {
	Attach
	at    time.Time // attached
	end   time.Time // detached; the history's end when it never was
	lines []lineSeen
}

type lineSeen struct {
	record
	raw  string
	seen time.Time
	err  error
}

// job is everything that is known of a job.
type job struct {
	id       string
	from, to string
	began    time.Time // of the first request that was acknowledged with it
	acks     []*Event
	calls    []*Event // later ones that name it, in order of their replies
	readers  []*reader
	records  map[int64]shown // by number, from all readers
	finals   []seen          // in order of time
	tasks    []*Task         // of its attempts, as nodes keep them
}

// numbers are those of the records, in order.
func (j *job) numbers() []int64 { return slices.Sorted(maps.Keys(j.records)) }

// final is the first final that anybody saw.
func (j *job) final() (record, bool) {
	if len(j.finals) == 0 {
		return record{}, false
	}
	r, err := decode([]byte(j.finals[0].raw))
	return r, err == nil
}

// done reports whether success was reported.
func (j *job) done() bool {
	r, ok := j.final()
	return ok && r.Kind == "result"
}
