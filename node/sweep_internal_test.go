package node

import "time"

// Sweep gives up what was kept long enough at now.
func (n *Node) Sweep(now time.Time) error { return n.sweep(now) }
