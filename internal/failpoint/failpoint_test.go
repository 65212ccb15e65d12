package failpoint_test

import (
	"testing"

	"gantry/internal/failpoint"
	"gantry/internal/testkit"

	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { testkit.Main(m) }

func TestNamesAreUnique(t *testing.T) {
	seen := map[string]bool{}
	for _, n := range failpoint.Names {
		require.False(t, seen[n], "%s stands twice in the table", n)
		seen[n] = true
	}
}

func TestOrdinaryBuildsDoNothing(t *testing.T) {
	if failpoint.Enabled {
		t.Skip("needs a build without the tag failpoints")
	}
	t.Setenv("GANTRY_FAILPOINTS", "test.file.write=error")
	require.NoError(t, failpoint.Hit("test.file.write"))
	require.NoError(t, failpoint.Hit("a name that is in no table"))
	require.NoError(t, failpoint.HitAfter("test.file.write"))
	require.Zero(t, testing.AllocsPerRun(100, func() { _ = failpoint.Hit("test.file.write") }))
}
