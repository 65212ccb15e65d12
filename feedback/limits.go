package feedback

import "time"

// Limits of the format and of the journal.
const (
	// MaxTaskLine bounds a line of a task's feed with padding and newline,
	// in bytes: a FastCGI record holds 65,535, and a job's line wraps it.
	MaxTaskLine = 56 << 10
	// MaxJobLine bounds a line of a job's feed, in bytes: a task's longest
	// record fits with node and task beside it.
	MaxJobLine = 60 << 10
	// MaxResult bounds the value of a result, in bytes. Greater ones are
	// fetched as content.
	MaxResult = 32 << 10
	// MaxDepth bounds the nesting of a line.
	MaxDepth = 16
	// MaxJournal bounds a feed's journal on disk, in bytes.
	MaxJournal = 16 << 20
	// MinJournal is the least bound of a journal, in bytes: a few of the longest
	// lines.
	MinJournal = 6 * MaxJobLine
	// MaxBudget bounds all journals of a node together, in bytes.
	MaxBudget = 1 << 30

	// Interval is the longest silence of a stream: fronts kill silent replies at 60 s.
	Interval = 10 * time.Second
	// Tick is the shortest time between two progress lines of an item.
	Tick = 250 * time.Millisecond
)
