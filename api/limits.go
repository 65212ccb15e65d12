package api

import "time"

// Limits of requests. What exceeds one is refused by name.
const (
	MaxBody     = 1 << 20 // bytes of a JSON request body
	MaxCRL      = 1 << 20 // bytes of a revocation list
	MaxPath     = 4096    // bytes of a path within a resource (PATH_MAX)
	MaxName     = 64      // bytes of a node's, resource's or operator's name
	MaxPageSize = 1000    // entries of one page of a list
	MaxDepth    = 16      // nesting of JSON

	// MaxFrontSend is the most that a front is asked to send in one reply, so
	// that a revocation is felt within seconds.
	MaxFrontSend = 64 << 20

	// MaxWindow is the most pieces in one manifest window: 4 GiB of source.
	MaxWindow = 1024

	// MaxRange is the most bytes an importer asks for in one request.
	MaxRange = 16 << 20
)

// Times of the protocol.
const (
	// HeartbeatInterval is the longest silence on a feed. Fronts end silent
	// replies after 60 s (nginx) and 360 s (lighttpd).
	HeartbeatInterval = 10 * time.Second
	// SilentIntervals is how many missed heartbeats make a reader re-attach.
	SilentIntervals = 3
	// ClockAhead is how far ahead of the node's clock a task id may be.
	ClockAhead = 5 * time.Minute
	// KeepFinal is how long the final of an ended task is kept.
	KeepFinal = 30 * 24 * time.Hour
	// StallAfter is the default time without progress after which a task fails.
	StallAfter = time.Hour
	// RetryFor is how long an importer goes on after connection errors.
	RetryFor = time.Hour
	// Recheck is how often the caller of a live feed is judged again.
	Recheck = 30 * time.Second
)
