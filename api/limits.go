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

	// MinBandwidth and MaxBandwidth bound a limit that is not 0 (none), in bytes
	// per second. Under the least one, connections that share it would look dead.
	MinBandwidth = 64 << 10
	MaxBandwidth = 1 << 40

	// MaxRange is the most bytes an importer asks for in one request.
	MaxRange = 16 << 20

	// MaxSub is the most pieces whose parts are asked for in one request.
	MaxSub = 64
	// MaxRanges is the most ranges in one request for frames.
	MaxRanges = 64
	// MaxParallel is the most content requests of one import at a time,
	// DefaultParallel how many there are when nobody says.
	MaxParallel     = 16
	DefaultParallel = 4
	// MaxFilter is the most rules of a filter, MaxArgs the most arguments of a
	// command, MaxArg the bytes of each of either.
	MaxFilter = 512
	MaxArgs   = 16
	MaxArg    = 4096
	// MaxPart is the most bytes of a manifest, or of frames, that are pushed in
	// one request.
	MaxPart = 4 << 20
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
	// MissingWait is how long a question for wants waits for one.
	MissingWait = 5 * time.Second
	// ReachWait bounds the question whether a neighbour answers.
	ReachWait = 5 * time.Second
	// Recheck is how often the caller of a live feed is judged again.
	Recheck = 30 * time.Second
)
