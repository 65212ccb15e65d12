package transfer

import (
	"fmt"
	"sync/atomic"
	"time"

	"gantry/feedback"
)

// waits counts what the goroutines of an import are waiting for, to say so when
// nothing moves. Entering and leaving cost one atomic operation per request or
// piece, nothing per byte.
type waits struct {
	manifest atomic.Int64 // for lines of the manifest
	content  atomic.Int64 // for bytes
	disk     atomic.Int64 // for the target's disk
	retry    atomic.Int64 // between two attempts
	again    atomic.Int64 // when the next attempt is, ns since 1970
	limit    func() int64 // nil, or the bandwidth limit in bytes a second, 0 for none
	alone    func() bool  // nil, or says that nobody pushes
}

// while counts in n until the returned function is called.
func while(n *atomic.Int64) (done func()) {
	n.Add(1)
	return func() { n.Add(-1) }
}

// why names the one thing that explains most: a disk that does not take what
// came, then a line that is broken, then bytes that were asked for, and the
// manifest last, because while it is waited for other pieces may move.
func (w *waits) why() string {
	switch {
	case w.disk.Load() > 0:
		return feedback.WhyDisk
	case w.alone != nil && w.alone():
		return feedback.WhyPusher
	case w.retry.Load() > 0:
		left := time.Until(time.Unix(0, w.again.Load())).Seconds()
		return fmt.Sprintf(feedback.WhyRetry, max(1, int64(left+0.5)))
	case w.content.Load() > 0:
		if w.limit != nil {
			if perSec := w.limit(); perSec > 0 {
				return fmt.Sprintf(feedback.WhyLimit, rateText(perSec))
			}
		}
		return feedback.WhySource
	case w.manifest.Load() > 0:
		return feedback.WhySourceHash
	}
	return ""
}

// rateText is a limit as people write it.
func rateText(perSec int64) string {
	switch {
	case perSec >= 1<<30:
		return fmt.Sprintf("%.4g GiB/s", float64(perSec)/(1<<30))
	case perSec >= 1<<20:
		return fmt.Sprintf("%.4g MiB/s", float64(perSec)/(1<<20))
	}
	return fmt.Sprintf("%.4g KiB/s", float64(perSec)/(1<<10))
}
