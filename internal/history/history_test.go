package history_test

import (
	"bytes"
	"flag"
	"math/rand/v2"
	"strings"
	"testing"

	"gantry/internal/history"

	"github.com/stretchr/testify/require"
)

var seeds = flag.Uint64("history.seeds", 10, "how many generated histories each test takes")

func TestValidHistoriesPass(t *testing.T) {
	for seed := range *seeds {
		events := valid(seed)
		require.Empty(t, history.Check(events, history.Options{}), "seed %d", seed)
	}
}

// text is a history as a Recorder writes it.
func text(events []history.Event) string {
	var b bytes.Buffer
	r := history.NewRecorder(&b)
	for _, e := range events {
		r.Add(e)
	}
	return b.String()
}

func TestRecorderAndRead(t *testing.T) {
	events := valid(1)
	again, err := history.Read(strings.NewReader(text(events)))
	require.NoError(t, err)
	require.Equal(t, text(events), text(again))
	_, err = history.Read(strings.NewReader(text(events) + "{"))
	require.ErrorContains(t, err, "line ")
}

// Every planted violation is found in every history that has room for it, and
// under the number that it has.
func TestPlantedViolationsAreFound(t *testing.T) {
	for _, m := range mutations {
		t.Run(m.event+" "+m.what, func(t *testing.T) {
			planted := uint64(0)
			for seed := uint64(0); planted < *seeds; seed++ {
				require.Less(t, seed, 20**seeds+200, "hardly any history has room for it")
				events := valid(seed)
				events, ok := m.plant(rand.New(rand.NewPCG(seed, 2)), events)
				if !ok {
					continue
				}
				planted++
				found := history.Check(events, history.Options{})
				require.True(t, has(found, m.event), "seed %d: %s is not found, but %v", seed, m.event, found)
				for _, v := range found {
					require.Contains(t, m.event+" "+m.also, v.Event, "seed %d: %s besides %s", seed, v, m.event)
					require.NotEmpty(t, v.Text)
				}
			}
		})
	}
}

func has(found []history.Violation, event string) bool {
	for _, v := range found {
		if v.Event == event {
			return true
		}
	}
	return false
}

// A history that is read from a file is judged, whatever is in it.
func FuzzHistory(f *testing.F) {
	for i, m := range mutations {
		if events, ok := m.plant(rand.New(rand.NewPCG(uint64(i), 2)), valid(uint64(i))); ok {
			f.Add([]byte(text(events)))
		}
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		events, err := history.Read(bytes.NewReader(in))
		if err != nil {
			return
		}
		first := history.Check(events, history.Options{})
		again, err := history.Read(strings.NewReader(text(events)))
		require.NoError(t, err)
		require.Equal(t, first, history.Check(again, history.Options{}))
	})
}
