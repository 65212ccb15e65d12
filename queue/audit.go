package queue

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"gantry/api"
)

// AuditEntry is one line of the audit log.
type AuditEntry = api.AuditEntry

// maxAuditPage is how many entries AuditEntries returns at most.
const maxAuditPage = 1000

const selectAudit = "SELECT seq, at, who, what, object, decision, reason, prev, hash FROM audit WHERE "

// Audit writes an entry down and returns it with number, time and hash; it is on
// disk then. Entries are neither changed nor deleted, by nobody.
func (s *Store) Audit(ctx context.Context, e AuditEntry) (AuditEntry, error) {
	e.Time = s.now().Truncate(time.Millisecond)
	for _, text := range []*string{&e.Who, &e.What, &e.Object, &e.Decision, &e.Reason} {
		*text = strings.ToValidUTF8(*text, "\uFFFD")
	}
	err := s.write(ctx, func(t *tx) error {
		e.Seq, e.Prev = 0, ""
		t.row("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1", nil, &e.Seq, &e.Prev)
		e.Seq++
		e.Hash = e.Sum()
		t.exec("INSERT INTO audit (seq, at, who, what, object, decision, reason, prev, hash) VALUES (?,?,?,?,?,?,?,?,?)",
			e.Seq, e.Time.UnixMilli(), e.Who, e.What, e.Object, e.Decision, e.Reason, e.Prev, e.Hash)
		return nil
	})
	if err != nil {
		return AuditEntry{}, fmt.Errorf("writing the audit log: %w", err)
	}
	return e, nil
}

// AuditEntries returns the entries after number after, in order, at most limit
// and 1,000; 0 means api.DefaultPage.
func (s *Store) AuditEntries(ctx context.Context, after int64, limit int) ([]AuditEntry, error) {
	if limit <= 0 {
		limit = api.DefaultPage
	}
	var all []AuditEntry
	err := s.each(ctx, selectAudit+"seq > ? ORDER BY seq LIMIT ?", []any{after, min(limit, maxAuditPage)}, func(scan scanner) error {
		e, err := auditEntry(scan)
		all = append(all, e)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading the audit log: %w", err)
	}
	return all, nil
}

func auditEntry(scan scanner) (e AuditEntry, err error) {
	var at int64
	err = scan(&e.Seq, &at, &e.Who, &e.What, &e.Object, &e.Decision, &e.Reason, &e.Prev, &e.Hash)
	e.Time = time.UnixMilli(at).UTC()
	return e, err
}

// AuditHead returns the end of the audit log, to be kept elsewhere.
func (s *Store) AuditHead(ctx context.Context) (head api.AuditHead, err error) {
	err = s.each(ctx, "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1", nil, func(scan scanner) error {
		return scan(&head.Seq, &head.Hash)
	})
	if err != nil {
		return api.AuditHead{}, fmt.Errorf("reading the audit log: %w", err)
	}
	return head, nil
}

// VerifyAudit goes through the audit log and returns its head. A changed,
// removed, added or reordered entry is ErrAudit, which names it. That entries
// were cut off at the end, or all of it written anew, shows only against heads
// that were kept elsewhere.
func (s *Store) VerifyAudit(ctx context.Context, kept ...api.AuditHead) (api.AuditHead, error) {
	head, err := verifyAudit(ctx, s.reads, kept...)
	if err != nil {
		return api.AuditHead{}, fmt.Errorf("verifying the audit log: %w", err)
	}
	return head, nil
}

func verifyAudit(ctx context.Context, db *sql.DB, kept ...api.AuditHead) (api.AuditHead, error) {
	var prev AuditEntry
	err := eachRow(ctx, db, selectAudit+"1 = 1 ORDER BY seq", nil, func(scan scanner) error {
		e, err := auditEntry(scan)
		if err != nil {
			return err
		}
		if err := e.Follows(&prev); err != nil {
			return fmt.Errorf("%w: %w", ErrAudit, err)
		}
		for _, head := range kept {
			if head.Seq == e.Seq && head.Hash != e.Hash {
				return fmt.Errorf("%w: entry %d is not the one that was kept: the log was written anew", ErrAudit, e.Seq)
			}
		}
		prev = e
		return nil
	})
	for _, head := range kept {
		if err == nil && head.Seq > prev.Seq {
			err = fmt.Errorf("%w: it ends at entry %d, and entry %d was kept: it was cut off", ErrAudit, prev.Seq, head.Seq)
		}
	}
	if err != nil {
		return api.AuditHead{}, err
	}
	return api.AuditHead{Seq: prev.Seq, Hash: prev.Hash}, nil
}
