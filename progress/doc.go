// Package progress shows the records of a feed to people: bars with rate and
// time left on a terminal, a plain line every few seconds elsewhere.
//
//	d := progress.New(progress.Options{Out: stderr, Width: width})
//	err := j.Watch(ctx, 0, func(rec feedback.Record) error { d.Show(rec); return nil })
//	d.Close()
//
// Log lines stand above the bars. When a step failed, Close repeats its last
// ones, so that the reason is on the screen and not above it. Whatever comes
// from a feed is made printable first: a node cannot drive the terminal.
//
// Sizes are decimal (1 MB = 1,000,000 bytes), as disks and networks count.
//
// It reads records only; it fetches nothing and decides nothing. Programs read
// the feed itself (--json).
package progress
