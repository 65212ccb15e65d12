package progress_test

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"gantry/feedback"
	"gantry/progress"

	"github.com/stretchr/testify/require"
)

// screen is a writer that may be read while it is written.
type screen struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func moved(done, total int64) feedback.Record {
	return feedback.Record{Kind: feedback.KindProgress, Body: &feedback.Progress{
		Item: "beta:vm1.img", Phase: "fetch", Done: done, Total: total, Unit: "bytes", Rate: 2e8, ETA: 3,
	}}
}

func logged(level, text string) feedback.Record {
	return feedback.Record{Kind: feedback.KindLog, Body: &feedback.Log{Level: level, Text: text, Item: "vm1.img"}}
}

func failed() feedback.Record {
	return feedback.Record{Kind: feedback.KindError, Body: &feedback.Error{Code: "io", Message: "disk"}}
}

func done() feedback.Record {
	return feedback.Record{Kind: feedback.KindResult, Body: &feedback.Result{}}
}

func TestPlainLinesEveryFewSeconds(t *testing.T) {
	out, now := &screen{}, time.Unix(0, 0)
	d := progress.New(progress.Options{Out: out, Now: func() time.Time { return now }})
	for i := range 12 {
		d.Show(moved(int64(i)*100e6, 1200e6))
		now = now.Add(time.Second)
	}
	d.Show(done())
	d.Close()
	require.Equal(t, []string{
		"beta:vm1.img fetch: 0 B of 1.2 GB (0%), 200.0 MB/s, 3.0 s left",
		"beta:vm1.img fetch: 500.0 MB of 1.2 GB (41%), 200.0 MB/s, 3.0 s left",
		"beta:vm1.img fetch: 1.0 GB of 1.2 GB (83%), 200.0 MB/s, 3.0 s left",
	}, strings.Split(strings.TrimSpace(out.String()), "\n"))
}

func TestRecordsOfTasksCarryTheirNode(t *testing.T) {
	out := &screen{}
	d := progress.New(progress.Options{Out: out})
	line := `{"seq":4,"t":"2026-11-20T21:31:04.120Z","kind":"log","level":"warn","text":"connection lost","item":"vm1.img"}`
	d.Show(feedback.Record{Kind: feedback.KindTask, Body: &feedback.Task{Node: "beta", Task: "x", Record: []byte(line)}})
	d.Show(done())
	d.Close()
	require.Equal(t, "beta: warn: vm1.img: connection lost\n", out.String())
}

// The last value of a phase may never be sent: the next phase brings it.
func TestBarsEndAPhaseWhereTheNextBegins(t *testing.T) {
	out := &screen{}
	d := progress.New(progress.Options{Out: out, Width: 100})
	d.Show(moved(1100e6, 1200e6))
	next := moved(1200e6, 1200e6)
	next.Body.(*feedback.Progress).Phase = "publish"
	d.Show(next)
	d.Show(done())
	d.Close()
	for line := range strings.Lines(out.String()) {
		if strings.Contains(line, "fetch") && strings.Contains(line, "done") {
			require.Contains(t, line, "1.2 GB of 1.2 GB (100%)")
			return
		}
	}
	require.Fail(t, "the fetch has no last line", out.String())
}

func TestBars(t *testing.T) {
	out := &screen{}
	d := progress.New(progress.Options{Out: out, Width: 100})
	for _, v := range []int64{100e6, 600e6, 1100e6} {
		d.Show(moved(v, 1200e6))
		want := progress.Bytes(v) + " of 1.2 GB"
		require.Eventually(t, func() bool { return strings.Contains(out.String(), want) }, 10*time.Second, time.Millisecond, want)
	}
	d.Show(logged("warn", "100% connection %d lost"))
	d.Show(done())
	d.Close()
	text := out.String()
	require.Contains(t, text, "200.0 MB/s, 3.0 s left")
	require.Contains(t, text, "100% connection %d lost")
	require.NotContains(t, text, "the last messages")
	before := len(text)
	d.Show(moved(1200e6, 1200e6)) // nothing is drawn after Close
	require.Len(t, out.String(), before)
}

func TestC49TerminalEscapesAreMadeVisible(t *testing.T) {
	for _, width := range []int{0, 80} {
		t.Run(fmt.Sprint("width ", width), func(t *testing.T) {
			out := &screen{}
			d := progress.New(progress.Options{Out: out, Width: width})
			evil := "\x1b]0;owned\x07\x9b2J"
			d.Show(feedback.Record{Kind: feedback.KindProgress, Body: &feedback.Progress{Item: evil, Phase: evil, Unit: evil, Done: 1, Total: -1, ETA: -1}})
			d.Show(logged("warn", evil))
			d.Show(failed())
			d.Close()
			require.NotContains(t, out.String(), "\x1b]0;")
			require.NotContains(t, out.String(), "\x07")
			require.NotContains(t, out.String(), "\x9b")
			require.Contains(t, out.String(), "owned")
		})
	}
}

func TestLastMessagesAreRepeatedAfterAFailure(t *testing.T) {
	for _, width := range []int{0, 80} {
		out := &screen{}
		d := progress.New(progress.Options{Out: out, Width: width})
		for i := range 9 {
			d.Show(logged("warn", fmt.Sprint("trouble ", i)))
		}
		d.Show(logged("info", "chatter"))
		d.Show(failed())
		d.Close()
		_, end, found := strings.Cut(out.String(), "the last messages were:\n")
		require.True(t, found)
		require.Equal(t, 5, strings.Count(end, "trouble"))
		require.Contains(t, end, "trouble 8")
		require.NotContains(t, end, "trouble 3")
		require.NotContains(t, end, "chatter")
	}
}

func TestQuietShowsTroubleOnly(t *testing.T) {
	out := &screen{}
	d := progress.New(progress.Options{Out: out, Width: 80, Quiet: true})
	d.Show(moved(1, 2))
	d.Show(logged("info", "chatter"))
	d.Show(logged("error", "trouble"))
	d.Show(done())
	d.Close()
	require.Equal(t, "error: vm1.img: trouble\n", out.String())
}

// TestC51NumbersOutOfRange: what a feed claims never breaks the display.
func TestC51NumbersOutOfRange(t *testing.T) {
	out := &screen{}
	d := progress.New(progress.Options{Out: out, Every: time.Nanosecond})
	for _, p := range []feedback.Progress{
		{Done: 300, Total: 100, ETA: -1}, {Done: -5, Total: 100, ETA: -1}, {Done: math.MaxInt64, Total: 1, Rate: math.Inf(1), ETA: math.MaxInt64},
		{Done: 0, Total: 0, ETA: -1}, {Done: math.MinInt64, Total: math.MaxInt64, Rate: math.NaN(), ETA: -1},
	} {
		p.Item = fmt.Sprint(p.Done)
		d.Show(feedback.Record{Kind: feedback.KindProgress, Body: &p})
	}
	d.Show(done())
	d.Close()
	for line := range strings.Lines(out.String()) {
		var percent int
		if _, rest, ok := strings.Cut(line, "("); ok {
			_, err := fmt.Sscanf(rest, "%d%%", &percent)
			require.NoError(t, err)
			require.LessOrEqual(t, percent, 100)
			require.GreaterOrEqual(t, percent, 0)
		}
	}
}

func TestUnits(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "1.0 kB", 1449: "1.4 kB", 999_949: "999.9 kB", 999_950: "1.0 MB",
		4 << 20: "4.2 MB", 1 << 30: "1.1 GB", math.MaxInt64: "9.2 EB", -1500: "-1.5 kB",
	} {
		require.Equal(t, want, progress.Bytes(n))
	}
	for d, want := range map[time.Duration]string{
		0: "0.0 s", 412 * time.Millisecond: "0.4 s", 12 * time.Second: "12 s", 59_600 * time.Millisecond: "1 min 00 s",
		200 * time.Second: "3 min 20 s", 125 * time.Minute: "2 h 05 min",
	} {
		require.Equal(t, want, progress.Duration(d))
	}
}

func TestTable(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, progress.Table(&b, []string{"name", "size"}, [][]string{{"a\x1b[2J", "1"}, {"bbb", "22"}}))
	lines := strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
	require.Len(t, lines, 3)
	require.NotContains(t, b.String(), "\x1b")
	require.Equal(t, strings.Index(lines[0], "SIZE"), strings.Index(lines[2], "22"))
}

// Totals that are no promise are not shown as one.
func TestEstimatesAndStalls(t *testing.T) {
	out, now := &screen{}, time.Unix(0, 0)
	d := progress.New(progress.Options{Out: out, Now: func() time.Time { return now }, Every: time.Second})
	for _, p := range []feedback.Progress{
		{Total: 4e9, TotalIs: feedback.TotalEstimate, Done: 1e9, Rate: 1e8, ETA: 30},
		{Total: -1, TotalIs: feedback.TotalUnknown, Done: 2e9, Rate: 1e8, ETA: -1},
		{Total: 4e9, TotalIs: feedback.TotalExact, Done: 2e9, Stalled: 35, ETA: -1, Why: "beta: \x1b[2Jthe disk is slow"},
	} {
		p.Item, p.Phase, p.Unit = "beta:mail", "fetch", "bytes"
		d.Show(feedback.Record{Kind: feedback.KindProgress, Body: &p})
		now = now.Add(time.Minute)
	}
	d.Show(done())
	d.Close()
	require.Equal(t, []string{
		"beta:mail fetch: 1.0 GB of ~4.0 GB (~25%), 100.0 MB/s, ~30 s left",
		"beta:mail fetch: 2.0 GB, 100.0 MB/s",
		`beta:mail fetch: 2.0 GB of 4.0 GB (50%), stalled for 35 s: beta: \x1b[2Jthe disk is slow`,
	}, strings.Split(strings.TrimSpace(out.String()), "\n"))
}

// Who is quiet is told once for each reason; a countdown is one reason.
func TestStallIsSaidOnce(t *testing.T) {
	for name, o := range map[string]progress.Options{"quiet": {Quiet: true}, "bars": {Width: 100}} {
		t.Run(name, func(t *testing.T) {
			out := &screen{}
			o.Out = out
			d := progress.New(o)
			show := func(stalled int64, why string) {
				d.Show(feedback.Record{Kind: feedback.KindProgress, Body: &feedback.Progress{
					Item: "vm", Phase: "fetch", Done: 1, Total: 9, Unit: "bytes", ETA: -1, Stalled: stalled, Why: why,
				}})
			}
			show(0, "")
			for left := 20; left > 0; left-- {
				show(50-int64(left), fmt.Sprintf("connection lost, retry in %d s", left))
			}
			show(60, "the disk is slow")
			show(0, "")
			d.Show(done())
			d.Close()
			require.Equal(t, 1, strings.Count(out.String(), "warn: vm fetch: stalled for 30 s: connection lost, retry in 20 s"))
			require.Equal(t, 1, strings.Count(out.String(), "connection lost"))
			require.Equal(t, 1, strings.Count(out.String(), "the disk is slow"))
			require.Equal(t, name == "bars", strings.Contains(out.String(), "it moves again"))
		})
	}
}
