package master

import (
	"errors"
	"fmt"
	"sync"

	"gantry/feedback"
)

// feeds holds the open feeds: one per job, opened by its first user and closed
// by its last.
type feeds struct {
	store  Store
	broken func(error)

	mu     sync.Mutex
	open   map[string]*openFeed // guarded by mu
	closed bool                 // guarded by mu
}

type openFeed struct {
	users int           // guarded by feeds.mu
	ready chan struct{} // closed when feed or err is set
	gone  chan struct{} // closed when feed is closed
	feed  *feedback.Feed
	err   error
}

// use opens a feed or joins its users. release may be called once or more.
func (f *feeds) use(id string) (*feedback.Feed, func(), error) {
	for {
		f.mu.Lock()
		if f.closed {
			f.mu.Unlock()
			return nil, nil, ErrClosed
		}
		o, ok := f.open[id]
		switch {
		case !ok:
			o = &openFeed{users: 1, ready: make(chan struct{}), gone: make(chan struct{})}
			f.open[id] = o
		case o.users == 0: // it is being closed; two feeds must not be open on one journal
			f.mu.Unlock()
			<-o.gone
			continue
		default:
			o.users++
		}
		f.mu.Unlock()
		if !ok {
			o.feed, o.err = feedback.OpenJournal(f.store.Journal(id), feedback.Options{ID: id, Job: true, OnBroken: f.broken})
			close(o.ready)
		}
		<-o.ready
		release := sync.OnceFunc(func() { f.release(id, o) })
		if o.err != nil {
			release()
			return nil, nil, fmt.Errorf("opening the feed of job %s: %w", id, o.err)
		}
		return o.feed, release, nil
	}
}

// over says whether a feed is open and has its final record.
func (f *feeds) over(id string) bool {
	f.mu.Lock()
	o := f.open[id]
	f.mu.Unlock()
	if o == nil {
		return false
	}
	<-o.ready
	if o.feed == nil {
		return false
	}
	_, over := o.feed.Final()
	return over
}

func (f *feeds) release(id string, o *openFeed) {
	f.mu.Lock()
	o.users--
	last := o.users == 0
	f.mu.Unlock()
	if !last {
		return
	}
	if o.feed != nil {
		if err := o.feed.Close(); err != nil {
			f.broken(err)
		}
	}
	f.mu.Lock()
	delete(f.open, id)
	f.mu.Unlock()
	close(o.gone)
}

// close ends every feed, also for those that use it.
func (f *feeds) close() {
	f.mu.Lock()
	f.closed = true
	var all []*openFeed
	for _, o := range f.open {
		all = append(all, o)
	}
	f.mu.Unlock()
	for _, o := range all {
		<-o.ready
		if o.feed == nil {
			continue
		}
		if err := o.feed.Close(); err != nil && !errors.Is(err, feedback.ErrClosed) {
			f.broken(err)
		}
	}
}
