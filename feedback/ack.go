package feedback

// Ack says that the records up to seq are stored elsewhere: they may be
// deleted, and are when it pays. The final and the newest record of each state
// stay. A seq above Last is ErrAfter.
func (f *Feed) Ack(seq int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.err != nil:
		return f.err
	case f.closed:
		return ErrClosed
	case seq > f.last:
		return ErrAfter
	case seq <= f.acked:
		return nil
	}
	f.acked, f.barren = seq, false
	var covered int64 // bytes of acknowledged records, about
	for _, m := range f.marks {
		if m.seq <= seq {
			covered = m.off
		}
	}
	// A finished feed is shortened by Reduce, at its owner's moment. Rewriting
	// a small file for every ack would cost more than it gives back.
	if f.final.Seq == 0 && (f.full || covered >= f.o.Max/ackShare) {
		f.full = false
		f.askTrim(shorten{target: f.end, logs: true})
	}
	return nil
}

// ackShare is which part of a journal must be acknowledged before it is
// rewritten: with 16, each byte is copied at most 16 times.
const ackShare = 16

// Reduce deletes all but the final of a finished feed, durably; ErrUnfinished
// if it is not finished. Readers then get a gap and the final.
func (f *Feed) Reduce() error {
	if _, ok := f.Final(); !ok {
		return ErrUnfinished
	}
	return f.trimNow(shorten{all: true})
}

// shed deletes the log records of a finished feed, to make room for others.
func (f *Feed) shed() {
	_ = f.trimNow(shorten{logs: true}) // a failure breaks the feed
}

// trimNow hands the work to the flusher, like all rewriting, and waits.
func (f *Feed) trimNow(s shorten) error {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return ErrClosed
	}
	done := f.askTrim(s)
	f.mu.Unlock()
	<-done
	return f.Err()
}
