package feedback

// File is the file a feed appends to, for tests that make it fail.
type File = journalFile

// OpenFile is the real one.
var OpenFile = openJournal

// WithFile makes a feed append through open.
func (o Options) WithFile(open func(path string) (File, error)) Options {
	o.openFile = open
	return o
}

// Limits of texts and queues that tests look at.
const (
	CutMark      = cutMark
	EndedItems   = endedItems
	SeenLines    = seenLines
	JournalLines = MaxJobLine
)

// Flushing says whether the feed's goroutine runs.
func (f *Feed) Flushing() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.flushing
}
