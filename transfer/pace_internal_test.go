package transfer

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// TestPace: packed content is asked for on a slow line only, and no longer than
// it saves something.
func TestPace(t *testing.T) {
	for name, c := range map[string]struct {
		off           bool
		plain         int64 // that came
		in            time.Duration
		stood, packed int64 // then, packed
		slow, after   bool
	}{
		"fast":                 {plain: paceBytes, in: 900 * time.Millisecond},
		"slow":                 {plain: paceBytes, in: 1100 * time.Millisecond, slow: true, after: true},
		"slow from the start":  {plain: 1 << 20, in: paceTime, slow: true, after: true},
		"nothing known yet":    {plain: 1 << 20, in: paceTime / 2},
		"slow, off":            {off: true, plain: 1 << 20, in: paceTime},
		"slow, saves":          {plain: 1 << 20, in: paceTime, slow: true, stood: paceBytes, packed: paceBytes / 2, after: true},
		"slow, saves nothing":  {plain: 1 << 20, in: paceTime, slow: true, stood: paceBytes, packed: paceBytes},
		"slow, too early said": {plain: 1 << 20, in: paceTime, slow: true, stood: paceBytes / 2, packed: paceBytes / 2, after: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &pace{off: c.off}
				require.False(t, p.slow(), "before anything came")
				p.plain.Add(c.plain)
				time.Sleep(c.in)
				require.Equal(t, c.slow, p.slow())
				p.stood.Add(c.stood)
				p.packed.Add(c.packed)
				require.Equal(t, c.after, p.slow())
			})
		})
	}
}
