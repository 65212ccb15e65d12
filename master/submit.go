package master

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"time"

	"gantry/api"
	"gantry/internal/serve"
	"gantry/job"
	"gantry/queue"
)

func (s *Server) serveSubmit(w http.ResponseWriter, r *http.Request) error {
	if err := onlyQuery(r); err != nil {
		return err
	}
	body, err := serve.ReadBody(w, r, api.MaxBody)
	if err != nil {
		return err
	}
	var req api.JobRequest
	if err := serve.DecodeJSON(body, &req, "the body"); err != nil {
		return err
	}
	spec, err := readSpec(req.Spec, s.gate.Identity.ID.Cluster)
	if err != nil {
		return err
	}
	if err := s.checkRequest(&req); err != nil {
		return err
	}
	if err := checkID(req.ID, spec); err != nil {
		return err
	}
	key, hash, err := identify(r, api.RouteSubmit, body)
	if err != nil {
		return err
	}
	return s.submit(w, r, api.RouteSubmit, spec, queue.Job{
		ID: req.ID, Spec: api.Encode(spec), Priority: req.Priority, NotBefore: req.NotBefore.UTC(), MaxAttempts: req.MaxAttempts, Limits: req.Limits,
		Key: key, BodyHash: hash,
	})
}

// submit judges who asks for a job, writes that down, and only then has it done.
func (s *Server) submit(w http.ResponseWriter, r *http.Request, route string, spec job.Spec, j queue.Job) error {
	ctx, caller := r.Context(), serve.Caller(r.Context())
	if s.draining.Load() {
		return ErrClosed
	}
	if err := s.permit(caller, spec); err != nil {
		s.deny(caller, route, objectOf(spec), err)
		return err
	}
	if j.Key != "" { // an answer was lost: what was true of the request then need not be now
		switch kept, err := s.store.ByKey(ctx, caller.String(), j.Key); {
		case err == nil && kept.BodyHash != j.BodyHash:
			return queue.ErrKeyReused
		case err == nil:
			return submitted(w, http.StatusOK, kept)
		case !errors.Is(err, queue.ErrNotFound):
			return err
		}
	}
	if err := inTime(j.NotBefore); err != nil {
		return err
	}
	if s.jobs.Unfinished() >= s.cfg.Limits.Queued {
		return api.TooMany.Err(fmt.Sprintf("the master has %d unfinished jobs", s.cfg.Limits.Queued))
	}
	// The id is drawn here, so that the audit log names the job that it allows.
	j.ID, j.Owner = cmp.Or(j.ID, api.NewID()), caller.String()
	object := j.ID
	if j.Key != "" {
		object += " or the job of key " + j.Key
	}
	why := "a grant for each node"
	if caller.Local != nil && caller.Local.Self {
		why = "the master's own user"
	}
	if err := s.allow(ctx, caller, route, object+": "+objectOf(spec), why); err != nil {
		return err
	}
	kept, existed, err := s.jobs.Submit(ctx, j)
	if err != nil {
		return err
	}
	status := http.StatusCreated
	if existed {
		status = http.StatusOK
	}
	return submitted(w, status, kept)
}

func submitted(w http.ResponseWriter, status int, j queue.Job) error {
	w.Header().Set("Location", api.MasterPrefix+"/jobs/"+j.ID)
	return serve.JSON(w, status, info(j))
}

func (s *Server) serveRetry(w http.ResponseWriter, r *http.Request) error {
	if err := onlyQuery(r); err != nil {
		return err
	}
	body, err := serve.ReadBody(w, r, api.MaxBody)
	if err != nil {
		return err
	}
	var req api.RetryRequest
	if err := serve.DecodeJSON(body, &req, "the body"); err != nil {
		return err
	}
	old, err := s.named(r)
	if err != nil {
		return err
	}
	if driverOf(old) != "" {
		return api.BadRequest.Err("the job has a local side, and is driven where that is: give the same command there again")
	}
	if req.From != "" && req.From != api.FromPublish {
		return badSpec("/from", "is no step that a job can go on from", api.FromPublish)
	}
	if len(req.Only) > 0 {
		return badSpec("/only", "is for calls, and this is a "+old.Kind)
	}
	key, hash, err := identify(r, api.RouteRetry+" "+old.ID, body)
	if err != nil {
		return err
	}
	j, err := s.jobs.Again(r.Context(), old.ID, serve.Caller(r.Context()).String(), req.From)
	if err != nil {
		return err
	}
	spec, err := readSpec(j.Spec, s.gate.Identity.ID.Cluster)
	if err != nil {
		return err
	}
	j.Key, j.BodyHash = key, hash
	return s.submit(w, r, api.RouteRetry, spec, j)
}

// checkID judges a name that was given to a job before the master knew of it.
func checkID(id string, spec job.Spec) error {
	switch {
	case id == "":
		return nil
	case spec.Driven():
		return badSpec("/id", "is for jobs with a local side; the master names the others")
	case !api.ValidID(id):
		return badSpec("/id", "is no UUIDv7")
	case api.IDTime(id).After(time.Now().Add(api.ClockAhead)):
		return api.AheadOfUs.Err("the job's id is from the future: the clocks of its driver and the master differ")
	}
	return nil
}

// checkRequest judges what stands beside the spec.
func (s *Server) checkRequest(req *api.JobRequest) error {
	switch {
	case req.Priority < -api.MaxPriority || req.Priority > api.MaxPriority:
		return badSpec("/priority", fmt.Sprintf("allowed are %d to %d", -api.MaxPriority, api.MaxPriority))
	case req.MaxAttempts < 0 || req.MaxAttempts > api.MaxAttemptsCap:
		return badSpec("/max_attempts", fmt.Sprintf("allowed are 1 to %d, and 0 for %d", api.MaxAttemptsCap, api.DefaultTries))
	}
	return s.limitsOf(req.Limits)
}

// inTime judges when a new job may begin.
func inTime(notBefore time.Time) error {
	switch ahead := time.Until(notBefore); {
	case notBefore.IsZero():
	case ahead < -api.ClockAhead:
		return badSpec("/not_before", "is in the past; leave it out to begin at once")
	case ahead > api.MaxAhead:
		return badSpec("/not_before", fmt.Sprintf("is more than %d days ahead", api.MaxAhead/(24*time.Hour)))
	}
	return nil
}

// identify reads the idempotency key, and sums up what the request asks for: the
// same key may come again with the same sum only.
func identify(r *http.Request, what string, body []byte) (key, hash string, err error) {
	values := r.Header.Values(api.IdempotencyHeader)
	switch {
	case len(values) == 0:
		return "", "", nil
	case len(values) > 1:
		return "", "", api.BadRequest.Err("the header " + api.IdempotencyHeader + " is there twice")
	}
	if key = values[0]; key == "" || len(key) > api.MaxKey || !printable(key) {
		return "", "", api.BadRequest.Err(fmt.Sprintf("the header %s: allowed are 1 to %d printable ASCII characters without spaces", api.IdempotencyHeader, api.MaxKey))
	}
	v := api.Raw(body)
	if err := v.Canonicalize(); err != nil {
		return "", "", api.BadRequest.Err("the body is not JSON that has a canonical form")
	}
	sum := sha256.Sum256(append([]byte(what+"\n"), v...))
	return key, hex.EncodeToString(sum[:]), nil
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
