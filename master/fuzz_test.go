package master_test

import (
	"strings"
	"testing"

	"gantry/api"
	"gantry/job"
	"gantry/master"

	"github.com/stretchr/testify/require"
)

// FuzzCursor reads any text as a cursor. What is taken is what was given out,
// byte for byte, and names a place.
func FuzzCursor(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		last, again, ok := master.ParseCursor(text)
		if !ok {
			return
		}
		require.LessOrEqual(t, len(text), api.MaxCursor)
		require.True(t, api.ValidID(last))
		require.Equal(t, text, again)
	})
}

// FuzzJobBody reads any text as the spec of a job. What is taken is a job that
// keeps what later steps build upon; what is refused is refused with a place.
func FuzzJobBody(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		spec, err := master.ReadSpec(data, "demo")
		if err != nil {
			require.Contains(t, err.Error(), api.BadSpec.Name)
			require.Less(t, len(err.Error()), 1000)
			return
		}
		require.Equal(t, "demo", spec.Cluster)
		require.NoError(t, spec.Check())
		for _, p := range []job.Place{spec.From, spec.To} {
			require.False(t, strings.HasPrefix(p.Path, "/") || strings.Contains("/"+p.Path+"/", "/../"), "%q", p.Path)
		}
		// What was taken once is taken again, and means the same.
		again, err := master.ReadSpec(api.Encode(spec), "demo")
		require.NoError(t, err)
		require.Equal(t, api.Encode(spec), api.Encode(again))
		require.NotEmpty(t, spec.Nodes())
	})
}

// FuzzRecords reads any text as a record of a driver, and as what it says of an
// item that moves.
func FuzzRecords(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		if items, err := master.ReadItems([]api.Raw{data}); err != nil {
			require.Contains(t, err.Error(), api.BadRequest.Name)
		} else {
			require.Len(t, items, 1)
		}
		records, err := master.ReadRecords([]api.Raw{data})
		if err != nil {
			require.Contains(t, err.Error(), api.BadRequest.Name)
			return
		}
		require.Len(t, records, 1)
		require.True(t, records[0].Kind.Stored())
		require.Positive(t, records[0].Seq)
	})
}
