package api

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/go-json-experiment/json"
)

// auditTime is the form of the time in what is hashed: UTC, milliseconds.
const auditTime = "2006-01-02T15:04:05.000Z"

// Sum is what Hash must be: the SHA-256, in hex, of Prev as it stands there and a
// JSON array of the other members, [seq,"time","who","what","object","decision","reason"],
// without spaces and with the fewest escapes. Whoever has the entries can compute it again.
func (e *AuditEntry) Sum() string {
	b, err := json.Marshal([]any{e.Seq, e.Time.UTC().Format(auditTime), e.Who, e.What, e.Object, e.Decision, e.Reason})
	if err != nil { // a text that is not UTF-8: nothing that was stored
		return ""
	}
	h := sha256.Sum256(append([]byte(e.Prev), b...))
	return hex.EncodeToString(h[:])
}

// Follows says what is wrong with e as the entry after prev, nil if nothing is.
// The zero entry is before the first.
func (e *AuditEntry) Follows(prev *AuditEntry) error {
	switch {
	case e.Seq != prev.Seq+1:
		return fmt.Errorf("audit entry %d follows %d: entries are missing or out of order", e.Seq, prev.Seq)
	case e.Prev != prev.Hash:
		return fmt.Errorf("audit entry %d does not continue entry %d: one of them was changed", e.Seq, prev.Seq)
	case e.Hash != e.Sum():
		return fmt.Errorf("audit entry %d was changed", e.Seq)
	}
	return nil
}

// AuditHead is the end of an audit log. Kept elsewhere it shows later that
// nothing before it was changed or cut off.
type AuditHead struct {
	Seq  int64  `json:"seq"` // 0: the log is empty
	Hash string `json:"hash"`
}
