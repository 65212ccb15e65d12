//go:build failpoints

package failpoint

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// arm sets the actions as the environment would, for one test.
func arm(t *testing.T, list string) {
	t.Helper()
	before, log := actions, logPath
	actions, logPath = parse(list), filepath.Join(t.TempDir(), "hits")
	mu.Lock()
	clear(hits)
	mu.Unlock()
	t.Cleanup(func() { actions, logPath = before, log })
}

func TestFailpointActsOnTheNthHit(t *testing.T) {
	arm(t, "test.file.write=error@2,test.file.sync=error-after,test.file.rename=delay:1ms")
	require.NoError(t, Hit("test.file.write"))
	require.NoError(t, HitAfter("test.file.write"))
	require.ErrorIs(t, Hit("test.file.write"), ErrInjected)
	require.NoError(t, Hit("test.file.write"))

	require.NoError(t, Hit("test.file.sync"))
	require.ErrorIs(t, HitAfter("test.file.sync"), ErrInjected)

	start := time.Now()
	require.NoError(t, Hit("test.file.rename"))
	require.GreaterOrEqual(t, time.Since(start), time.Millisecond)

	text, err := os.ReadFile(logPath)
	require.NoError(t, err)
	require.Equal(t, "test.file.write\ntest.file.write=error\ntest.file.sync\ntest.file.sync=error-after\ntest.file.rename\ntest.file.rename=delay\n",
		string(text), "each name once, and each action")
}

func TestFailpointRefusesWhatItCannotMean(t *testing.T) {
	require.Panics(t, func() { _ = Hit("a name that is in no table") })
	for _, list := range []string{"x", "x=explode", "x=error@0", "x=error@y", "x=delay:soon"} {
		require.Panics(t, func() { parse(list) }, list)
	}
}
