package fastcgi

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"
)

const (
	// maxBatch is the number of records per system call: 256 KiB is what a
	// unix socket takes at once by default, more would only block longer.
	maxBatch = 4
	// vecLen is what a batch needs: per record a header, three parts and the
	// padding, and once the end of the reply.
	vecLen = maxBatch*5 + 1
)

var zeros [8]byte // for padding

// recordWriter puts records on a socket, each batch with one writev and one
// deadline, without copying content. The order of batches is the order of mu.
type recordWriter struct {
	// config
	nc      net.Conn
	timeout time.Duration

	// guarded by mu
	mu      sync.Mutex
	err     error // the first failure; the socket may be in the middle of a record
	vec     [vecLen][]byte
	bufs    net.Buffers
	headers [maxBatch][headerLen]byte
	tail    [2*headerLen + 8]byte

	// guarded by deadlineMu, which a blocked write does not hold
	deadlineMu sync.Mutex
	handler    time.Time // set by the handler, zero for none
	latest     time.Time // of the write that is going on, else zero
}

// stdout sends parts, one after the other, as FCGI_STDOUT records of request id,
// in one record if they fit. If end is not nil, the end of the stream and of the
// request follow.
func (w *recordWriter) stdout(id uint16, end *endStatus, parts ...[]byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stdoutLocked(id, end, parts...)
}

// endStatus is what FCGI_END_REQUEST says.
type endStatus struct {
	app      uint32
	protocol byte
}

func (w *recordWriter) stdoutLocked(id uint16, end *endStatus, parts ...[]byte) error {
	total := 0
	for _, p := range parts {
		total += len(p)
	}
	size := alignedContent
	if total <= maxContent {
		size = maxContent
	}
	for {
		vec := w.vec[:0]
		for i := 0; i < maxBatch && total > 0; i++ {
			n := min(total, size)
			padding := -n & 7
			putHeader(w.headers[i][:], typeStdout, id, n, padding)
			vec = append(vec, w.headers[i][:])
			vec, parts = cut(vec, parts, n)
			if padding > 0 {
				vec = append(vec, zeros[:padding])
			}
			total -= n
		}
		if total == 0 && end != nil {
			putHeader(w.tail[:], typeStdout, id, 0, 0)
			putEnd(w.tail[headerLen:], id, end.app, end.protocol)
			vec = append(vec, w.tail[:])
		}
		if err := w.write(vec); err != nil || total == 0 {
			return err
		}
	}
}

// cut moves n bytes from the front of parts to vec.
func cut(vec, parts [][]byte, n int) (newVec, rest [][]byte) {
	for n > 0 {
		p := parts[0]
		m := min(n, len(p))
		if m > 0 {
			vec = append(vec, p[:m])
		}
		if m == len(p) {
			parts = parts[1:]
		} else {
			parts[0] = p[m:]
		}
		n -= m
	}
	return vec, parts
}

// raw sends complete records.
func (w *recordWriter) raw(b []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.write(append(w.vec[:0], b))
}

// end sends FCGI_END_REQUEST alone, for a request that has no reply.
func (w *recordWriter) end(id uint16, status endStatus) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.endLocked(id, status)
}

func (w *recordWriter) endLocked(id uint16, status endStatus) error {
	putEnd(w.tail[:], id, status.app, status.protocol)
	return w.write(append(w.vec[:0], w.tail[:headerLen+8]))
}

// write sends vec with one deadline; mu is held.
func (w *recordWriter) write(vec [][]byte) error {
	if w.err != nil {
		return w.err
	}
	if len(vec) == 0 {
		return nil
	}
	w.arm()
	w.bufs = vec
	_, err := w.bufs.WriteTo(w.nc)
	w.disarm()
	clear(w.vec[:])
	w.bufs = nil
	if err == nil {
		return nil
	}
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		err = fmt.Errorf("%w: %w", ErrClientGone, err)
	}
	w.err = fmt.Errorf("writing reply: %w", err)
	return w.err
}

func (w *recordWriter) arm() {
	w.deadlineMu.Lock()
	defer w.deadlineMu.Unlock()
	w.latest = time.Now().Add(w.timeout)
	w.apply()
}

func (w *recordWriter) disarm() {
	w.deadlineMu.Lock()
	defer w.deadlineMu.Unlock()
	w.latest = time.Time{}
}

// setDeadline takes the handler's deadline, also for a write that is going on:
// deadlineMu is all it needs. over tells, under that lock, that the handler has
// returned.
func (w *recordWriter) setDeadline(t time.Time, over *bool) error {
	w.deadlineMu.Lock()
	defer w.deadlineMu.Unlock()
	if *over {
		return errDone
	}
	w.handler = t
	if !w.latest.IsZero() {
		w.apply()
	}
	return nil
}

// endDeadline drops the handler's deadline for good.
func (w *recordWriter) endDeadline(over *bool) {
	w.deadlineMu.Lock()
	defer w.deadlineMu.Unlock()
	*over = true
	w.handler = time.Time{}
}

func (w *recordWriter) apply() {
	t := w.latest
	if !w.handler.IsZero() && w.handler.Before(t) {
		t = w.handler
	}
	_ = w.nc.SetWriteDeadline(t) // fails on a closed socket only, as the write will
}
