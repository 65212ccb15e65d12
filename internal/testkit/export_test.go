package testkit

import "time"

// SetPatience shortens the wait for runs that are known to leak.
func SetPatience(d time.Duration) { patience = d }
