//go:build !failpoints

package failpoint

// Enabled says whether this binary was built with failpoints.
const Enabled = false

// Hit marks the moment before a step's effect.
func Hit(string) error { return nil }

// HitAfter marks the moment after a step's effect.
func HitAfter(string) error { return nil }
