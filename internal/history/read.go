package history

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// MaxLine bounds one line of a history in bytes: a list of all jobs is the
// longest.
const MaxLine = 64 << 20

// Read reads a history that a Recorder wrote.
func Read(in io.Reader) ([]Event, error) {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, MaxLine)
	var out []Event
	for n := 1; lines.Scan(); n++ {
		var e Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return out, fmt.Errorf("line %d of the history: %w", n, err)
		}
		out = append(out, e)
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return out, fmt.Errorf("line %d of the history has more than %d bytes", len(out)+1, MaxLine)
	} else if err != nil {
		return out, fmt.Errorf("reading the history: %w", err)
	}
	return out, nil
}
