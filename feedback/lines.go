package feedback

import (
	"bytes"
	"io"
)

// lines cuts a stream into lines of at most max bytes. Unlike a bufio.Reader
// it starts small: a process may hold a thousand idle feeds.
type lines struct {
	r    io.Reader
	max  int
	buf  []byte // what was read and not handed out: buf[at:]
	at   int
	done int   // buf[at:done] has no newline
	err  error // of r; reported after the complete lines before it
}

// firstBuffer holds a typical line; the buffer doubles from there to max.
const firstBuffer = 2 << 10

// emptyReads is how many reads without data or error a stream may have in a row.
const emptyReads = 100

// next returns the next line without its newline, valid until the next call.
// A line over max bytes, newline included, is errLong. At the end of the
// stream it returns the stream's error; an incomplete line is left in the
// buffer.
func (l *lines) next() ([]byte, error) {
	for empty := 0; ; {
		if i := bytes.IndexByte(l.buf[l.done:], '\n'); i >= 0 {
			end := l.done + i
			if end+1-l.at > l.max {
				return nil, errLong
			}
			b := l.buf[l.at:end]
			l.at, l.done = end+1, end+1
			return b, nil
		}
		l.done = len(l.buf)
		if l.done-l.at >= l.max {
			return nil, errLong
		}
		if l.err != nil {
			return nil, l.err
		}
		l.makeRoom()
		n, err := l.r.Read(l.buf[len(l.buf):cap(l.buf)])
		l.buf, l.err = l.buf[:len(l.buf)+n], err
		if empty++; n > 0 {
			empty = 0
		} else if empty == emptyReads && err == nil {
			l.err = io.ErrNoProgress
		}
	}
}

// buffered returns how many bytes were read and not handed out.
func (l *lines) buffered() int { return len(l.buf) - l.at }

// makeRoom makes room for one more read behind what is buffered.
func (l *lines) makeRoom() {
	if l.at > 0 {
		l.buf = l.buf[:copy(l.buf, l.buf[l.at:])]
		l.done -= l.at
		l.at = 0
	}
	if len(l.buf) == cap(l.buf) {
		grown := make([]byte, len(l.buf), min(max(firstBuffer, 2*cap(l.buf)), max(l.max, firstBuffer)))
		copy(grown, l.buf)
		l.buf = grown
	}
}
