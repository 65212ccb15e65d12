package master

import (
	"fmt"
	"hash/crc32"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"gantry/api"
	"gantry/queue"
)

// maxNumber is the greatest integer that every JSON implementation keeps.
const maxNumber = 1<<53 - 1

// onlyQuery refuses what a route does not know in its query, and what stands
// there twice: a filter that is misspelt would show everything.
func onlyQuery(r *http.Request, allowed ...string) error {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil { // r.URL.Query would leave that part out
		return api.BadRequest.Err("the query is not well-formed")
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if !slices.Contains(allowed, name) {
			known := "nothing"
			if len(allowed) > 0 {
				known = strings.Join(allowed, ", ")
			}
			return api.BadRequest.Err("the query takes " + known)
		}
		if len(query[name]) > 1 {
			return api.BadRequest.Err(name + ": stands in the query twice")
		}
	}
	return nil
}

// number reads a whole number from the query.
func number(r *http.Request, name string, otherwise, least, most int64) (int64, error) {
	s := r.URL.Query().Get(name)
	if s == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < least || n > most || strconv.FormatInt(n, 10) != s {
		return 0, api.BadRequest.Err(fmt.Sprintf("%s: allowed are %d to %d", name, least, most))
	}
	return n, nil
}

// jobFilters are what GET jobs can be narrowed by.
var jobFilters = []string{"state", "node", "owner", "kind"}

// maxFilter bounds the bytes of one filter.
const maxFilter = 256

func (s *Server) jobsQuery(r *http.Request) (q queue.Query, err error) {
	if err := onlyQuery(r, append(slices.Clone(jobFilters), "cursor", "limit")...); err != nil {
		return q, err
	}
	v := r.URL.Query()
	for _, name := range jobFilters {
		if len(v.Get(name)) > maxFilter {
			return q, api.BadRequest.Err(fmt.Sprintf("%s: at most %d bytes", name, maxFilter))
		}
	}
	if states := v.Get("state"); states != "" {
		for state := range strings.SplitSeq(states, ",") {
			if !slices.Contains(api.JobStates, api.JobState(state)) {
				return q, api.BadRequest.Err("state: allowed are " + joined(api.JobStates) + ", several with commas")
			}
			q.States = append(q.States, api.JobState(state))
		}
	}
	q.Node, q.Owner, q.Kind = v.Get("node"), v.Get("owner"), v.Get("kind")
	limit, err := number(r, "limit", api.DefaultPage, 1, api.MaxPageSize)
	if err != nil {
		return q, err
	}
	q.Limit = int(limit)
	if text := v.Get("cursor"); text != "" {
		c, ok := parseCursor(text)
		if !ok || c.of != filterOf(r) {
			return q, queue.ErrCursor
		}
		q.Before = c.last
	}
	return q, nil
}

func joined[T ~string](list []T) string {
	words := make([]string, len(list))
	for i, w := range list {
		words[i] = string(w)
	}
	return strings.Join(words, ", ")
}

// filterOf sums the filters of a request.
func filterOf(r *http.Request) uint32 {
	h := crc32.NewIEEE()
	for _, name := range jobFilters {
		fmt.Fprintf(h, "%s=%q ", name, r.URL.Query().Get(name))
	}
	return h.Sum32()
}
