package fastcgi_test

import (
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"gantry/fastcgi"

	"github.com/stretchr/testify/require"
)

// TestLogBound: a peer that finds a new reason to be complained about each time
// fills neither the disk nor the memory.
func TestLogBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log fastcgi.Throttle
		for minute := range 3 {
			said := 0
			for i := range 10 * fastcgi.ThrottleKeys {
				if log.Allow(strconv.Itoa(i)) {
					said++
				}
			}
			require.Equal(t, fastcgi.ThrottleKeys, said, "minute %d", minute)
			require.Equal(t, fastcgi.ThrottleKeys, log.Keys())
			time.Sleep(fastcgi.ThrottleWindow)
		}
	})
}
