package feedback

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Errors that callers branch on.
var (
	// ErrNoRoom: the budget has no room for one more feed and its final, or
	// for one more record.
	ErrNoRoom = errors.New("no room for the feed")
	// ErrFull: the journal has reached its bound and holds nothing that may be
	// deleted before somebody acknowledges it.
	ErrFull = errors.New("the journal is full")
	// ErrAfter: the reader asked for what follows a record that does not exist.
	ErrAfter = errors.New("after is above the last record")
	// ErrFinished: the feed has its final record; nothing can follow.
	ErrFinished = errors.New("the feed is finished")
	// ErrUnfinished: the feed has no final record yet.
	ErrUnfinished = errors.New("the feed is not finished")
	// ErrClosed: the feed was closed.
	ErrClosed = errors.New("the feed is closed")
	// ErrResultTooLarge: a result over MaxResult; serve it as content.
	ErrResultTooLarge = fmt.Errorf("a result over %d bytes", MaxResult)
)

// Options of a feed. The zero value works.
type Options struct {
	ID       string        // id of the task or job, kept in the journal and checked by Open; may be empty
	Job      bool          // a job's feed: lines up to MaxJobLine, not MaxTaskLine
	Interval time.Duration // longest silence of a stream; 0 means Interval
	Tick     time.Duration // shortest time between two progress lines of an item; 0 means Tick
	Max      int64         // bytes of the journal, at least MinJournal; 0 means MaxJournal
	Budget   *Budget       // shared by the feeds of a node; nil: no common bound

	// OnBroken is called once, when the journal can no longer be written. It
	// runs in the feed's own goroutine: it must not call Close.
	OnBroken func(error)

	openFile func(path string) (journalFile, error) // tests make it fail
}

func (o Options) withDefaults() Options {
	if o.Interval <= 0 {
		o.Interval = Interval
	}
	if o.Tick <= 0 {
		o.Tick = Tick
	}
	if o.Max <= 0 {
		o.Max = MaxJournal
	}
	o.Max = max(o.Max, MinJournal)
	if o.openFile == nil {
		o.openFile = openJournal
	}
	return o
}

// line is the longest line of the feed, in bytes with newline. A final has
// always room for one.
func (o Options) line() int64 {
	if o.Job {
		return MaxJobLine
	}
	return MaxTaskLine
}

// queue is how many bytes may wait for the disk: enough for a batch that is
// worth an fsync, too little to hurt a node with many feeds.
func (o Options) queue() int64 { return max(o.line(), o.Max/64) }

// soft is where the journal is shortened: above it the batch being written,
// the one that gathers meanwhile and the final still fit under Max.
func (o Options) soft() int64 { return o.Max - o.line() - 2*o.queue() }

func (o Options) markEvery() int64 { return o.Max / marksPerFile }

// A Feed is the durable, numbered stream of records of one task or job. Its
// methods may be called from several goroutines.
//
// A feed at rest costs a few hundred bytes, an unfinished one also a file
// descriptor; there is a goroutine only while something is on its way to the
// disk.
type Feed struct {
	// config
	path    string  // "" where journal keeps the lines
	journal Journal // nil: a file does
	o       Options

	done    chan struct{}  // closed when the final is on disk
	flusher sync.WaitGroup // at most one; it owns out and the file's content
	out     journalFile    // nil until the first append

	// file is held for reading while somebody opens the journal by name, for
	// writing while it is replaced. It is taken before mu.
	file sync.RWMutex

	mu         sync.Mutex
	assigned   int64         // guarded by mu; greatest number given, perhaps not on disk
	last       int64         // guarded by mu; greatest number on disk
	end        int64         // guarded by mu; bytes on disk
	marks      []mark        // guarded by mu
	generation int           // guarded by mu; counts the rewrites of the file
	pending    *batch        // guarded by mu; gathers while the flusher is busy
	want       *trimRequest  // guarded by mu
	flushing   bool          // guarded by mu
	acked      int64         // guarded by mu
	final      Record        // guarded by mu; on disk
	finishing  bool          // guarded by mu; a final was accepted
	full       bool          // guarded by mu
	barren     bool          // guarded by mu; the last shortening found nothing, and no log came since
	closed     bool          // guarded by mu
	err        error         // guarded by mu; why the journal is broken
	changed    chan struct{} // guarded by mu; nil, or closed at the next change
	streams    int           // guarded by mu
	items      []*Item       // guarded by mu
	ended      []*Item       // guarded by mu; the last ones that ended
	endedCount int           // guarded by mu
	mirrored   int           // guarded by mu; counts the values that items mirrored
}

// Create makes a new journal at path, durable when it returns. It returns
// ErrNoRoom when the budget has no room for it and its final.
func Create(path string, o Options) (*Feed, error) {
	o = o.withDefaults()
	head := header{Format: journalFormat, ID: o.ID}
	room := int64(len(o.ID)) + 64 + o.line()
	if !o.Budget.takeOrShed(room) {
		return nil, ErrNoRoom
	}
	n, err := createJournal(path, head)
	if err != nil {
		o.Budget.add(-room)
		return nil, fmt.Errorf("creating journal: %w", err)
	}
	o.Budget.add(n + o.line() - room)
	return &Feed{path: path, o: o, done: make(chan struct{}), end: n}, nil
}

// Open opens a journal that Create made, in this process or an earlier one. A
// last line that a crash tore is cut off; other damage is an error that names
// the line, and changes nothing. One process at a time may have it open.
func Open(path string, o Options) (*Feed, error) {
	o = o.withDefaults()
	c, err := load(path, o.markEvery())
	if err != nil {
		return nil, fmt.Errorf("opening journal: %w", err)
	}
	if o.ID != "" && c.head.ID != o.ID {
		return nil, fmt.Errorf("opening journal: %s belongs to %q, not %q", path, c.head.ID, o.ID)
	}
	f := &Feed{
		path: path, o: o, done: make(chan struct{}),
		assigned: c.last, last: c.last, end: c.end, marks: c.marks, final: c.final, finishing: c.final.Seq != 0,
	}
	o.Budget.add(c.end) // it is there, whether there is room or not
	if f.finishing {
		close(f.done)
		o.Budget.finished(f)
	} else {
		o.Budget.add(o.line())
	}
	return f, nil
}

// Limits of short texts inside records, in bytes as written.
const (
	maxName  = 1 << 10 // names of items, states
	maxShort = 64      // levels, phases, units, codes
	maxText  = 8 << 10 // message of an error
)

// State stores a state record; it is on disk when State returns nil. detail is
// marshalled as JSON; nil leaves it out.
func (f *Feed) State(name string, detail any) error {
	body := &State{State: fit(name, maxName)}
	if detail != nil {
		v, err := marshal(detail)
		if err != nil {
			return fmt.Errorf("encoding state detail: %w", err)
		}
		body.Detail = v
	}
	return f.store(KindState, body)
}

// Log stores a log record and does not wait for the disk, unless very much is
// on its way there. level is debug, info, warn or error; item may be empty. A
// text that is too long is cut, with a mark. It is dropped where no record can
// be stored: the feed is finished, closed, full or broken.
func (f *Feed) Log(level, item, text string) {
	const rest = 2 << 10 // everything on the line that is not the text
	body := &Log{Level: fit(level, maxShort), Item: fit(item, maxName), Text: fit(text, int(f.o.line())-rest)}
	_, _ = f.add(KindLog, body)
}

// Task stores a task's stored record in a job's feed; it is on disk when Task
// returns nil.
func (f *Feed) Task(node, task string, record jsontext.Value) error {
	return f.store(KindTask, &Task{Node: node, Task: task, Record: record})
}

// Finish stores the final record, on disk when it returns nil: a result with
// value or, when err is not nil, an error. After the first success every call
// returns ErrFinished. A value over MaxResult is refused with
// ErrResultTooLarge; Finish may then be called with another.
//
// An err that is not an *Error becomes one with code "internal" and a message
// that does not repeat it: what is internal belongs in the caller's log.
func (f *Feed) Finish(value any, err error) error {
	if err != nil {
		return f.store(KindError, wireError(err))
	}
	v, err := marshal(value)
	if err != nil {
		return fmt.Errorf("encoding result: %w", err)
	}
	if len(v) > MaxResult {
		return fmt.Errorf("%w: it has %d", ErrResultTooLarge, len(v))
	}
	return f.store(KindResult, &Result{Value: v})
}

// wireError makes what goes on the line out of an error; a final must not fail
// because a message is too long.
func wireError(err error) *Error {
	var e *Error
	if !errors.As(err, &e) {
		return &Error{Code: "internal", Message: "the task ended by an internal error, which is in the log of its node"}
	}
	out := &Error{Code: fit(e.Code, maxShort), Message: fit(e.Message, maxText), Retryable: e.Retryable, Detail: e.Detail}
	if out.Code == "" {
		out.Code = "internal"
	}
	if out.Detail != nil && (len(out.Detail) > MaxResult || !out.Detail.IsValid() || depth(out.Detail) >= MaxDepth) {
		out.Detail = jsontext.Value(fmt.Sprintf(`{"omitted_bytes":%d}`, len(e.Detail)))
	}
	return out
}

// marshal gives the same bytes for the same value, so that a final that is
// made again is the same final.
func marshal(v any) (jsontext.Value, error) {
	b, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		return nil, err
	}
	if strings.TrimSpace(string(b)) == "" {
		return nil, errors.New("it is empty")
	}
	return b, nil
}

// store adds a record and waits until it is on disk.
func (f *Feed) store(kind Kind, body any) error {
	b, err := f.add(kind, body)
	if err != nil {
		return err
	}
	<-b.done
	return b.err
}

// Final returns the final record, once it is on disk.
func (f *Feed) Final() (Record, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.final, f.final.Seq != 0
}

// Last returns the greatest number on disk.
func (f *Feed) Last() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

// Done is closed when the final is on disk.
func (f *Feed) Done() <-chan struct{} { return f.done }

// Err returns why the journal can no longer be written, or nil. It sticks: the
// state of the file is unknown, so the process should end and open it afresh.
func (f *Feed) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// Close waits until what was added is on disk, closes the journal and ends its
// streams with ErrClosed. A feed without final can be opened again.
func (f *Feed) Close() error {
	f.mu.Lock()
	was := f.closed
	f.closed = true
	f.notify()
	f.mu.Unlock()
	f.flusher.Wait()
	if was {
		return nil
	}
	f.closeFile()
	f.o.Budget.forget(f)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.o.Budget.add(-f.end)
	if f.final.Seq == 0 {
		f.o.Budget.add(-f.o.line())
	}
	return f.err
}
