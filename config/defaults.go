package config

import (
	"os"
	"slices"
	"time"
)

// Bounds of what a file may say, each with its reason.
const (
	// MaxFile bounds a configuration file in bytes; 10,000 nodes fit.
	MaxFile = 2 << 20
	// MaxSocketPath is what fits sockaddr_un with its final NUL, unix(7).
	MaxSocketPath = 107
	// MaxName is the longest name of a node, cluster or resource in bytes:
	// the longest common name of a certificate.
	MaxName = 64
	// MaxPadding keeps padded feed lines within one FastCGI record.
	MaxPadding = 16 << 10
	// MaxHeartbeat stays well below the 60 s after which nginx ends a silent
	// reply, with room for one that is late.
	MaxHeartbeat = 30 * time.Second
	// maxCount bounds counts that a typing error would make absurd.
	maxCount = 100_000
	// maxDuration bounds times likewise: ten years.
	maxDuration = 10 * 365 * 24 * time.Hour
	// maxSize bounds sizes likewise: one TiB of journals.
	maxSize = 1 << 40
	// maxPins is the current key, the next one and some for emergencies.
	maxPins = 8

	// DefaultMode of files that imports create: the group may read.
	DefaultMode os.FileMode = 0o640

	// overflowUID is what the kernel shows for uids it cannot name in this
	// namespace, and "nobody" on many systems: it is no one in particular.
	overflowUID = 65534
)

// Defaults are the limits of a node that configures none.
func Defaults() Limits {
	return Limits{
		Tasks:          16,
		Connections:    2048, // 1,000 feeds and as many short requests, as in the fronts' files
		JournalPerTask: 16 << 20,
		JournalPerNode: 1 << 30,
		RunFor:         7 * 24 * time.Hour,
		StallAfter:     time.Hour,
		KeepFinal:      30 * 24 * time.Hour,
		Heartbeat:      10 * time.Second,
		RetryFor:       time.Hour,
		Drain:          30 * time.Second,
		IOPriority:     IONormal,
	}
}

// Rights that a grant may name, as in package api, whose table is their origin
// (a test of package access compares them).
var Rights = []string{"status", "list", "digest", "export", "import:create", "import:replace", "import:update", "command", "selftest"}

// NeedsResource says whether a right is about a resource.
func NeedsResource(right string) bool {
	return slices.Contains(Rights, right) && right != "status" && right != "selftest"
}
