package feedback

import (
	"context"
	"errors"
	"time"
)

// Errors that callers branch on.
var (
	errSkeleton = errors.New("not written yet")
	// ErrNoRoom: the budget has no room for one more feed and its final.
	ErrNoRoom = errors.New("no room for another feed")
	// ErrAfter: the reader asked for records after one that does not exist.
	ErrAfter = errors.New("after is above the last record")
	// ErrFinished: the feed has its final record; nothing can follow.
	ErrFinished = errors.New("the feed is finished")
	// ErrClosed: the feed was closed.
	ErrClosed = errors.New("the feed is closed")
	// ErrResultTooLarge: a result over MaxResult; serve it as content.
	ErrResultTooLarge = errors.New("the result is too large for a record")
)

// Options of a feed. The zero value works.
type Options struct {
	ID       string        // id of the task or job, kept in the journal's header and checked by Open; may be empty
	Job      bool          // a job's feed: lines up to MaxJobLine
	Interval time.Duration // longest silence of a stream; 0 means Interval
	Tick     time.Duration // shortest time between progress lines of an item; 0 means Tick
	Max      int64         // bytes of the journal; 0 means MaxJournal
	Budget   *Budget       // shared by the feeds of a node; nil: unbounded
	OnBroken func(error)   // called once, from any goroutine, when the journal can no longer be written
}

// Budget bounds the journals of a node together.
type Budget struct{}

// NewBudget returns a budget of max bytes; 0 means MaxBudget.
func NewBudget(max int64) *Budget { return &Budget{} }

// Used returns the bytes in use and reserved.
func (b *Budget) Used() int64 { return 0 }

// A Feed is the durable, numbered stream of records of one task or job. Its
// methods may be called from several goroutines.
type Feed struct{}

// Create makes a new journal at path, durable when it returns. It returns
// ErrNoRoom when the budget has no room for it and its final.
func Create(path string, o Options) (*Feed, error) { return nil, errSkeleton }

// Open opens a journal that Create made.
func Open(path string, o Options) (*Feed, error) { return nil, errSkeleton }

// State stores a state record; it is on disk when State returns nil.
func (f *Feed) State(name string, detail any) error { return errSkeleton }

// Log stores a log record; it does not wait for the disk. A text that is too
// long is cut, with a mark.
func (f *Feed) Log(level, item, text string) {}

// Task stores a task's record in a job's feed; it is on disk when Task returns nil.
func (f *Feed) Task(node, task string, record []byte) error { return errSkeleton }

// Item returns the counters of one item; total is -1 when unknown.
func (f *Feed) Item(name, phase, unit string, total int64) *Item { return &Item{} }

// Finish stores the final record, on disk when it returns nil: a result with
// value, or, when err is not nil, an error. Exactly one call succeeds; a second
// returns ErrFinished. A value over MaxResult is refused with
// ErrResultTooLarge, and Finish may be called again. An err that is no *Error
// becomes one with code "internal".
func (f *Feed) Finish(value any, err error) error { return errSkeleton }

// Final returns the final record, if it is on disk.
func (f *Feed) Final() (Record, bool) { return Record{}, false }

// Last returns the greatest number on disk.
func (f *Feed) Last() int64 { return 0 }

// Ack says that the records up to seq are stored elsewhere: they may be
// deleted. The final stays. Above Last it is ErrAfter.
func (f *Feed) Ack(seq int64) error { return errSkeleton }

// Reduce deletes all but the final of a finished feed.
func (f *Feed) Reduce() error { return errSkeleton }

// Done is closed when the final is on disk.
func (f *Feed) Done() <-chan struct{} { return nil }

// Err returns why the journal can no longer be written, or nil.
func (f *Feed) Err() error { return errSkeleton }

// Stream writes hello, the newest progress, the stored records after `after`
// and then what comes, until the final is written (nil) or ctx ends (its
// cause). V, Interval and Last of hello are filled in. After above Last is
// ErrAfter, before anything is written.
func (f *Feed) Stream(ctx context.Context, w *Writer, after int64, hello Hello) error {
	return errSkeleton
}

// Close writes what is queued and closes the journal. A feed without a final
// can be opened again.
func (f *Feed) Close() error { return errSkeleton }

// Item counts the progress of one thing. Its methods may be called from
// several goroutines and cost an atomic add.
type Item struct{}

// Add adds n units to what is done.
func (i *Item) Add(n int64) {}

// Set sets what is done.
func (i *Item) Set(done int64) {}

// SetTotal sets the total; -1 is unknown.
func (i *Item) SetTotal(total int64) {}

// SetPhase names what is being done; the rate starts afresh.
func (i *Item) SetPhase(phase string) {}

// End takes the item out of later snapshots, after its last value was shown.
func (i *Item) End() {}

