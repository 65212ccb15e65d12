package queue

import (
	"context"
	"fmt"
	"strings"

	"gantry/api"
)

// maxPage is how many jobs one page has at most.
const maxPage = 1000

// Query says which jobs a page has. Empty fields select everything.
type Query struct {
	States []State // any of them
	Owner  string
	Node   string // among the job's nodes
	Kind   string
	Before string // id of the last job of the page before; "" begins
	Limit  int    // 0 = api.DefaultPage, at most 1,000
}

// Jobs returns a page of jobs, newest first. Jobs that are added while somebody
// turns pages are before the first, so no page shows a job twice or leaves one out.
func (s *Store) Jobs(ctx context.Context, q Query) ([]Job, error) {
	if q.Before != "" && !api.ValidID(q.Before) {
		return nil, ErrCursor
	}
	if q.Limit <= 0 {
		q.Limit = api.DefaultPage
	}
	q.Limit = min(q.Limit, maxPage)
	text, args := q.build()
	all, err := s.jobs(ctx, text, args...)
	if err != nil {
		return nil, fmt.Errorf("listing jobs: %w", err)
	}
	return all, nil
}

// build makes the statement: of each state the newest ids by an index, and of
// all those the newest.
func (q *Query) build() (text string, args []any) {
	states := []State{""}
	if len(q.States) > 0 {
		states = q.States
	}
	var parts []string
	for _, state := range states {
		from, where := "jobs", []string{"1 = 1"}
		add := func(condition string, arg any) {
			where, args = append(where, condition), append(args, arg)
		}
		if q.Node != "" {
			from = "job_nodes JOIN jobs ON jobs.id = job_nodes.id"
			add("job_nodes.node = ?", q.Node)
		}
		if q.Before != "" {
			add("jobs.id < ?", q.Before)
		}
		if state != "" {
			add("jobs.state = ?", string(state))
		}
		if q.Owner != "" {
			add("jobs.owner = ?", q.Owner)
		}
		if q.Kind != "" {
			add("jobs.kind = ?", q.Kind)
		}
		args = append(args, q.Limit)
		parts = append(parts, "SELECT * FROM (SELECT jobs.id FROM "+from+" WHERE "+strings.Join(where, " AND ")+" ORDER BY jobs.id DESC LIMIT ?)")
	}
	args = append(args, q.Limit)
	return selectJob + "id IN (" + strings.Join(parts, " UNION ") + ") ORDER BY id DESC LIMIT ?", args
}

// Unfinished returns every job that has not ended, oldest first. It goes through
// the jobs themselves: what a master takes up after a restart must not depend on
// an index. 100,000 jobs of history take some 0.3 s.
func (s *Store) Unfinished(ctx context.Context) ([]Job, error) {
	var marks []string
	var args []any
	for _, state := range api.JobStates {
		if !state.Final() {
			marks, args = append(marks, "?"), append(args, string(state))
		}
	}
	all, err := s.jobs(ctx, selectJob+"+state IN ("+strings.Join(marks, ",")+") ORDER BY id", args...)
	if err != nil {
		return nil, fmt.Errorf("listing unfinished jobs: %w", err)
	}
	return all, nil
}
