package transfer

import (
	"io"
	"sync/atomic"
	"time"
)

// When an import with api.CompressAuto asks for packed content: its first paceBytes,
// or paceTime, came at less than slowRate. One core packs four times as fast, so
// under that rate packing is never what is waited for, and over it the front can
// send plain content with less work. After paceBytes of packed content it goes on
// with plain content when not even a fifth was saved.
const (
	paceBytes = 64 << 20
	paceTime  = 4 * time.Second
	slowRate  = 64 << 20 // bytes per second
)

// pace measures a line, all connections together.
type pace struct {
	off           bool         // never pack
	first         atomic.Int64 // when the first content was asked for, Unix ns
	plain         atomic.Int64 // bytes of plain content that came
	packed        atomic.Int64 // bytes that came for packed content,
	stood         atomic.Int64 // and what they stood for
	isSlow, given atomic.Bool  // decided; given up
}

// slow says whether the next content is worth packing.
func (p *pace) slow() bool {
	if p.off || p.given.Load() {
		return false
	}
	if stood := p.stood.Load(); stood >= paceBytes && !pays(int(p.packed.Load()), int(stood)) {
		p.given.Store(true)
		return false
	}
	if p.isSlow.Load() {
		return true
	}
	p.first.CompareAndSwap(0, time.Now().UnixNano())
	lasted, came := time.Since(time.Unix(0, p.first.Load())), p.plain.Load()
	if came < paceBytes && lasted < paceTime {
		return false
	}
	if float64(came) < slowRate*lasted.Seconds() {
		p.isSlow.Store(true)
	} else {
		p.given.Store(true)
	}
	return p.isSlow.Load()
}

// counted counts what is read.
type counted struct {
	io.Reader
	n *atomic.Int64
}

// Read counts, then passes on.
func (c counted) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.n.Add(int64(n))
	return n, err
}
