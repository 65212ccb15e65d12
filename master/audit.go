package master

import (
	"context"
	"fmt"
	"net/http"
	"sync"

	"gantry/access"
	"gantry/api"
	"gantry/internal/serve"

	"golang.org/x/time/rate"
)

// Refusals of one caller that are written down: this many a second in the long
// run. All are refused; a caller must not be able to fill the disk by asking for
// what he may not have, so the rest is counted in his next entry.
const (
	denyRate  = 1
	denyBurst = 50
	// maxDenied bounds the callers that are remembered; a CA names fewer.
	maxDenied = 10_000
)

// denied counts what one caller was refused.
type denied struct {
	limit  *rate.Limiter
	silent int // refusals since the last entry
}

// auditor writes the audit log.
type auditor struct {
	mu     sync.Mutex
	denied map[string]*denied                                            // guarded by mu; by caller
	write  func(context.Context, api.AuditEntry) (api.AuditEntry, error) // guarded by mu; of the store
}

// keep writes one entry down.
func (a *auditor) keep(ctx context.Context, e api.AuditEntry) error {
	a.mu.Lock()
	write := a.write
	a.mu.Unlock()
	_, err := write(ctx, e)
	return err
}

// allow writes down that a request is granted. It comes back when the entry is
// on disk; the action waits for that, and is not done when it fails.
func (s *Server) allow(ctx context.Context, c access.Caller, route, object, reason string) error {
	err := s.auditor.keep(ctx, api.AuditEntry{
		Who: who(c), What: route, Object: object, Decision: api.AuditAllowed, Reason: reason,
	})
	if err != nil {
		return coded{api.NoAudit.Err("the audit log cannot be written"), err}
	}
	return nil
}

// deny writes down that a request was refused. Nothing is done anyway, so a
// failure is logged only.
func (s *Server) deny(c access.Caller, route, object string, why error) {
	reason, ok := s.auditor.note(who(c), serve.Wire(why).Code)
	if !ok {
		return
	}
	err := s.auditor.keep(context.Background(), api.AuditEntry{
		Who: who(c), What: route, Object: object, Decision: api.AuditRefused, Reason: reason,
	})
	if err != nil {
		s.log.Error("the audit log cannot be written", "caller", c.String(), "err", err)
	}
}

// note decides whether a refusal has an entry of its own, and says what for.
func (a *auditor) note(who, reason string) (string, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	d := a.denied[who]
	if d == nil {
		if len(a.denied) >= maxDenied {
			clear(a.denied)
		}
		d = &denied{limit: rate.NewLimiter(denyRate, denyBurst)}
		a.denied[who] = d
	}
	if !d.limit.Allow() {
		d.silent++
		return "", false
	}
	if d.silent > 0 {
		reason = fmt.Sprintf("%s (and %d refusals before)", reason, d.silent)
		d.silent = 0
	}
	return reason, true
}

// who names a caller in the audit log, with the certificate that he showed.
func who(c access.Caller) string {
	if c.SHA256 == "" {
		return c.String()
	}
	return c.String() + " sha256:" + c.SHA256
}

// refused is told by the shell what no handler saw. What is written down are
// decisions about rights; mistakes in a request are not.
func (s *Server) refused(c access.Caller, route api.Route, vars map[string]string, err error) {
	switch code := api.CodeOf(serve.Wire(err).Code); code {
	case api.Forbidden, api.UnknownJob, api.NotVerified, api.Revoked, api.StaleCRL, api.CrossSite, api.BadFront:
		object := vars["id"]
		if !api.ValidID(object) {
			object = ""
		}
		s.metrics.refused.WithLabelValues(code.Name).Inc()
		s.deny(c, route.Name, object, err)
	}
}

func (s *Server) serveAudit(w http.ResponseWriter, r *http.Request) error {
	if err := onlyQuery(r, "after", "limit"); err != nil {
		return err
	}
	after, err := number(r, "after", 0, 0, maxNumber)
	if err != nil {
		return err
	}
	limit, err := number(r, "limit", api.DefaultPage, 1, api.MaxPageSize)
	if err != nil {
		return err
	}
	entries, err := s.store.AuditEntries(r.Context(), after, int(limit))
	if err != nil {
		return err
	}
	head, err := s.store.AuditHead(r.Context())
	if err != nil {
		return err
	}
	return serve.JSON(w, http.StatusOK, api.AuditList{Entries: append([]api.AuditEntry{}, entries...), Last: head.Seq})
}
