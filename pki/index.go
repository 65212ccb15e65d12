package pki

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/go-json-experiment/json"

	"gantry/internal/atomicfile"
)

// indexVersion is the format of the index file. A newer one is refused.
const indexVersion = 1

// maxIndex bounds the index file in bytes: some 300,000 certificates.
const maxIndex = 64 << 20

// Entry is one certificate that the CA has issued.
type Entry struct {
	Serial     string // 32 lower-case hex digits
	Role, Name string
	Issued     time.Time
	NotAfter   time.Time
	Revoked    time.Time // zero: not revoked
}

// event is one line of the index. The file only grows; the entries are what
// the events add up to.
type event struct {
	V        int       `json:"v"`
	Event    string    `json:"event"` // issue or revoke
	Time     time.Time `json:"t"`
	Serial   string    `json:"serial"`
	Role     string    `json:"role,omitzero"`
	Name     string    `json:"name,omitzero"`
	NotAfter time.Time `json:"not_after,omitzero"`
}

const (
	eventIssue  = "issue"
	eventRevoke = "revoke"
)

// index is the file's content. Callers hold the folder's lock.
type index struct {
	path    string
	size    int64 // of the complete lines
	torn    bool  // a last line without its end follows them
	entries []*Entry
	serials map[string]*Entry
}

func readIndex(path string) (*index, error) {
	x := &index{path: path, serials: map[string]*Entry{}}
	data, err := readBounded(path, maxIndex)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading index: %w", err)
	}
	for n := 1; len(data) > 0; n++ {
		line, rest, complete := bytes.Cut(data, []byte("\n"))
		if !complete {
			// An append that a crash cut short. It was never acknowledged,
			// so nobody holds what it would have recorded.
			x.torn = true
			break
		}
		if err := x.apply(line); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, n, err)
		}
		x.size += int64(len(line)) + 1
		data = rest
	}
	return x, nil
}

func (x *index) apply(line []byte) error {
	var e event
	if err := json.Unmarshal(line, &e, json.RejectUnknownMembers(true)); err != nil {
		return err
	}
	if e.V != indexVersion {
		return fmt.Errorf("format %d is newer than this program, which knows %d; use a newer gantry", e.V, indexVersion)
	}
	known := x.serials[e.Serial]
	switch {
	case e.Event == eventIssue && known == nil:
		known = &Entry{Serial: e.Serial, Role: e.Role, Name: e.Name, Issued: e.Time, NotAfter: e.NotAfter}
		x.entries = append(x.entries, known)
		x.serials[e.Serial] = known
	case e.Event == eventRevoke && known != nil:
		known.Revoked = e.Time
	default:
		return fmt.Errorf("event %q for serial %q makes no sense here", e.Event, e.Serial)
	}
	return nil
}

// add appends an event and returns when it is on disk.
func (x *index) add(e event) error {
	e.V = indexVersion
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("writing index: %w", err)
	}
	if x.torn {
		if err := os.Truncate(x.path, x.size); err != nil {
			return fmt.Errorf("mending index: %w", err)
		}
		x.torn = false
	}
	f, err := atomicfile.OpenAppender(x.path, 0o600, "pki.index")
	if err != nil {
		return fmt.Errorf("writing index: %w", err)
	}
	defer f.Close()
	if err := f.Append(append(line, '\n')); err != nil {
		return fmt.Errorf("writing index: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("writing index: %w", err)
	}
	x.size += int64(len(line)) + 1
	return x.apply(line)
}
