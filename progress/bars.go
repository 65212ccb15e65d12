package progress

import (
	"io"
	"sync"
	"time"

	"gantry/feedback"

	"github.com/jedib0t/go-pretty/v6/progress"
)

// redraw is how often bars are drawn: feeds bring four values a second.
const redraw = 100 * time.Millisecond

// bars draws one bar for each item and phase. Rates and times left are those
// that the feed states: what a resumed job has already is no speed.
type bars struct {
	w       progress.Writer
	drawn   chan struct{} // closed when nothing is drawn any more
	items   map[string]*bar
	current map[string]string // item -> key of its newest phase
}

type bar struct {
	tracker *progress.Tracker
	mu      sync.Mutex
	text    string // guarded by mu
}

func newBars(out io.Writer, width int) *bars {
	w := progress.NewWriter()
	w.SetOutputWriter(out)
	w.SetTerminalWidth(width)
	w.SetTrackerLength(max(8, min(24, width/5)))
	w.SetTrackerPosition(progress.PositionRight)
	w.SetUpdateFrequency(redraw)
	w.SetStyle(progress.StyleBlocks)
	v := &w.Style().Visibility
	v.ETA, v.ETAOverall, v.Speed, v.SpeedOverall, v.Time, v.TrackerOverall, v.Percentage = false, false, false, false, false, false, false
	v.Value, v.Tracker = true, true
	w.Style().Options.Separator = "  "
	w.Style().Options.DoneString = "done"
	w.Style().Options.ErrorString = "stopped"
	b := &bars{w: w, items: map[string]*bar{}, current: map[string]string{}, drawn: make(chan struct{})}
	go func() {
		defer close(b.drawn)
		w.Render()
	}()
	return b
}

func (b *bars) log(text string) { b.w.Log("%s", text) }

func (b *bars) show(p feedback.Progress) {
	key := p.Item + "\x00" + p.Phase
	if old := b.current[p.Item]; old != key {
		if o := b.items[old]; o != nil {
			// The count goes on through the phases, so the first value of the
			// new one is the last of the old, which may never have been sent.
			o.settle(p)
			o.tracker.MarkAsDone()
		}
		b.current[p.Item] = key
	}
	it := b.items[key]
	if it == nil {
		it = &bar{}
		it.tracker = &progress.Tracker{
			Message: p.Item + " " + p.Phase,
			Total:   max(p.Total, 0), // 0: unknown
			Units:   progress.Units{Formatter: func(int64) string { return it.line() }},
			// a total may be corrected after it was reached
			AutoStopDisabled: true,
		}
		b.items[key] = it
		b.w.AppendTracker(it.tracker)
	}
	it.mu.Lock()
	it.text = describe(bare(p))
	it.mu.Unlock()
	if p.Total > 0 {
		it.tracker.UpdateTotal(p.Total)
	}
	it.tracker.SetValue(p.Done)
}

// bare is p without the reason of a stall: it stands above the bars.
func bare(p feedback.Progress) *feedback.Progress {
	p.Why = ""
	return &p
}

// settle shows the value with which a phase ended, if it is a later one.
func (it *bar) settle(next feedback.Progress) {
	if next.Done < it.tracker.Value() {
		return
	}
	next.Rate, next.ETA, next.Stalled = 0, 0, 0
	it.mu.Lock()
	it.text = describe(&next)
	it.mu.Unlock()
	it.tracker.SetValue(next.Done)
}

func (it *bar) line() string {
	it.mu.Lock()
	defer it.mu.Unlock()
	return it.text
}

// close draws the last values and waits until nothing is drawn any more.
func (b *bars) close(failed bool) {
	for _, it := range b.items {
		if failed {
			it.tracker.MarkAsErrored()
		} else {
			it.tracker.MarkAsDone()
		}
	}
	// A Stop that comes before Render has begun is lost, so it is said again.
	for ticker := time.NewTicker(time.Millisecond); ; {
		b.w.Stop()
		select {
		case <-b.drawn:
			ticker.Stop()
			return
		case <-ticker.C:
		}
	}
}
