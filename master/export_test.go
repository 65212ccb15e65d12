package master

import (
	"context"

	"gantry/api"
)

// BreakAudit has the audit log fail with err; nil mends it.
func (s *Server) BreakAudit(err error) {
	s.auditor.mu.Lock()
	defer s.auditor.mu.Unlock()
	s.auditor.write = s.store.Audit
	if err != nil {
		s.auditor.write = func(context.Context, api.AuditEntry) (api.AuditEntry, error) { return api.AuditEntry{}, err }
	}
}

// ParseCursor is for the fuzz target.
func ParseCursor(text string) (last string, again string, ok bool) {
	c, ok := parseCursor(text)
	if !ok {
		return "", "", false
	}
	return c.last, c.String(), true
}

// ReadSpec is for the fuzz target.
var ReadSpec = readSpec

// For the fuzz target.
var (
	ReadRecords = readRecords
	ReadItems   = readItems
)

// Document is the OpenAPI document.
func Document() api.Raw { return document() }
