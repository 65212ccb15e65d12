package transfer

import "time"

// SweepKnownTo is SweepKnown with another bound.
func SweepKnownTo(dir string, now time.Time, most int64) error { return sweepKnown(dir, now, most) }
