package progress

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"gantry/feedback"
)

const (
	// defaultEvery is how often a plain line says how far an item is: often
	// enough for somebody who waits, rare enough for a log file.
	defaultEvery = 5 * time.Second
	// repeated is how many log lines Close repeats after a failure.
	repeated = 5
)

// Options of a Display.
type Options struct {
	Out   io.Writer
	Width int // columns of the terminal; 0: Out is none, plain lines are written
	// Every is the time between plain lines of an item; 0: 5 s.
	Every time.Duration
	Now   func() time.Time // nil: time.Now
	// Quiet shows warnings and errors only.
	Quiet bool
}

// A Display shows one feed. Its methods may be called from several goroutines.
type Display struct {
	o    Options
	bars *bars // nil: plain lines

	mu      sync.Mutex
	spoken  map[string]time.Time // guarded by mu; when an item's line was last written
	stalled map[string]string    // guarded by mu; why an item stalls, as it was said
	tail    []string             // guarded by mu; the last log lines
	failed  bool                 // guarded by mu; the last record was an error
	ended   bool                 // guarded by mu; a final was shown
	closed  bool                 // guarded by mu
}

// New returns a display. Close it.
func New(o Options) *Display {
	if o.Every == 0 {
		o.Every = defaultEvery
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	d := &Display{o: o, spoken: map[string]time.Time{}, stalled: map[string]string{}}
	if o.Width > 0 && !o.Quiet {
		d.bars = newBars(o.Out, o.Width)
	}
	return d
}

// Show shows a record of a feed. Records of tasks inside a job's feed are shown
// with their node's name.
func (d *Display) Show(rec feedback.Record) { d.show("", rec) }

func (d *Display) show(node string, rec feedback.Record) {
	switch body := rec.Body.(type) {
	case *feedback.Task:
		if inner, err := feedback.Decode(body.Record); err == nil && inner.Kind != feedback.KindTask {
			d.show(body.Node, inner)
		}
	case *feedback.Log:
		d.log(node, body)
	case *feedback.State:
		if body.State == "publishing" {
			d.line("info", join(node, "every byte is proved; publishing"))
		}
	case *feedback.Progress:
		d.progress(body)
	case *feedback.Gap:
		d.line("warn", fmt.Sprintf("records %d to %d are gone (%s)", body.From, body.To, body.Why))
	case *feedback.Error, *feedback.Result:
		d.mu.Lock()
		_, isError := body.(*feedback.Error)
		d.failed = isError
		d.ended = d.ended || node == ""
		d.mu.Unlock()
	}
}

func (d *Display) log(node string, l *feedback.Log) {
	if l.Level == "debug" {
		return
	}
	text := l.Text
	if l.Item != "" && l.Item != node {
		text = l.Item + ": " + text
	}
	if l.Level == "warn" || l.Level == "error" {
		text = l.Level + ": " + text
	}
	d.line(l.Level, join(node, text))
}

// Log shows a line of the program's own, above the bars.
func (d *Display) Log(level, text string) { d.line(level, text) }

func (d *Display) line(level, text string) {
	text = feedback.Printable(text)
	d.mu.Lock()
	defer d.mu.Unlock()
	if level == "warn" || level == "error" {
		d.tail = append(d.tail, text)
		d.tail = d.tail[max(0, len(d.tail)-repeated):]
	} else if d.o.Quiet {
		return
	}
	d.write(text)
}

// write puts a line out; mu is held.
func (d *Display) write(text string) {
	if d.bars != nil && !d.closed {
		d.bars.log(text)
		return
	}
	fmt.Fprintln(d.o.Out, text)
}

func (d *Display) progress(p *feedback.Progress) {
	clean := *p
	clean.Item, clean.Phase, clean.Unit = feedback.Printable(p.Item), feedback.Printable(p.Phase), feedback.Printable(p.Unit)
	clean.Why = feedback.Printable(p.Why)
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed && (d.bars != nil || d.o.Quiet) {
		d.stall(&clean)
	}
	switch {
	case d.closed || d.o.Quiet:
	case d.bars != nil:
		d.bars.show(clean)
	default:
		key := clean.Item + "\x00" + clean.Phase
		now := d.o.Now()
		if at, ok := d.spoken[key]; ok && now.Sub(at) < d.o.Every {
			return
		}
		d.spoken[key] = now
		d.write(clean.Item + " " + clean.Phase + ": " + describe(&clean))
	}
}

// describe is how far an item is, how fast, and why it is not.
func describe(p *feedback.Progress) string {
	s, about := amount(p.Done, p.Unit), ""
	if p.TotalIs == feedback.TotalEstimate {
		about = "~"
	}
	if p.Total >= 0 {
		s = strings.TrimSuffix(s, " "+p.Unit) + " of " + about + amount(p.Total, p.Unit)
	}
	if p.Total > 0 {
		s += fmt.Sprintf(" (%s%d%%)", about, min(100, max(0, int64(float64(p.Done)/float64(p.Total)*100))))
	}
	if p.Stalled > 0 {
		return s + ", " + still(p)
	}
	if p.Total >= 0 && p.Done >= p.Total {
		return s // how fast the last of it came says nothing any more
	}
	if p.Rate > 0 {
		s += ", " + amount(int64(p.Rate), p.Unit) + "/s"
	}
	if p.ETA >= 0 && p.Rate > 0 {
		s += ", " + about + Duration(time.Duration(p.ETA)*time.Second) + " left"
	}
	return s
}

// still says for how long nothing has moved, and why.
func still(p *feedback.Progress) string {
	s := "stalled for " + Duration(time.Duration(p.Stalled)*time.Second)
	if p.Why != "" {
		s += ": " + p.Why
	}
	return s
}

// stall says above the bars that an item stalls, once for each reason, and that
// it moves again; mu is held. Bars have no room for reasons, and who is quiet
// wants to know it too.
func (d *Display) stall(p *feedback.Progress) {
	key := p.Item + "\x00" + p.Phase
	was, stalled := d.stalled[key]
	switch now := withoutDigits(p.Why); {
	case p.Stalled > 0 && (!stalled || was != now):
		d.stalled[key] = now
		d.write("warn: " + p.Item + " " + p.Phase + ": " + still(p))
	case p.Stalled == 0 && stalled:
		delete(d.stalled, key)
		if !d.o.Quiet {
			d.write(p.Item + " " + p.Phase + ": it moves again")
		}
	}
}

// withoutDigits makes equal what differs in a countdown only.
func withoutDigits(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, s)
}

// Close ends the bars. When the feed ended with an error, or without a final,
// it repeats the last warnings and errors where bars or other lines stand
// between them and the end.
func (d *Display) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	d.closed = true
	if d.bars != nil {
		d.bars.close(d.failed)
	}
	if (d.failed || !d.ended) && len(d.tail) > 0 {
		fmt.Fprintln(d.o.Out, "the last messages were:")
		for _, text := range d.tail {
			fmt.Fprintln(d.o.Out, "  "+text)
		}
	}
}

func join(node, text string) string {
	if node == "" {
		return text
	}
	return node + ": " + text
}
