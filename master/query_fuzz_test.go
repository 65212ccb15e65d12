package master

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"gantry/api"
	"gantry/internal/serve"
	"gantry/queue"

	"github.com/stretchr/testify/require"
)

// FuzzQuery reads any text as the query of GET jobs. Every part of what is taken
// counts: nothing that was asked for is left out.
func FuzzQuery(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		r := &http.Request{URL: &url.URL{RawQuery: text}}
		q, err := (&Server{}).jobsQuery(r)
		if err != nil {
			require.NotEqual(t, api.Internal.Name, serve.Wire(wire(err)).Code)
			return
		}
		require.True(t, q.Limit >= 1 && q.Limit <= api.MaxPageSize)
		require.True(t, q.Before == "" || api.ValidID(q.Before))
		v, err := url.ParseQuery(text)
		require.NoError(t, err, "a part was left out")
		require.Equal(t, [3]string{q.Node, q.Owner, q.Kind}, [3]string{v.Get("node"), v.Get("owner"), v.Get("kind")})
		var states []string
		for _, s := range q.States {
			require.True(t, slices.Contains(api.JobStates, api.JobState(s)))
			states = append(states, string(s))
		}
		require.Equal(t, v.Get("state"), strings.Join(states, ","))
		if q.Before == "" {
			require.NotErrorIs(t, err, queue.ErrCursor)
		}
	})
}
